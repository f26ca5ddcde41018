"""`rescind counts`, and the live share of each variant in `rescind get`."""

from __future__ import annotations

import json

import pytest

from tests.server.serving import P, Served
from tests.server.test_cli import FLAG, Line


@pytest.fixture
def line(served: Served) -> Line:
    return Line(served)


async def test_counts_are_a_table_with_shares_outcomes_and_bars(served: Served, line: Line) -> None:
    await served.put_flag(FLAG)
    assert "nobody has counted" in (await line("counts", FLAG)).stdout
    evaluations = [
        {"flag": FLAG, "variant": "on", "reason": "SPLIT", "count": 30},
        {"flag": FLAG, "variant": "off", "reason": "SPLIT", "count": 90},
    ]
    outcomes = [{"flag": FLAG, "variant": "on", "ok": 96, "failed": 4, "durations": [[80, 100]]}]
    window = {"sequence": 1, "ended_ms_ago": 20_000, "evaluations": evaluations, "outcomes": outcomes}
    await served.ok("POST", f"{P}/counts", {"run": "r", "service": "web", "windows": [window]})
    done = await line("counts", FLAG, "--since", "5m")
    for words in ("web", "on", "30", "25.0%", "off", "75.0%", "SPLIT=90", "4 (4.0%)", "1070", "·█"):
        assert words in done.stdout, done.stdout
    answer = json.loads((await line("counts", FLAG, "--window", "30s", "--json")).stdout)
    assert (answer["window_seconds"], [one["count"] for one in answer["totals"]]) == (30, [90, 30])
    shown = (await line("get", FLAG)).stdout
    assert "25.0%" in shown
    assert "lately" in shown


async def test_a_wrong_question_is_refused_with_what_is_wrong(served: Served, line: Line) -> None:
    await served.put_flag(FLAG)
    assert (await line("counts", FLAG, "--since", "soon")).returncode == 2
    refused = await line("counts", FLAG, "--window", "15s")
    assert "multiple of 10" in refused.stderr, refused
    assert (await line("counts", "checkout.new-flw")).returncode == 13

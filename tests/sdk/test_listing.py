"""Tables in the width there is: nothing a person copies is broken, the least important columns give way first."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rescind.cli import effects, instances, rollbacks
from rescind.cli.tables import table_of
from rich.console import Console

ID = "01a20f93-876c-77d9-bd27-46aa3148910f"
EFFECT = {
    "id": ID, "kind": "confirmation.mail", "key": "capture:order-4711", "flag": "checkout.new-flow", "variant": "on",
    "status": "succeeded", "epoch": 3, "subject": "customer-99", "admitted_at": "2026-11-24T09:00:00.123456+00:00",
}  # fmt: skip
KILL = {
    "id": ID, "state": "compensating", "flags": ["checkout.new-flow"], "reason": "double charges since the deploy",
    "actor": "ann", "fenced_at": "2026-11-24T09:00:00.123456+00:00",
}  # fmt: skip
INSTANCE = {
    "service": "checkout", "instance": "checkout@host-7.example:4242", "revision": [1, 42], "how": "stream", "live": True,
    "behind": 0, "seen_at": "2026-11-24T09:00:00.123456+00:00",
}  # fmt: skip


def drawn(row: dict[str, Any], columns: tuple[str, ...], width: int) -> list[str]:
    out = StringIO()
    Console(file=out, width=width, highlight=False, soft_wrap=True).print(table_of([row], columns))
    return out.getvalue().splitlines()


@pytest.mark.parametrize(
    ("row", "columns", "whole"),
    [
        (EFFECT, effects.COLUMNS, [ID, "confirmation.mail", "succeeded"]),
        (KILL, rollbacks.RECENT_COLUMNS, [ID, "compensating", "checkout.new-flow"]),
        (INSTANCE, instances.COLUMNS, ["checkout", "checkout@host-7.example:4242", "1.42"]),
    ],
)
def test_at_80_columns_what_is_copied_stays_whole(row: dict[str, Any], columns: tuple[str, ...], whole: list[str]) -> None:
    lines = drawn(row, columns, 80)
    for text in whole:
        assert any(text in line for line in lines), (text, lines)
    assert max(map(len, lines)) <= 80, lines
    assert len(lines) <= 5, lines
    assert all(line == line.rstrip() for line in lines)


def test_what_is_left_out_is_named_and_back_where_there_is_room() -> None:
    assert "epoch" in drawn(EFFECT, effects.COLUMNS, 80)[-1]
    header, line = drawn(EFFECT, effects.COLUMNS, 240)
    assert "epoch" in header
    assert "customer-99" in line


def test_an_id_is_whole_however_narrow() -> None:
    assert any(line == ID for line in drawn(KILL, rollbacks.RECENT_COLUMNS, 20))

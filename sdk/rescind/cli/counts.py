"""`rescind counts`: who was served which variant of a flag lately, and what it led to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from rich.markup import escape

from rescind.cli.options import seconds_of
from rescind.cli.session import Session, common, part, pass_session
from rescind.cli.tables import instant, table_of
from rescind.errors import ApiError

COLUMNS = ("service", "variant", "evaluations", "share", "per window", "reasons", "ok", "failed", "p50", "p99")
BARS = "▁▂▃▄▅▆▇█"
WINDOWS = 30
STEP_SECONDS = 10
SHARES_SECONDS = 300


@click.command()
@click.argument("flag")
@click.option("--since", default="10m", show_default=True, metavar="DURATION", help="How far back: 90s, 10m, 1h30m, 7d.")
@click.option("--window", metavar="DURATION", help="Sum by windows of this length, in steps of 10 s.  [default: 30 windows]")
@common
@pass_session
def counts(session: Session, flag: str, since: str, window: str | None) -> None:
    """Show who was served which variant of FLAG, and what it led to.

    Evaluations and outcomes as the SDKs count them (`client.track`), by windows. Durations in milliseconds, 4.5 % off at most.
    """
    seconds = seconds_of(since)
    length = window_of(seconds) if window is None else round(seconds_of(window))
    begin = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()
    params = {"since": begin, "window_seconds": length}
    answer = session.api.request("GET", session.within(f"/flags/{part(flag)}/counts"), params=params)
    if session.json:
        session.show_json(answer)
        return
    title = f"[bold]{escape(answer['key'])}[/] in {escape(session.environment)} since {instant(answer['since'])}"
    session.console.print(f"{title}, by {answer['window_seconds']} s")
    rows = [row_of(one, answer) for one in answer["totals"]]
    session.console.print(table_of(rows, COLUMNS) if rows else "nobody has counted an evaluation of it")
    if answer["truncated"]:
        session.console.print("[yellow]there is more than is read at a time: ask for longer windows[/]")


def shares(session: Session, flag: str) -> dict[str, str]:
    """Which share of the evaluations of the last five minutes each variant had, all services together.

    Empty where nothing was counted, or a server of the last release counts nothing.
    """
    begin = (datetime.now(UTC) - timedelta(seconds=SHARES_SECONDS)).isoformat()
    params = {"since": begin, "window_seconds": SHARES_SECONDS}
    try:
        answer = session.api.request("GET", session.within(f"/flags/{part(flag)}/counts"), params=params)
    except ApiError:
        return {}
    served: Counter[str] = Counter()
    for one in answer["totals"]:
        served[one["variant"]] += one["count"]
    return {variant: f"{number / served.total():.1%}" for variant, number in served.items() if number}


def window_of(seconds: float) -> int:
    """The length that makes about thirty windows of so long a time.

    >>> window_of(600), window_of(5), window_of(86400)
    (20, 10, 2880)
    """
    return max(STEP_SECONDS, int(seconds / WINDOWS) // STEP_SECONDS * STEP_SECONDS)


def row_of(one: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    """One service and variant as people read it."""
    durations = one["duration_ms"]
    return {
        "service": one["service"],
        "variant": one["variant"] or "(default)",
        "evaluations": one["count"],
        "share": "" if one["share"] is None else f"{one['share']:.1%}",
        "per window": sparkline(series_of(one, answer)),
        "reasons": one["evaluations"],
        "ok": one["ok"],
        "failed": failures(one["ok"], one["failed"]),
        "p50": rounded(durations["p50"]),
        "p99": rounded(durations["p99"]),
    }


def series_of(one: Mapping[str, Any], answer: Mapping[str, Any]) -> list[int]:
    """Its evaluations by window, those without any included."""
    begin, until = (datetime.fromisoformat(answer[name]) for name in ("since", "until"))
    length = answer["window_seconds"]
    numbers = [0] * max(1, -int((begin - until).total_seconds() // length))
    for window in answer["windows"]:
        place = int((datetime.fromisoformat(window["at"]) - begin).total_seconds() // length)
        for series in window["series"]:
            if 0 <= place < len(numbers) and (series["service"], series["variant"]) == (one["service"], one["variant"]):
                numbers[place] += series["count"]
    return numbers


def sparkline(numbers: Sequence[int]) -> str:
    """A bar for each, the highest for the largest; a dot where there is nothing.

    >>> sparkline([0, 1, 4, 8])
    '·▁▄█'
    """
    most = max(numbers, default=0)
    return "".join("·" if not number else BARS[-(-number * len(BARS) // most) - 1] for number in numbers)


def failures(ok: int, failed: int) -> str:
    """How many, and which share of all outcomes.

    >>> failures(98, 2), failures(0, 0)
    ('2 (2.0%)', '0')
    """
    return f"{failed} ({failed / (ok + failed):.1%})" if failed else "0"


def rounded(duration_ms: float | None) -> str:
    """Three digits say all that is known.

    >>> rounded(1234.5), rounded(0.01234), rounded(None)
    ('1230', '0.0123', '')
    """
    if duration_ms is None:
        return ""
    return f"{float(f'{duration_ms:.3g}'):g}"


COMMANDS = (counts,)

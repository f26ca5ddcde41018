"""Following a rollback on the screen: a line when something is reached, a bar per kind while effects are undone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from rescind.cli import waiting
from rescind.cli.session import Session
from rescind.cli.tables import counts_table, plural
from rescind.errors import ApiError, Unreachable

SILENCE_SECONDS = 15.0
RETRY_SECONDS = 0.5
STUCK_SECONDS = 2.0
NAMED_MAX = 10

Record = dict[str, Any]


class Screen:
    """Prints each thing that is reached once, and keeps bars at the foot where the output is a terminal."""

    def __init__(self, console: Console, *, quiet: bool) -> None:
        self._console = console
        self._quiet = quiet
        self._said: set[str] = set()
        self._live: Live | None = None

    def __enter__(self) -> Screen:
        if self._console.is_terminal and not self._quiet:
            self._live = Live(console=self._console, transient=True, refresh_per_second=8)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, record: Record) -> None:
        """Say what is new in the record."""
        if self._quiet:
            return
        self._moments(record)
        if self._live is not None:
            self._live.update(bars(record))

    def say(self, key: str, text: str) -> None:
        """Print a line unless it has been said."""
        if not self._quiet and key not in self._said:
            self._said.add(key)
            self._console.print(text)

    def _moments(self, record: Record) -> None:
        revision = record["revision"]
        self.say(f"fenced {revision}", f"[bold]fenced[/] at revision {revision}: no effect of the release is admitted any more")
        known = record.get("containment") or {}
        for service, ms in (known.get("services") or {}).items():
            if ms is not None:
                self.say(f"service {service} {revision}", f"  {escape(service)} is on the off variant after {ms:.0f} ms")
        if record["contained_at"]:
            done = known.get("instances", 0) - known.get("unconfirmed_count", 0)
            ms = milliseconds(record, "contained_at")
            of = (
                f"{done} of {known['instances']} instances, {ms:.0f} ms"
                if known.get("instances")
                else "no instances to contain"
            )
            self.say(f"contained {revision}", f"[bold]contained[/] {of}")
        if record["drained_at"]:
            self.say(
                f"drained {revision}", f"[bold]drained[/] after {milliseconds(record, 'drained_at'):.0f} ms: the set is closed"
            )
        if record["state"] == "grace" and record["grace_until"]:
            self.say(
                "grace",
                f"[bold]grace[/] until {record['grace_until']}: `rescind lift` undoes the kill with nothing else touched",
            )
        if record["enumerated_at"]:
            total = sum(kind["admitted"] for kind in (record["counts"] or {}).values())
            self.say(f"enumerated {total}", f"[bold]enumerated[/] {plural(total, 'effect')}")
        for failure in record.get("retrying") or []:
            self._failure(record, failure)
        if record["state"] == "settled":
            outcome = f" ({record['outcome'].replace('_', ' ')})" if record["outcome"] else ""
            self.say("settled", f"[bold green]settled[/]{outcome}")

    def _failure(self, record: Record, failure: Record) -> None:
        """Each error once per kind; the bars have the attempts as they go on."""
        one = {**record, "retrying": [failure]}
        for matter, stand in waiting.failing(one):
            self.say(f"failing {failure['kind']} {failure['error']}", f"[yellow]{escape(matter)}[/] ({escape(stand)})")


def bars(record: Record) -> Group:
    """One bar per kind: how many of its effects have come to an end."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for kind, numbers in (record["counts"] or {}).items():
        ended = sum(numbers[state] for state in ("compensated", "never_happened", "irreversible", "skipped"))
        bar = ProgressBar(total=max(numbers["admitted"], 1), completed=ended, width=40)
        people = f"{numbers['waiting']} wait for a person" if numbers["waiting"] else ""
        table.add_row(escape(kind), bar, f"{ended} of {numbers['admitted']}", people)
    known = record.get("containment") or {}
    silent = known.get("unconfirmed_count", 0)
    state = "" if record["state"] == "settled" else str(record["state"])
    silence = f"{plural(silent, 'instance')} not confirmed" if silent else ""
    failures = [f"{matter} ({stand})" for matter, stand in waiting.failing(record)]
    failures += [*waiting.proceeding(record), *waiting.continuing(record)]
    return Group(", ".join(part for part in (state, silence) if part), table, *map(escape, failures))


def milliseconds(record: Record, field: str) -> float:
    """From the fence to one of the record's times."""
    return (datetime.fromisoformat(record[field]) - datetime.fromisoformat(record["fenced_at"])).total_seconds() * 1000


def follow(
    session: Session, rollback_id: str, *, until: Callable[[Record], bool], timeout_seconds: float | None, quiet: bool
) -> Record:
    """Show the rollback until `until` holds, nothing moves without a person, or the time is up; return how it stands then.

    A server that goes away in between is asked again: the rollback is carried on by the others.
    """
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    stuck_since: float | None = None
    record: Record = {}
    with Screen(session.console, quiet=quiet) as screen:
        for record in records(session, rollback_id, deadline, screen):
            screen.show(record)
            stuck = record["state"] in ("waiting", "held", "paused")
            stuck_since = (stuck_since or time.monotonic()) if stuck else None
            if until(record) or (stuck_since is not None and time.monotonic() - stuck_since > STUCK_SECONDS):
                break
    return record


def records(session: Session, rollback_id: str, deadline: float | None, screen: Screen) -> Iterator[Record]:
    """The rollback at every change and every beat, across lost connections, until the deadline."""
    last: Record | None = None
    while deadline is None or time.monotonic() < deadline:
        left = SILENCE_SECONDS if deadline is None else max(min(SILENCE_SECONDS, deadline - time.monotonic()), 0.05)
        try:
            for event in session.api.stream(f"/v1/rollbacks/{rollback_id}/events", timeout_seconds=left):
                last = msgspec.json.decode(event.data) if event.event == "rollback" else last
                if last is not None:
                    yield last
                if deadline is not None and time.monotonic() >= deadline:
                    return
        except Unreachable as error:
            if deadline is None or time.monotonic() < deadline:
                screen.say(
                    "lost", f"[yellow]the connection was lost, the kill stands; asking again[/] [dim]({escape(str(error))})[/]"
                )
        except ApiError as error:
            if not error.passing:
                raise
        time.sleep(RETRY_SECONDS)


def sum_up(session: Session, record: Record) -> None:
    """The table at the end, and what to do next."""
    out = session.console
    if record.get("counts"):
        out.print(counts_table(record["counts"]))
    for instance in (record.get("containment") or {}).get("unconfirmed", [])[:NAMED_MAX]:
        out.print(
            f"  [yellow]not confirmed:[/] {escape(instance['service'])} {escape(instance['instance'])}, "
            f"last seen {instance['seen_at']}"
        )
    rollback = record["id"]
    for matter, stand in waiting.failing(record):
        out.print(f"  [yellow]{escape(matter)}[/] ({escape(stand)})")
    for line in (*waiting.lines(record.get("counts") or {}), *waiting.proceeding(record), *waiting.continuing(record)):
        out.print(f"  [yellow]{escape(line)}[/]")
    match record["state"]:
        case "waiting":
            out.print(f"which ones: rescind report {rollback}")
            out.print(f"then: rescind retry {rollback} --reason TEXT, or rescind skip {rollback} --effect ID --reason TEXT")
        case "held":
            out.print(f"held: rescind resume {rollback} undoes the effects, rescind lift brings the release back")
        case "paused":
            out.print(f"paused: rescind resume {rollback}")
        case "settled":
            out.print(f"report: rescind report {rollback}")
        case _:
            out.print(f"the rest goes on without this command: rescind watch {rollback}")

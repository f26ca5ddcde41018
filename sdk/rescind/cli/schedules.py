"""`rescind schedule`: changes that are applied later, by the servers, in your name."""

from __future__ import annotations

from typing import Any

import click
import msgspec
from rich.markup import escape

from rescind.cli.options import document_of, reason_option, seconds_of
from rescind.cli.session import Session, common, part, pass_session
from rescind.cli.tables import table_of, text_of

STATES = ("waiting", "applied", "refused", "cancelled")
COLUMNS = ("id", "at", "state", "flags", "actor", "reason", "outcome")


@click.group(invoke_without_command=True)
@common
@click.pass_context
def schedule(context: click.Context) -> None:
    """List, add, show and cancel changes that are applied later."""
    if context.invoked_subcommand is None:
        context.invoke(listing, flag=None, status=None, limit=100)


@schedule.command("list")
@click.option("--flag", metavar="FLAG", help="Only those of this flag.")
@click.option("--status", type=click.Choice(STATES), help="Only those.")
@click.option("--limit", type=click.IntRange(1, 500), default=100, show_default=True)
@common
@pass_session
def listing(session: Session, flag: str | None, status: str | None, limit: int) -> None:
    """List scheduled changes, the newest first: what waits, and what became of the others."""
    params = {"flag": flag, "status": status, "limit": limit}
    answer = session.api.request("GET", session.within("/schedules"), params=params)
    if session.json:
        session.show_json(answer)
        return
    rows = [{**one, "outcome": outcome_of(one)} for one in answer["schedules"]]
    session.console.print(table_of(rows, COLUMNS) if rows else "nothing is scheduled")


@schedule.command("add")
@click.argument("document", metavar="FILE|JSON")
@click.option("--at", metavar="T", help="When: RFC 3339, 2026-11-24T09:00:00Z.")
@click.option("--in", "after", metavar="DURATION", help="Or how long from now: 45s, 30m, 1h30m, 2d.")
@reason_option
@common
@pass_session
def add(session: Session, document: str, at: str | None, after: str | None, reason: str) -> None:
    """Apply a change later. FILE or literal JSON is a flag, as `rescind set` takes it, or a list of operations.

    \b
    For example:
      {"key": "checkout.new-flow", "definition": {...}}
      [{"op": "put", "flag": {...}}, {"op": "archive", "key": "old-flow"}]
      [{"op": "kill", "key": "checkout.new-flow", "compensate": "hold"}]

    What was edited by hand meanwhile is not overwritten: the change is refused by then, and `rescind schedule list` says why.
    """
    if (at is None) == (after is None):
        raise click.UsageError("give --at or --in, one of them")
    asked = document_of(document, what="the change")
    operations = asked if isinstance(asked, list) else [{"op": "put", "flag": asked}]
    when: dict[str, Any] = {"at": at} if after is None else {"in_seconds": seconds_of(after)}
    answer = session.api.request(
        "POST", session.within("/schedules"), json={**when, "operations": operations, "reason": reason}
    )
    session.tell(answer, f"scheduled for [bold]{escape(text_of(answer['at']))}[/] UTC: {answer['id']}")


@schedule.command("show")
@click.argument("identity", metavar="ID")
@common
@pass_session
def show(session: Session, identity: str) -> None:
    """Show the scheduled change ID: what it writes, and what became of it."""
    answer = session.api.request("GET", session.within(f"/schedules/{part(identity)}"))
    if session.json:
        session.show_json(answer)
        return
    out = session.console
    out.print(table_of([{**answer, "outcome": outcome_of(answer)}], COLUMNS))
    for fault in answer["faults"]:
        out.print(f"  {escape(fault['pointer'] or '/')}  {escape(fault['detail'])}")
    out.print(msgspec.json.format(msgspec.json.encode(answer["operations"]), indent=2).decode(), markup=False)


@schedule.command("cancel")
@click.argument("identity", metavar="ID")
@reason_option
@common
@pass_session
def cancel(session: Session, identity: str, reason: str) -> None:
    """Cancel the scheduled change ID."""
    answer = session.api.request("DELETE", session.within(f"/schedules/{part(identity)}"), json={"reason": reason})
    session.tell(answer, f"cancelled {escape(identity)}")


def outcome_of(one: dict[str, Any]) -> str:
    """The revision that it became, why it was refused, or who cancelled it."""
    if one["faults"]:
        more = f" (and {len(one['faults']) - 1} more)" if len(one["faults"]) > 1 else ""
        return f"{one['faults'][0]['detail']}{more}"
    return one["revision"] or (f"by {one['ended_by']}" if one["ended_by"] else "")


COMMANDS = (schedule,)

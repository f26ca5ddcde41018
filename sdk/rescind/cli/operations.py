"""`rescind sagas bulk VERB`, `rescind sagas operations`: one verb for all runs that a filter finds (P19, P20)."""

from __future__ import annotations

import time
from typing import Any

import click
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from rescind.cli import filters
from rescind.cli.options import declined, reason_option
from rescind.cli.session import Session, common, part, pass_session
from rescind.cli.tables import plural, table_of, text_of

VERBS = ("cancel", "pause", "resume", "retry", "skip")
COLUMNS = ("id", "state", "verb", "saga", "done", "refused", "left", "actor", "reason", "created_at", "ended_at")
LOOK_SECONDS = 0.5


@click.command("bulk")
@click.argument("verb", type=click.Choice(VERBS))
@click.argument("saga", required=False)
@filters.options
@click.option("--step", metavar="STEP", help="As with one run: the step, or wait, that `retry` and `skip` are about.")
@click.option("--per-second", type=click.FloatRange(0.1, 1000), default=50, show_default=True, help="At most so many a second.")
@reason_option
@click.option("--dry-run", is_flag=True, help="Say how many it is about, and do nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--no-wait", is_flag=True, help="Begin it, and do not follow it.")
@common
@pass_session
def bulk(
    session: Session,
    /,
    verb: str,
    saga: str | None,
    step: str | None,
    per_second: float,
    reason: str,
    dry_run: bool,
    yes: bool,
    no_wait: bool,
    **given: Any,
) -> None:
    """Say VERB to every run of SAGA (of all sagas) that the options find. The server carries it out, whatever becomes of this.

    \b
    For example: rescind sagas bulk retry order --state waiting --error CardRefused --reason "the provider is back"
    """
    asked = {
        "verb": verb, "saga": saga, "filter": filters.read(given), "step": step or "", "per_second": per_second,
        "reason": reason,
    }  # fmt: skip
    path = session.within("/operations")
    preview = session.api.request("POST", path, json={**asked, "dry_run": True})
    if not session.json:
        session.console.print(estimate(verb, preview))
    if dry_run or declined(session, f"{verb} them?", yes=yes):
        if session.json:
            session.show_json(preview)
        return
    operation = session.api.request("POST", path, json=asked)
    if not no_wait:
        operation = follow(session, operation)
    session.tell(operation, summary(operation))


@click.command("operations")
@click.argument("operation", required=False)
@click.option("--cancel", is_flag=True, help="Touch no further run. What is done stays done.")
@click.option("--follow", "follows", is_flag=True, help="Show how far it is until it ends.")
@click.option("--reason", metavar="TEXT", help="Why it is cancelled, for the audit log.")
@common
@pass_session
def operations(session: Session, operation: str | None, cancel: bool, follows: bool, reason: str | None) -> None:
    """List bulk operations, or show (cancel, follow) one."""
    if operation is None:
        if cancel or follows:
            raise click.UsageError("name the operation")
        listing(session)
        return
    path = session.within(f"/operations/{part(operation)}")
    if cancel and not reason:
        raise click.UsageError("--cancel needs --reason")
    if cancel:
        one = session.api.request("POST", f"{path}/cancel", json={"reason": reason})
    else:
        one = session.api.request("GET", path)
    one = follow(session, one) if follows else one
    session.tell(one, summary(one))


def listing(session: Session) -> None:
    """The youngest first."""
    answer = session.api.request("GET", session.within("/operations"))
    if session.json:
        session.show_json(answer)
        return
    session.console.print(table_of(answer["operations"], COLUMNS) if answer["operations"] else "no bulk operations")


def estimate(verb: str, preview: dict[str, Any]) -> str:
    """How many it is about, in words.

    >>> estimate("pause", {"estimated": 2, "is_exact": True, "sample": ["a", "b"]})
    'pause: 2 runs (a, b)'
    >>> estimate("pause", {"estimated": 90000, "is_exact": False, "sample": ["a"]})
    "pause: about 90000 runs, by PostgreSQL's statistics (a, ...)"
    """
    number, sample = preview["estimated"], [escape(one) for one in preview["sample"]]
    more = ["..."] if number > len(sample) else []
    about = plural(number, "run") if preview["is_exact"] else f"about {number} runs, by PostgreSQL's statistics"
    return f"{verb}: {about}" + (f" ({', '.join(sample + more)})" if sample else "")


def summary(one: dict[str, Any]) -> str:
    """How far an operation is, in a line."""
    refused = ", ".join(f"{count} {escape(reason)}" for reason, count in sorted(one["refused"].items()))
    left = f", {'about ' if not one['is_exact'] else ''}{one['left']} left" if one["left"] else ""
    why = f"; left as they stand: {refused}" if refused else ""
    return f"operation {one['id']} is [bold]{text_of(one['state'])}[/]: {one['verb']} done for {one['done']}{left}{why}"


def follow(session: Session, one: dict[str, Any]) -> dict[str, Any]:
    """Until it has ended, with a bar where there is a terminal. It goes on when this is interrupted."""
    path = session.within(f"/operations/{one['id']}")
    columns = (TextColumn(one["verb"]), BarColumn(), TextColumn("{task.completed} of {task.fields[about]}{task.total}"))
    with Progress(*columns, console=session.errors, transient=True, disable=session.json) as bar:
        task = bar.add_task("", total=one["estimated"], about="" if one["is_exact"] else "about ")
        while one["state"] == "running":
            seen = one["done"] + sum(one["refused"].values())
            bar.update(task, completed=seen, total=max(seen, one["estimated"]))
            time.sleep(LOOK_SECONDS)
            one = session.api.request("GET", path)
    return one


COMMANDS = (bulk, operations)

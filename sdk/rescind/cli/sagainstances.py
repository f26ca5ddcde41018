"""`rescind sagas instances|show|cancel|...`: runs of sagas, seen and mended by people (P19, P20)."""

from __future__ import annotations

from typing import Any

import click
from rich.markup import escape

from rescind.cli import filters
from rescind.cli.options import document_of, reason_option
from rescind.cli.session import Session, common, part, pass_session
from rescind.cli.tables import instant, table_of, text_of

COLUMNS = ("id", "version", "state", "paused", "why", "subject", "started_at", "ended_at")
WAITS = ("name", "at")
AFTER = ("saga", "id", "state", "reason", "leads")
STEPS = ("step", "status", "attempt", "disposition", "admitted_at", "completed_at", "worker", "why")
HISTORY = ("at", "fact", "name", "by_whom", "reason")


@click.command("instances")
@click.argument("saga", required=False)
@filters.options
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many at most.")
@click.option("--after", metavar="ID", help="Those after this one, as `next` says.")
@common
@pass_session
def instances(session: Session, /, saga: str | None, limit: int, after: str | None, **given: Any) -> None:
    """List runs of SAGA, or of all sagas, the latest first."""
    path = session.within("/saga-instances") if saga is None else folder(session, saga)
    params = {**filters.params(filters.read(given)), "limit": limit, "after": after}
    answer = session.api.request("GET", path, params=params)
    while not answer["instances"] and answer.get("next"):  # a page of many that were looked at and not meant
        answer = session.api.request("GET", path, params={**params, "after": answer["next"]})
    if session.json:
        session.show_json(answer)
        return
    rows = [{**row, "why": row.get("reason")} for row in answer["instances"]]
    columns = COLUMNS if saga is not None else ("saga", *COLUMNS)
    session.console.print(table_of(rows, columns) if rows else "no such instances")
    if answer.get("next"):
        session.console.print(f"more: --after {answer['next']}")


@click.command("show")
@click.argument("saga")
@click.argument("id")
@common
@pass_session
def show(session: Session, saga: str, id: str) -> None:  # noqa: A002 - the wire's own word
    """Show where the run ID of SAGA stands, and all that happened in it."""
    found = session.api.request("GET", f"{folder(session, saga)}/{part(id)}")
    if session.json:
        session.show_json(found)
        return
    out = session.console
    state = found["state"] + (", paused" if found.get("paused") else "")
    out.print(f"[bold]{escape(saga)} {escape(id)}[/], version {escape(found['version'])}: [bold]{state}[/]")
    for name in ("reason", "subject", "flag", "variant", "started_by"):
        if found.get(name):
            out.print(f"  {name.replace('_', ' ')}: {escape(text_of(found[name]))}")
    if found.get("started_at"):
        out.print(f"  started {instant(found['started_at'])}")
    for name in ("input", "result", "error"):
        if found.get(name):
            out.print(f"  {name}: {escape(text_of(found[name]))}")
    rows = [{**step, "why": why(step)} for step in found.get("steps", [])]
    for title, lines, columns in (
        ("steps", rows, STEPS),
        ("waits for", found.get("waits"), WAITS),
        ("after", found.get("after"), AFTER),
        ("history", found.get("history"), HISTORY),
    ):
        if lines:
            out.print(table_of(lines, columns, title=title))
    if found.get("after_count", 0) > len(found.get("after", [])):
        out.print(f"and after {found['after_count'] - len(found['in_line'])} more")
    if found.get("after"):
        out.print(f"let it go at once: rescind sagas overtake {saga} {id} --reason TEXT")
    if found["state"] == "waiting":
        out.print(
            f"go on: rescind sagas retry {saga} {id} --reason TEXT; undo it: rescind sagas cancel {saga} {id} --reason TEXT"
        )


def why(step: dict[str, Any]) -> str | None:
    """What is known of a step that has not succeeded: its error, and what its look-up said."""
    said = (step.get("error") or {}).get("detail")
    asked = step.get("look_up")
    if not asked:
        return said
    stands = "given up" if asked["given_up"] else f"asked {asked['asked']} times"
    return f"{said or 'in doubt'}; look-up {stands}: {(asked['said'] or {}).get('detail') or 'no answer yet'}"


def folder(session: Session, saga: str) -> str:
    """Where the instances of a saga live."""
    return session.within(f"/sagas/{part(saga)}/instances")


def verb(name: str, sentence: str, *, takes_step: bool = False, needs_step: bool = False) -> click.Command:
    """A command that says `name` to one instance."""

    @click.command(name, help=sentence)
    @click.argument("saga")
    @click.argument("id")
    @reason_option
    @common
    @pass_session
    def say(session: Session, saga: str, id: str, reason: str, step: str | None = None) -> None:  # noqa: A002
        given = {"reason": reason, **({"step": step} if step else {})}
        conclude(session, name, id, session.api.request("POST", f"{folder(session, saga)}/{part(id)}/{name}", json=given))

    if takes_step:
        say = click.option("--step", required=needs_step, metavar="STEP", help="This step, or wait.")(say)
    return say


def answer_to_wait(name: str, sentence: str) -> click.Command:
    """A command by which a person answers a wait for an approval."""

    @click.command(name, help=sentence)
    @click.argument("saga")
    @click.argument("id")
    @click.argument("wait")
    @reason_option
    @common
    @pass_session
    def say(session: Session, saga: str, id: str, wait: str, reason: str) -> None:  # noqa: A002
        path = f"{folder(session, saga)}/{part(id)}/approvals/{part(wait)}"
        body = {"approve": name == "approve", "reason": reason}
        conclude(session, name, id, session.api.request("POST", path, json=body))

    return say


@click.command("event")
@click.argument("saga")
@click.argument("id")
@click.argument("name")
@click.option("--payload", metavar="JSON", help="What it brings, for the steps after it.")
@click.option("--event-id", metavar="ID", help="The same event again changes nothing.")
@common
@pass_session
def event(session: Session, saga: str, id: str, name: str, payload: str | None, event_id: str | None) -> None:  # noqa: A002
    """Tell the run ID of SAGA of the event NAME, before or while it waits for it."""
    brought = None if payload is None else document_of(payload, what="the payload")
    body = {"payload": brought, **({"event_id": event_id} if event_id else {})}
    path = f"{folder(session, saga)}/{part(id)}/events/{part(name)}"
    conclude(session, f"event {name}", id, session.api.request("POST", path, json=body))


def conclude(session: Session, name: str, identity: str, answer: Any) -> None:
    """Say what changed, and where the instance stands."""
    if session.json:
        session.show_json(answer)
        return
    stands = answer["state"] + (", paused" if answer.get("paused") else "")
    said = "done" if answer["changed"] else "nothing to change"
    session.console.print(f"{escape(name)}: {said}; {escape(identity)} is [bold]{stands}[/]")


COMMANDS = (
    instances,
    show,
    event,
    verb("cancel", "Turn the run ID of SAGA back: what it did is undone, latest first."),
    verb("pause", "Begin no further step of the run ID of SAGA."),
    verb("resume", "Go on with the run ID of SAGA."),
    verb("retry", "Try steps of the run ID of SAGA again that failed or are in doubt: one, or all.", takes_step=True),
    verb("skip", "Go on without a step or wait of the run ID of SAGA, by name.", takes_step=True, needs_step=True),
    verb("overtake", "Let the run ID of SAGA go at once, though others of its subject are before it."),
    answer_to_wait("approve", "Say yes where the run ID of SAGA waits for an approval."),
    answer_to_wait("refuse", "Say no where the run ID of SAGA waits for an approval."),
)

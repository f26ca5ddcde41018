"""`recent`, `watch`, `report`, and the decisions of people on a rollback."""

from __future__ import annotations

import re
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from rescind.cli.codes import Exit
from rescind.cli.following import follow, sum_up
from rescind.cli.options import reason_option
from rescind.cli.session import Session, common, part, pass_session
from rescind.cli.tables import counts_table, instant, table_of
from rescind.cli.waiting import continuing, failing, in_words, lines, proceeding

REPORT_SECONDS = 120.0
SHOWN_MAX = 50
LATEST = 200
ID_BEGINS = re.compile(r"[0-9A-Fa-f-]{4,35}")
RECENT_COLUMNS = ("id", "state", "flags", "reason", "actor", "fenced_at")


@click.command()
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True)
@click.option("--state", metavar="STATE", help="Only those in this state, for example waiting.")
@click.option("--flag", metavar="FLAG", help="Only those of this flag.")
@common
@pass_session
def recent(session: Session, limit: int, state: str | None, flag: str | None) -> None:
    """List the latest kills and how far they have come."""
    params = {"limit": limit, "state": state, "flag": flag, "environment": session.environment}
    answer = session.api.request("GET", "/v1/rollbacks", params=params)
    if session.json:
        session.show_json(answer)
        return
    rows = [{**row, "flags": [flag["flag"] for flag in row["flags"]]} for row in answer["rollbacks"]]
    session.console.print(table_of(rows, RECENT_COLUMNS) if rows else "nothing was killed yet")


@click.command()
@click.argument("rollback")
@click.option("--timeout", "timeout_seconds", type=click.FloatRange(min=0), metavar="SECONDS", help="Stop watching then.")
@common
@pass_session
def watch(session: Session, rollback: str, timeout_seconds: float | None) -> int:
    """Follow ROLLBACK until it has settled or waits for a person."""
    rollback = whole_id(session, rollback)
    record = follow(
        session, rollback, until=lambda seen: seen["state"] == "settled", timeout_seconds=timeout_seconds, quiet=session.json
    )
    if session.json:
        session.show_json(record)
    elif record:
        sum_up(session, record)
    return Exit.OK if record and record["state"] == "settled" else Exit.CONTAINED_ONLY


@click.command()
@click.argument("rollback")
@click.option("--csv", "as_csv", is_flag=True, help="Every effect as a line of CSV.")
@common
@pass_session
def report(session: Session, rollback: str, as_csv: bool) -> int:
    """Show when what happened in ROLLBACK, what became of every effect, and that it adds up."""
    rollback = whole_id(session, rollback)
    path = f"/v1/rollbacks/{part(rollback)}/report"
    if as_csv:
        answer = session.api.send("GET", path, params={"format": "csv"}, timeout_seconds=REPORT_SECONDS)
        click.echo(answer.content.decode(), nl=False)
        return Exit.OK
    found = session.api.request("GET", path, timeout_seconds=REPORT_SECONDS)
    if session.json:
        session.show_json(found)
    else:
        show_report(session, found)
    return Exit.OK if found["sum"]["adds_up"] else Exit.FAILED


def show_report(session: Session, found: dict[str, Any]) -> None:
    """The report for people: header, timeline, sums, and the first effects."""
    out, record = session.console, found["rollback"]
    flags = ", ".join(flag["flag"] for flag in record["flags"])
    out.print(
        f"[bold]{escape(flags)}[/] in {escape(record['environment'])}, "
        f"killed by {escape(record['actor'])}: {escape(record['reason'])}"
    )
    state = record["state"] + (f" ({record['outcome'].replace('_', ' ')})" if record["outcome"] else "")
    out.print(
        f"rollback {record['id']}: [bold]{state}[/]"
        + (f", incident {escape(record['incident'])}" if record["incident"] else "")
    )
    timeline = Table(box=None, pad_edge=False, show_header=False)
    for moment in found["timeline"]:
        after = "" if moment["after_fence_seconds"] is None else f"{moment['after_fence_seconds']:+.3f} s"
        timeline.add_row(
            moment["name"], instant(moment["at"]) if moment["at"] else f"[dim]{moment['reason'] or 'not known'}[/]", after
        )
    out.print(timeline)
    if (record.get("standby") or {}).get("confirmed") is False:
        out.print("  [yellow]only PostgreSQL's primary had it:[/] the synchronous standby did not confirm the kill")
    for flag in record["flags"]:
        if flag.get("history_gone_until"):
            number, until = flag["history_gone_count"], instant(flag["history_gone_until"])
            out.print(
                f"  [yellow]not undone:[/] up to {number} effects of {escape(flag['flag'])} admitted until {until} had gone by "
                "retention before the kill"
            )
    if record.get("gone"):
        out.print(f"  {record['gone']} of the effects have gone by retention since: their sums are kept")
    for instance in (record["containment"] or {}).get("unconfirmed", []):
        out.print(f"  [yellow]not confirmed:[/] {escape(instance['service'])} {escape(instance['instance'])}")
    if record["counts"]:
        out.print(counts_table(record["counts"]))
    colour = "green" if found["sum"]["adds_up"] else "red"
    out.print(f"[{colour}]{found['sum']['line']}: {'it adds up' if found['sum']['adds_up'] else 'IT DOES NOT ADD UP'}[/]")
    for matter, stand in failing(record):
        out.print(f"  [yellow]{escape(matter)}[/] ({escape(stand)})")
    show_waiting(session, found)
    for line in (*proceeding(record), *continuing(record)):
        out.print(f"  [yellow]{escape(line)}[/]")
    told = sum(kind["irreversible"] for kind in (record["counts"] or {}).values())
    if told:
        out.print(f"{told} cannot be undone; to say that you know: rescind acknowledge {record['id']} --reason TEXT")
    out.print(f"every effect: rescind report {record['id']} --csv")


def show_waiting(session: Session, found: dict[str, Any]) -> None:
    """What waits for a person: each with its id, why, and what to do."""
    out, record = session.console, found["rollback"]
    rows = [{**line, "why": in_words(line["reason"])} for line in found["effects"] if line["disposition"] == "waiting"]
    if rows:
        columns = ("effect_id", "kind", "key", "subject", "why", "cause", "can_no_longer_act_at")
        out.print(table_of(rows[:SHOWN_MAX], columns, title="waiting for a person"))
    if len(rows) > SHOWN_MAX or found["next"]:
        out.print("these are not all: --csv has every effect")
    for line in lines(record["counts"] or {}):
        out.print(f"  [yellow]{escape(line)}[/]")
    if rows:
        first = rows[0]["effect_id"]
        out.print(f"try all again: rescind retry {record['id']} --reason TEXT")
        out.print(f"leave the first as it is: rescind skip {record['id']} --effect {first} --reason TEXT")


def whole_id(session: Session, text: str) -> str:
    """The rollback's id, of which the beginning may be given where only one of the latest begins so."""
    if not ID_BEGINS.fullmatch(text):
        return text
    answer = session.api.request("GET", "/v1/rollbacks", params={"environment": session.environment, "limit": LATEST})
    found = [row["id"] for row in answer["rollbacks"] if row["id"].startswith(text.lower())]
    if len(found) > 1:
        raise click.UsageError(f"{text} begins {len(found)} of the latest rollbacks: give more of the id")
    return str(found[0]) if found else text


def decision(name: str, sentence: str) -> click.Command:
    """A command that takes a decision on a whole rollback."""

    @click.command(name, help=sentence)
    @click.argument("rollback")
    @reason_option
    @common
    @pass_session
    def decide(session: Session, rollback: str, reason: str) -> None:
        identity = whole_id(session, rollback)
        answer = session.api.request("POST", f"/v1/rollbacks/{part(identity)}/{name}", json={"reason": reason})
        conclude(session, name, answer, rollback)

    return decide


def choice(name: str, sentence: str) -> click.Command:
    """A command that takes a decision on some effects of a rollback: those named, or all that it can be about."""

    @click.command(name, help=sentence)
    @click.argument("rollback")
    @click.option("--effect", "effects", multiple=True, metavar="ID", help="This effect; may be repeated.")
    @reason_option
    @common
    @pass_session
    def choose(session: Session, rollback: str, effects: tuple[str, ...], reason: str) -> None:
        given = {"reason": reason, **({"effects": list(effects)} if effects else {})}
        identity = whole_id(session, rollback)
        answer = session.api.request("POST", f"/v1/rollbacks/{part(identity)}/{name}", json=given)
        conclude(session, name, answer, rollback)

    return choose


def skipping() -> click.Command:
    """`skip`: of effects, and of what instances took with them."""

    @click.command(
        "skip", help="Leave effects of ROLLBACK as they are, for ever and by name; or write off what an instance held."
    )
    @click.argument("rollback")
    @click.option("--effect", "effects", multiple=True, metavar="ID", help="This effect; may be repeated.")
    @click.option("--instance", "instances", multiple=True, metavar="NAME", help="Whose disk is lost; may be repeated.")
    @reason_option
    @common
    @pass_session
    def skip(session: Session, rollback: str, effects: tuple[str, ...], instances: tuple[str, ...], reason: str) -> None:
        if bool(effects) == bool(instances):
            raise click.UsageError("name effects (--effect ID), or instances whose disks are lost (--instance NAME)")
        given = {"effects": list(effects)} if effects else {"instances": list(instances)}
        identity = whole_id(session, rollback)
        answer = session.api.request("POST", f"/v1/rollbacks/{part(identity)}/skip", json={"reason": reason, **given})
        conclude(session, "skip", answer, rollback)

    return skip


def conclude(session: Session, name: str, answer: Any, rollback: str) -> None:
    """Say that the decision is taken, and what is left."""
    if session.json:
        session.show_json(answer)
        return
    changed = answer["changed"]
    stood = "it has settled" if answer.get("state") == "settled" else "it stood already, or is not of this rollback"
    session.console.print(f"{name}: " + (f"{changed} changed" if changed else f"nothing to change: {stood}"))
    if name in ("retry", "resume") and changed:
        session.console.print(f"follow it: rescind watch {rollback}")
    if answer.get("can_no_longer_act_at"):
        session.console.print(f"what was tried before can no longer act from {instant(answer['can_no_longer_act_at'])}")
    if answer.get("remaining"):
        again = f"rescind {name} {rollback} again, or rescind report {rollback} for why they wait"
        session.console.print(f"{answer['remaining']} still wait for a person: {again}")


pause = decision("pause", "Begin no further compensation of ROLLBACK.")
resume = decision("resume", "Go on with ROLLBACK; of one that is held, begin to undo.")
cancel = decision("cancel", "Skip the rest of ROLLBACK, by name.")
retry = choice("retry", "Try effects of ROLLBACK that wait for a person again: those named, or all.")
skip = skipping()
acknowledge = choice("acknowledge", "Say that you know of irreversible effects of ROLLBACK: those named, or all.")

COMMANDS = (recent, watch, report, pause, resume, cancel, retry, skip, acknowledge)

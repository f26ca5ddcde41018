"""`flags`, `get`, `set`: flags as they stand, and changing one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import msgspec
from rich.markup import escape

from rescind.cli import rules
from rescind.cli.counts import shares
from rescind.cli.options import document_of, past, past_gate_option, reason_option
from rescind.cli.pages import whole
from rescind.cli.session import Session, common, part, pass_session
from rescind.cli.tables import plural, table_of, text_of
from rescind.errors import ApiError
from rescind.wire import Flag

PAGE = 500
MISSING_MAX = 5
"""Instances that are named of a flag; `rescind instances --flag` shows all."""


@click.command()
@click.option("--killed", is_flag=True, help="Only those that are killed.")
@common
@pass_session
def flags(session: Session, killed: bool) -> None:
    """List the flags."""
    found = [row for row in pages(session) if row.get("killed") or not killed]
    if session.json:
        session.show_json({"flags": found})
        return
    rows = [{**row, **(row.get("flag") or {}), "state": state_of(row), "to come": coming(row)} for row in found]
    columns: tuple[str, ...] = ("key", "state", "off_variant", "kind", "owner", "services", "reversibility", "to come")
    if any(row.get("on_unreachable") == "proceed" for row in rows):
        columns = (*columns, "on_unreachable")
    session.console.print(table_of(rows, columns) if rows else "no flags yet: `rescind set flag.json --reason TEXT` makes one")


def pages(session: Session) -> Iterator[dict[str, Any]]:
    """Every flag, page by page."""
    after: str | None = None
    while True:
        answer = session.api.request("GET", session.within("/flags"), params={"limit": PAGE, "after": after})
        yield from answer["flags"]
        after = answer.get("next")
        if not after:
            return


def state_of(row: dict[str, Any]) -> str:
    """`killed`, or the state of its definition."""
    definition = (row.get("flag") or row).get("definition") or {}
    return "killed" if row.get("killed") else str(definition.get("state", ""))


def coming(row: dict[str, Any]) -> str:
    """What will change the flag by itself: its next scheduled change, its rollout.

    >>> coming({"rollout": {"variant": "on", "percent": 10, "next_at": "soon"}})
    'on at 10 %, next step soon'
    """
    rollout, schedules = row.get("rollout"), list(row.get("schedules") or [])
    parts = [f"a change at {text_of(schedules[0]['at'])}"] if schedules else []
    if len(schedules) > 1:
        parts = [f"{len(schedules)} changes, the first at {text_of(schedules[0]['at'])}"]
    if rollout:
        parts.append(f"{rollout['variant']} at {text_of(rollout['percent'])} %, next step {text_of(rollout['next_at'])}")
    return "; ".join(parts)


@click.command()
@click.argument("flag")
@click.option("--rules", "as_rules", is_flag=True, help="As `rescind set` takes it, its targeting as rules: to be edited.")
@common
@pass_session
def get(session: Session, flag: str, as_rules: bool) -> None:
    """Show FLAG: its variants, its rules, the kills that stand over it."""
    answer = session.api.request("GET", session.within(f"/flags/{part(flag)}"))
    if as_rules:
        show_to_edit(session, document_to_set(answer))
        return
    if session.json:
        session.show_json(answer)
        return
    out, definition = session.console, answer["definition"]
    state = "[bold red]killed[/]" if answer["killed"] else escape(state_of(answer))
    out.print(f"[bold]{escape(answer['key'])}[/] in {escape(session.environment)} at {answer['revision']}: {state}")
    for kill in answer["kills"]:
        scope = ", ".join(f"{name}={text_of(value)}" for name, value in kill["scope"].items()) or "everyone"
        out.print(f"  [red]killed to {escape(kill['off_variant'])} for {escape(scope)}:[/] {escape(kill['reason'])}")
    if answer.get("on_unreachable") == "proceed":
        out.print("  [yellow]proceeds without the server:[/] its rollbacks wait for every instance that may hold records")
    if coming(answer):
        out.print(f"  [yellow]to come:[/] {escape(coming(answer))}")
    for needed in answer.get("prerequisites") or ():
        out.print(f"  served only where [bold]{escape(needed['flag'])}[/] serves {escape(needed['variant'])}")
    if answer.get("requires_declaration"):
        out.print(f"  {escape(declared(session, answer))}")
    variants = {name: msgspec.json.encode(value).decode() for name, value in definition["variants"].items()}
    lately = shares(session, flag)
    rows = [
        {"variant": name, "value": value, "lately": lately.get(name), "": _roles(name, answer)}
        for name, value in variants.items()
    ]
    out.print(table_of(rows, ("variant", "value", *(("lately",) if lately else ()), "")))
    if answer.get("rules") is None:
        out.print("its targeting says more than rules can:")
        out.print(msgspec.json.format(msgspec.json.encode(definition.get("targeting")), indent=2).decode(), markup=False)
    else:
        out.print(rules.table(answer["rules"], definition))


def declared(session: Session, flag: dict[str, Any]) -> str:
    """Which live instances of the flag's services have not declared it."""
    rows = whole(session, "/instances", "instances", flag=flag["key"])["instances"]
    live = [row for row in rows if row.get("live")]
    missing = [row["instance"] for row in live if flag["key"] not in (row.get("declared") or ())]
    if missing:
        more = f" and {len(missing) - MISSING_MAX} more" if len(missing) > MISSING_MAX else ""
        return f"requires declarations; not declared by {', '.join(missing[:MISSING_MAX])}{more} of {len(live)} live instances"
    return f"requires declarations; declared by all of {plural(len(live), 'live instance')} of its services"


def show_to_edit(session: Session, document: dict[str, Any]) -> None:
    """A document for a person's editor: indented, into a file too; one line only where --json asks for it."""
    if session.json:
        session.show_json(document)
    else:
        click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2))


def document_to_set(flag: dict[str, Any]) -> dict[str, Any]:
    """What writes the flag as it is: with `rules` where they can say its targeting, which stays raw where they cannot."""
    document = {field.name: flag[field.name] for field in msgspec.structs.fields(Flag) if field.name in flag}
    if flag.get("rules") is None:
        return document
    bare = {name: value for name, value in flag["definition"].items() if name != "targeting"}
    return {**document, "definition": bare, "rules": flag["rules"]}


def _roles(name: str, flag: dict[str, Any]) -> str:
    roles = (("default", flag["definition"].get("defaultVariant")), ("off variant", flag["off_variant"]))
    return ", ".join(role for role, variant in roles if variant == name)


@click.command("set")
@click.argument("document", metavar="FILE|JSON")
@reason_option
@past_gate_option
@common
@pass_session
def put(session: Session, document: str, reason: str, past_gate: bool) -> None:
    """Write a flag from FILE (JSON or YAML, `-` for standard input) or literal JSON; `key` names it.

    \b
    For example:
      {"key": "checkout.new-flow", "off_variant": "off", "definition": {"state": "ENABLED",
       "variants": {"on": true, "off": false}, "defaultVariant": "off"},
       "rules": [{"name": "beta countries", "serve": "on",
                  "when": [{"attribute": "country", "operator": "in", "value": ["DE", "AT"]}]},
                 {"serve": {"split": {"on": 25, "off": 75}, "by": "account"}}],
       "prerequisites": [{"flag": "checkout.new-api", "variant": "on"}]}
    """
    flag = document_of(document, what="the flag")
    if not isinstance(flag, dict) or not isinstance(flag.get("key"), str) or not flag["key"]:
        raise click.UsageError("a flag is an object with a `key` and a `definition`: `rescind set --help` shows one")
    path = session.within(f"/flags/{part(flag['key'])}")
    before = None if session.json else standing(session, path)
    answer = session.api.request("PUT", path, json={"flag": flag, "reason": reason, **past(past_gate)})
    if session.json:
        session.show_json(answer)
        return
    at = f"[bold]{escape(flag['key'])}[/] in {escape(session.environment)} at revision {answer['revision']}"
    session.console.print(f"set {at}: {escape(changed(before, session.api.request('GET', path)))}")


def standing(session: Session, path: str) -> dict[str, Any] | None:
    """The flag as it is before it is replaced, or null where there is none."""
    try:
        found: dict[str, Any] = session.api.request("GET", path)
    except ApiError as error:
        if error.status != 404:
            raise
        return None
    return found


def changed(before: dict[str, Any] | None, after: dict[str, Any]) -> str:
    """The fields that differ, and those that a whole replacement dropped: what is not in the document is gone.

    >>> changed({"key": "a", "definition": 1, "owner": "ann"}, {"key": "a", "definition": 2, "owner": ""})
    'definition changed; owner dropped'
    """
    if before is None:
        return "a new flag"
    names = [field.name for field in msgspec.structs.fields(Flag)]
    moved = [name for name in names if before.get(name) != after.get(name)]
    dropped = [name for name in moved if not after.get(name)]
    kept = [name for name in moved if name not in dropped]
    parts = [f"{', '.join(some)} {verb}" for some, verb in ((kept, "changed"), (dropped, "dropped")) if some]
    return "; ".join(parts) or "nothing changed"


COMMANDS = (flags, get, put)

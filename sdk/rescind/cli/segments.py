"""`rescind segments`: rules that flags share, under a name."""

from __future__ import annotations

import click
import msgspec
from rich.markup import escape

from rescind.cli import rules
from rescind.cli.options import document_of, past, past_gate_option, reason_option
from rescind.cli.session import Session, common, part, pass_session
from rescind.cli.tables import table_of


@click.group(invoke_without_command=True)
@common
@click.pass_context
def segments(context: click.Context) -> None:
    """List, show, set and delete segments: rules that flags share."""
    if context.invoked_subcommand is None:
        context.invoke(listing)


@segments.command("list")
@common
@pass_session
def listing(session: Session) -> None:
    """List the segments, and the flags that refer to each."""
    answer = session.api.request("GET", session.within("/segments"))
    if session.json:
        session.show_json(answer)
        return
    rows = [{**one, "when": rules.conditions_of(one["when"]) if one["when"] else "(raw)"} for one in answer["segments"]]
    session.console.print(table_of(rows, ("name", "when", "flags")) if rows else "no segments yet: `rescind segments set`")


@segments.command("get")
@click.argument("name")
@common
@pass_session
def get(session: Session, name: str) -> None:
    """Show segment NAME: its conditions, and the flags that refer to it."""
    answer = session.api.request("GET", session.within(f"/segments/{part(name)}"))
    if session.json:
        session.show_json(answer)
        return
    session.console.print(f"[bold]{escape(answer['name'])}[/] in {escape(session.environment)} at {answer['revision']}")
    if answer["when"] is None:
        text = msgspec.json.format(msgspec.json.encode(answer["rule"]), indent=2).decode()
    else:
        text = rules.conditions_of(answer["when"])
    session.console.print(text, markup=False)
    session.console.print(f"referred to by {escape(', '.join(answer['flags']) or 'no flag')}")


@segments.command("set")
@click.argument("name")
@click.argument("document", metavar="FILE|JSON")
@reason_option
@past_gate_option
@common
@pass_session
def put(session: Session, name: str, document: str, reason: str, past_gate: bool) -> None:
    """Write segment NAME from FILE (JSON or YAML, `-` for standard input) or literal JSON.

    \b
    For example:
      {"when": [{"attribute": "country", "operator": "in", "value": ["DE", "AT"]}]}
      {"rule": {"in": [{"var": "country"}, ["DE", "AT"]]}}
    """
    segment = document_of(document, what="the segment")
    body = {"segment": {"when": segment} if isinstance(segment, list) else segment, "reason": reason}
    body.update(past(past_gate))
    answer = session.api.request("PUT", session.within(f"/segments/{part(name)}"), json=body)
    session.tell(answer, f"set segment [bold]{escape(name)}[/] in {escape(session.environment)} at {answer['revision']}")


@segments.command("delete")
@click.argument("name")
@reason_option
@common
@pass_session
def delete(session: Session, name: str, reason: str) -> None:
    """Delete segment NAME. Refused while a flag refers to it."""
    answer = session.api.request("DELETE", session.within(f"/segments/{part(name)}"), json={"reason": reason})
    session.tell(answer, f"deleted segment [bold]{escape(name)}[/] at revision {answer['revision']}")


COMMANDS = (segments,)

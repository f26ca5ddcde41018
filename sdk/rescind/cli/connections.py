"""`rescind connections`: where executors reach the world. Secrets are references, never values."""

from __future__ import annotations

import click
from rich.markup import escape

from rescind.cli.options import document_of, reason_option
from rescind.cli.session import Session, common, part, pass_session
from rescind.cli.tables import table_of


@click.group(invoke_without_command=True)
@common
@click.pass_context
def connections(context: click.Context) -> None:
    """List connections, or set one up."""
    if context.invoked_subcommand is None:
        context.invoke(listing)


@connections.command("list")
@common
@pass_session
def listing(session: Session) -> None:
    """List connections."""
    answer = session.api.request("GET", session.within("/connections"))
    if session.json:
        session.show_json(answer)
        return
    columns = ("name", "document.type", "document.url", "document.host", "document.granted", "updated_by")
    rows = answer["connections"]
    session.console.print(table_of(rows, columns) if rows else "no connections yet: `rescind connections set NAME FILE`")


@connections.command("set")
@click.argument("name")
@click.argument("document", metavar="FILE|JSON")
@reason_option
@common
@pass_session
def put(session: Session, name: str, document: str, reason: str) -> None:
    """Set up connection NAME from FILE (JSON or YAML) or literal JSON.

    \b
    For example (`granted`: the sagas whose definitions may move money through it):
      {"type": "stripe", "secret": "env:STRIPE_KEY", "granted": ["order"]}
      {"type": "smtp", "host": "mail.example", "sender": "shop@mail.example"}
    """
    body = {"connection": document_of(document, what="the connection"), "reason": reason}
    answer = session.api.request("PUT", session.within(f"/connections/{part(name)}"), json=body)
    session.tell(answer, f"set connection [bold]{escape(name)}[/] in {escape(session.environment)}")
    for warning in answer.get("warnings", []):
        session.errors.print(f"[yellow]warning:[/] {escape(warning)}")


COMMANDS = (connections,)

"""`rescind sagas`: definitions of sagas and loose kinds, as product teams register them; their runs are in `sagainstances`."""

from __future__ import annotations

from typing import Any

import click
from rich.markup import escape

from rescind.cli import operations, sagainstances
from rescind.cli.options import document_of
from rescind.cli.pages import whole
from rescind.cli.places import located
from rescind.cli.session import Session, common, part, pass_session
from rescind.cli.tables import table_of
from rescind.errors import ApiError


@click.group(invoke_without_command=True)
@common
@click.pass_context
def sagas(context: click.Context) -> None:
    """List sagas and kinds, check and register a definition, see and mend runs."""
    if context.invoked_subcommand is None:
        context.invoke(listing)


@sagas.command("list")
@common
@pass_session
def listing(session: Session) -> None:
    """List registered definitions."""
    answer = whole(session, "/sagas", "sagas")
    if session.json:
        session.show_json(answer)
        return
    rows = [row for name in ("sagas", "kinds") for row in answer.get(name, [])]
    columns = ("name", "version", "is_kind", "created_by", "created_at")
    session.console.print(table_of(rows, columns) if rows else "no definitions yet: `rescind sagas register FILE`")


@sagas.command()
@click.argument("document", metavar="FILE|JSON")
@click.option("--reason", metavar="TEXT", help="Why, for the audit log.")
@common
@pass_session
def register(session: Session, document: str, reason: str | None) -> None:
    """Register the definition of a saga or a kind. The same version with other semantics is refused.

    \b
    For example order.json, and what undoes it through connection `mail`:
      {"saga": "order", "version": "1", "flag": "checkout.new-flow", "steps": [
        {"name": "confirm", "kind": "mail.confirmed", "key": "confirm:{order_id}",
         "compensation": {"executor": "email", "connection": "mail", "to": "{{ effect.payload.to }}",
                          "subject": "Your order", "body": "It was not placed."}}]}
    """
    definition = definition_of(document)
    answer = put(session, document, definition, {"reason": reason})
    warn(session, answer)
    session.tell(answer, f"registered [bold]{escape(name_of(definition))}[/] {escape(str(definition['version']))}")


@sagas.command()
@click.argument("document", metavar="FILE|JSON")
@common
@pass_session
def check(session: Session, document: str) -> None:
    """Say everything that is wrong with a definition, and register nothing."""
    definition = definition_of(document)
    answer = put(session, document, definition, {"dry_run": "true"})
    warn(session, answer)
    session.tell(answer, f"[green]{escape(name_of(definition))} {escape(str(definition['version']))} is in order[/]")


@sagas.command()
@click.option("--kind", is_flag=True, help="Of a loose kind, not of a saga.")
@common
@pass_session
def schema(session: Session, kind: bool) -> None:
    """Print the JSON Schema of definitions, for editors: `rescind sagas schema > saga.schema.json`."""
    session.show_json(session.api.request("GET", f"/v1/schemas/{'kind' if kind else 'saga'}"))


def put(session: Session, document: str, definition: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Send a definition. Raises `ApiError`, its faults with their lines for people."""
    try:
        answer: dict[str, Any] = session.api.request("PUT", path_of(session, definition), json=definition, params=params)
    except ApiError as error:
        if not session.json:
            error.errors = located(error.errors, document)
        raise
    return answer


def warn(session: Session, answer: dict[str, Any]) -> None:
    """Print what is no fault and should be known."""
    for warning in [] if session.json else answer.get("warnings", []):
        session.console.print(f"[yellow]warning:[/] {escape(warning['pointer'])}  {escape(warning['detail'])}")


def definition_of(document: str) -> dict[str, Any]:
    """The document, which names a saga or a kind, and a version."""
    definition = document_of(document, what="the definition")
    if (
        not isinstance(definition, dict)
        or not (definition.get("saga") or definition.get("kind"))
        or not definition.get("version")
    ):
        raise click.UsageError("a definition is an object with `saga` (or `kind`) and `version`")
    if not isinstance(definition["version"], str):
        version = definition["version"]
        raise click.UsageError(f'the version is a text, not {version!r}: quote it, version: "{version}"')
    return definition


def name_of(definition: dict[str, Any]) -> str:
    """Of the saga, else of the kind."""
    return str(definition.get("saga") or definition["kind"])


def path_of(session: Session, definition: dict[str, Any]) -> str:
    """Where this version of it lives."""
    folder = "sagas" if definition.get("saga") else "kinds"
    return session.within(f"/{folder}/{part(name_of(definition))}/versions/{part(str(definition['version']))}")


for command in (*sagainstances.COMMANDS, *operations.COMMANDS):
    sagas.add_command(command)

COMMANDS = (sagas,)

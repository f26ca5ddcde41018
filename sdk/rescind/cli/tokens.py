"""`rescind token`: make, list and revoke tokens."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

import click
from rich.markup import escape

from rescind.cli.options import reason_option
from rescind.cli.session import Session, common, part, pass_session
from rescind.cli.tables import table_of
from rescind.errors import ConfigurationError

SCOPES = (
    "read, evaluate, effects, work:<saga>, define:<saga>, kill[:<flag>], lift[:<flag>], release[:<name>], compensate, admin"
)


@click.group()
@common
def token() -> None:
    """Make, list and revoke tokens."""


@token.command()
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, required=True, metavar="SCOPE", help=SCOPES + "; may be repeated.")
@click.option("--for", "bound_to", metavar="ENVIRONMENT", help="The one environment it is good for; an admin token: all.")
@click.option("--expires-at", metavar="T", help="RFC 3339; never, if not given.")
@click.option("--direct", is_flag=True, help="Through PostgreSQL (RESCIND_DATABASE_URL): the first token of an installation.")
@reason_option
@common
@pass_session
def create(session: Session, /, scopes: tuple[str, ...], bound_to: str | None, direct: bool, **asked: Any) -> None:
    """Make a token called NAME. Its text is shown once."""
    chosen = session.environment_of_direct if direct and not bound_to else bound_to
    environment = None if "admin" in scopes else chosen or session.environment
    body = {**asked, "scopes": list(scopes), "environment": environment}
    answer = create_directly(body) if direct else session.api.request("POST", "/v1/tokens", json=body)
    if session.json:
        session.show_json(answer)
    else:
        click.echo(answer["token"])
        session.errors.print(f"token {answer['id']}; it is not shown again")


def create_directly(body: dict[str, Any]) -> dict[str, Any]:
    """Write the token into PostgreSQL itself, through the server package."""
    for entry in entry_points(group="rescind.direct", name="token"):
        answer: dict[str, Any] = entry.load()(body)
        return answer
    raise ConfigurationError("--direct needs the server package on this machine: pip install rescind-server")


@token.command("list")
@common
@pass_session
def listing(session: Session) -> None:
    """List tokens without their secrets."""
    answer = session.api.request("GET", "/v1/tokens")
    if session.json:
        session.show_json(answer)
        return
    columns = ("id", "name", "environment", "scopes", "created_by", "created_at", "expires_at", "revoked_at")
    session.console.print(table_of(answer["tokens"], columns))


@token.command()
@click.argument("token_id", metavar="ID")
@reason_option
@common
@pass_session
def revoke(session: Session, token_id: str, reason: str) -> None:
    """Revoke the token ID: it is refused everywhere within a second."""
    answer = session.api.request("POST", f"/v1/tokens/{part(token_id)}/revoke", json={"reason": reason})
    session.tell(answer, f"revoked {escape(token_id)}")


COMMANDS = (token,)

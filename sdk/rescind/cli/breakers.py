"""`rescind breakers`: kinds whose attempts fail in a row and are held back, and the word that they may begin again."""

from __future__ import annotations

import click
from rich.markup import escape

from rescind.cli.options import reason_option
from rescind.cli.session import Session, common, part, pass_session
from rescind.cli.tables import table_of

COLUMNS = ("kind", "side", "state", "failures", "opened_at", "retry_at", "last_error")


@click.group(invoke_without_command=True)
@common
@click.pass_context
def breakers(context: click.Context) -> None:
    """List breakers, or reset one."""
    if context.invoked_subcommand is None:
        context.invoke(listing)


@breakers.command("list")
@common
@pass_session
def listing(session: Session) -> None:
    """List breakers that are open, and kinds whose last attempts failed."""
    answer = session.api.request("GET", session.within("/breakers"))
    if session.json:
        session.show_json(answer)
        return
    rows = answer["breakers"]
    session.console.print(table_of(rows, COLUMNS) if rows else "no breaker is open")


@breakers.command("reset")
@click.argument("kind")
@click.option("--side", type=click.Choice(("act", "undo")), help="Only of acting, or only of undoing.")
@reason_option
@common
@pass_session
def reset(session: Session, kind: str, side: str | None, reason: str) -> None:
    """Let attempts of KIND begin again, before the breaker's own time."""
    body = {"reason": reason} | ({"side": side} if side else {})
    answer = session.api.request("POST", session.within(f"/breakers/{part(kind)}/reset"), json=body)
    sides = " and ".join(answer["changed"])
    session.tell(answer, f"reset [bold]{escape(kind)}[/] ({sides})" if sides else f"{escape(kind)} was at rest")


COMMANDS = (breakers,)

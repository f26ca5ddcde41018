"""`rescind lift FLAG`: bring a killed flag back under its own rules."""

from __future__ import annotations

import sys

import click
from rich.markup import escape

from rescind.cli.options import reason_option
from rescind.cli.session import Session, common, part, pass_session


@click.command()
@click.argument("flag")
@reason_option
@click.option("--kill-count", type=click.IntRange(min=1), help="The number of kills you saw: a newer one wins.")
@click.option("--force", is_flag=True, help="Lift although compensations are running; they go on.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@common
@pass_session
def lift(session: Session, flag: str, reason: str, kill_count: int | None, force: bool, yes: bool) -> None:
    """Lift every standing kill of FLAG. Turning on needs more right than turning off."""
    if not yes and not session.json and sys.stdin.isatty():
        click.confirm(f"Turn {flag} in {session.environment} on again?", abort=True)
    body = {"reason": reason, "kill_count": kill_count, "force": force}
    answer = session.api.request("POST", session.within(f"/flags/{part(flag)}/lift"), json=body)
    if session.json:
        session.show_json(answer)
        return
    session.console.print(f"[bold green]lifted[/] {escape(flag)} at revision {answer['revision']}")
    for rollback in answer["settled"]:
        session.console.print(f"  rollback {rollback} ended with nothing undone; its effects stay open for a later kill")
    waiting = session.api.request(
        "GET", "/v1/rollbacks", params={"environment": session.environment, "state": "waiting", "flag": flag, "limit": 50}
    )
    for row in waiting["rollbacks"]:
        session.console.print(f"  effects of rollback {row['id']} still wait for a person: rescind report {row['id']}")


COMMANDS = (lift,)

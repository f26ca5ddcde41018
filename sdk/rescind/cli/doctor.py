"""`rescind doctor --restored`: says that a PostgreSQL which came back older may go on."""

from __future__ import annotations

import click
from rich.markup import escape

from rescind.cli.options import reason_option
from rescind.cli.session import Session, common, pass_session


@click.command()
@click.option("--restored", is_flag=True, required=True, help="PostgreSQL was restored to an older state: end the recovery.")
@reason_option
@common
@pass_session
def doctor(session: Session, restored: bool, reason: str) -> None:
    """After a restore of PostgreSQL: a new generation, known kills laid again, flags that are not killed opened."""
    del restored
    answer = session.api.request("POST", session.within("/restored"), json={"reason": reason})
    if session.json:
        session.show_json(answer)
        return
    where = f"[bold]{escape(answer['environment'])}[/]"
    what = "goes on at" if answer["ended"] else "was not in recovery; it is at"
    session.console.print(f"{where} {what} revision {escape(answer['revision'])}")
    for flag in answer["lost"]:
        session.console.print(f"[yellow]killed, and lost in the restore:[/] {escape(flag)}: write it anew, then kill it")


COMMANDS = (doctor,)

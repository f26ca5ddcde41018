"""`rescind lift FLAG`: bring a killed flag back under its own rules."""

from __future__ import annotations

from typing import Any

import click
from rich.markup import escape

from rescind.cli.codes import Exit
from rescind.cli.options import declined, past, past_gate_option, reason_option
from rescind.cli.session import Session, common, part, pass_session
from rescind.cli.tables import counts_table

LATEST = 50


@click.command()
@click.argument("flag")
@reason_option
@click.option("--kill-count", type=click.IntRange(min=1), help="The number of kills you saw: a newer one wins.")
@click.option("--force", is_flag=True, help="Lift although compensations are running; they go on.")
@past_gate_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@common
@pass_session
def lift(session: Session, flag: str, reason: str, kill_count: int | None, force: bool, past_gate: bool, yes: bool) -> int:
    """Lift every standing kill of FLAG. Turning on needs more right than turning off."""
    if declined(session, f"Turn {flag} in {session.environment} on again?", yes=yes):
        session.console.print("nothing was lifted")
        return Exit.FAILED
    body = {"reason": reason, "kill_count": kill_count, "force": force, **past(past_gate)}
    answer = session.api.request("POST", session.within(f"/flags/{part(flag)}/lift"), json=body)
    if session.json:
        session.show_json(answer)
        return Exit.OK
    session.console.print(f"[bold green]lifted[/] {escape(flag)} at revision {answer['revision']}")
    for rollback in answer["settled"]:
        session.console.print(f"  rollback {rollback} ended with nothing undone; its effects stay open for a later kill")
    for row in unsettled(session, flag):
        if row["state"] == "waiting":
            session.console.print(f"  effects of rollback {row['id']} still wait for a person: rescind report {row['id']}")
        else:
            session.console.print(f"  rollback {row['id']} is still {row['state']}: rescind watch {row['id']}")
        show_rest(session, row["id"])
    return Exit.OK


def unsettled(session: Session, flag: str) -> list[dict[str, Any]]:
    """The latest rollbacks of the flag that have something left to undo: a lift takes none of it back."""
    params = {"environment": session.environment, "flag": flag, "limit": LATEST}
    rows = session.api.request("GET", "/v1/rollbacks", params=params)["rollbacks"]
    return [row for row in rows if row["state"] != "settled"]


def show_rest(session: Session, rollback: str) -> None:
    """What became of its effects so far, with the money."""
    counts = session.api.request("GET", f"/v1/rollbacks/{part(rollback)}").get("counts")
    if counts:
        session.console.print(counts_table(counts))


COMMANDS = (lift,)

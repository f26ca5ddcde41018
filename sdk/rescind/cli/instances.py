"""`rescind instances`: who runs, at which revision, how far behind."""

from __future__ import annotations

import click

from rescind.cli.pages import whole
from rescind.cli.session import Session, common, pass_session
from rescind.cli.tables import table_of

COLUMNS = ("service", "instance", "revision", "how", "live", "behind", "seen_at")


@click.command()
@click.option("--all", "everyone", is_flag=True, help="Also those that signed off or went silent.")
@common
@pass_session
def instances(session: Session, everyone: bool) -> None:
    """List the instances that run an SDK."""
    answer = whole(session, "/instances", "instances")
    if session.json:
        session.show_json(answer)
        return
    rows = [row for row in answer["instances"] if everyone or row.get("live", True)]
    columns = (*COLUMNS, "journal_open") if any(row.get("journal_open") for row in rows) else COLUMNS
    session.console.print(table_of(rows, columns) if rows else "no instance is connected")


COMMANDS = (instances,)

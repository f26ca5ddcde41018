"""`rescind status`: what is killed, what is being undone, who is behind."""

from __future__ import annotations

from typing import Any

import click
from rich.markup import escape

from rescind.cli.pages import whole
from rescind.cli.session import Session, common, pass_session
from rescind.cli.tables import plural, table_of
from rescind.cli.waiting import continuing, proceeding

NAMED_MAX = 5
COLUMNS = ("flags", "state", "id", "reason", "fenced_at", "contained_at", "settled_at")


@click.command()
@common
@pass_session
def status(session: Session) -> None:
    """Show what is killed, what is being undone and which instances are behind."""
    environment = session.environment
    rollbacks = session.api.request("GET", "/v1/rollbacks", params={"environment": environment, "limit": 50})["rollbacks"]
    instances = whole(session, "/instances", "instances")["instances"]
    standing = [row for row in rollbacks if row["lifted_at"] is None]
    asked = session.api.request("GET", "/v1/rollbacks", params={"environment": environment, "state": "waiting", "limit": 50})
    waiting = [row for row in asked["rollbacks"] if row["lifted_at"] is not None]
    undoing = [row for row in rollbacks if row["lifted_at"] is not None and row["state"] not in ("settled", "waiting")]
    behind = [row for row in instances if row.get("live", True) and row.get("behind")]
    if session.json:
        session.show_json(
            {
                "environment": environment,
                "standing": standing,
                "undoing": undoing,
                "waiting": waiting,
                "instances": instances,
                "self": session.me,
            }
        )
        return
    live = sum(bool(row.get("live", True)) for row in instances)
    at = f"[bold]{escape(environment)}[/] at {escape(session.api.url)}"
    session.console.print(f"{at}: {plural(live, 'instance')}, {len(behind)} behind")
    if standing:
        session.console.print(table_of(named(standing), COLUMNS))
        for row in [row for row in standing if row["state"] in ("compensating", "waiting")][:NAMED_MAX]:
            record = session.api.request("GET", f"/v1/rollbacks/{row['id']}")
            for line in (*proceeding(record), *continuing(record)):
                session.console.print(f"  [yellow]{escape(line)}[/]")
    else:
        session.console.print("nothing is killed")
    if undoing:
        session.console.print(table_of(named(undoing), COLUMNS, title="lifted, and effects are still being undone"))
    if waiting:
        session.console.print(table_of(named(waiting), COLUMNS, title="lifted, and effects still wait for a person"))


def named(rollbacks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rollbacks with the names of their flags alone."""
    return [{**row, "flags": [flag["flag"] for flag in row["flags"]]} for row in rollbacks]


COMMANDS = (status,)

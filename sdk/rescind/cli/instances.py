"""`rescind instances`: who runs, at which revision, how far behind; and who has declared a flag."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from rich.markup import escape

from rescind.cli.pages import whole
from rescind.cli.session import Session, common, pass_session
from rescind.cli.tables import plural, table_of

COLUMNS = (
    "service",
    "instance",
    "revision",
    "how",
    "live",
    "behind",
    "service_version",
    "sdk_version",
    "applied_at",
    "seen_at",
)
DECLARING = ("service", "instance", "declared", "live", "service_version", "revision", "behind", "sdk_version", "seen_at")


@click.command()
@click.option("--all", "everyone", is_flag=True, help="Also those that signed off or went silent.")
@click.option("--service", metavar="NAME", help="Only those of this service.")
@click.option("--behind", is_flag=True, help="Only those that have not applied the newest revision.")
@click.option("--flag", metavar="KEY", help="Only those of this flag's services, and whether each has declared it.")
@common
@pass_session
def instances(session: Session, everyone: bool, service: str | None, behind: bool, flag: str | None) -> None:
    """List the instances that run an SDK."""
    answer = whole(session, "/instances", "instances", service=service, behind=behind or None, flag=flag)
    if session.json:
        session.show_json(answer)
        return
    found = [row for row in answer["instances"] if everyone or row.get("live", True)]
    rows = [{**row, "behind": lag(row), "declared": flag in (row.get("declared") or ())} for row in found]
    columns = [name for name in (DECLARING if flag else COLUMNS) if everyone or name != "live"]
    columns += ["journal_open"] if any(row.get("journal_open") for row in rows) else []
    session.console.print(table_of(rows, columns) if rows else "no instance is connected")
    if flag and rows:
        session.console.print(summary(flag, rows))


def lag(row: Mapping[str, Any]) -> str:
    """By how many revisions an instance is behind, and how long.

    >>> lag({"behind": True, "behind_count": 3, "behind_seconds": 72.4}), lag({"behind": True}), lag({"behind": False})
    ('3, 72 s', 'yes', 'no')
    """
    if not row.get("behind"):
        return "no"
    if row.get("behind_count") is None:
        return "yes"
    seconds = row.get("behind_seconds")
    return f"{row['behind_count']}" + ("" if seconds is None else f", {seconds:.0f} s")


def summary(flag: str, rows: list[dict[str, Any]]) -> str:
    """In a line, whether the flag's instances have all declared it."""
    missing = sum(row["declared"] is False and bool(row.get("live", True)) for row in rows)
    if not missing:
        return f"every live instance of its services has declared [bold]{escape(flag)}[/]"
    return f"[yellow]not declared by {plural(missing, 'live instance')}:[/] [bold]{escape(flag)}[/]"


COMMANDS = (instances,)

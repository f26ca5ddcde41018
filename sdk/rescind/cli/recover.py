"""`rescind recover SERVICE`: the first question's answer, and the ladder of ways out, the fastest first."""

from __future__ import annotations

from typing import Any

import click
from rich.markup import escape

from rescind.cli.preview import say_release
from rescind.cli.session import Session, common, part, pass_session
from rescind.cli.tables import table_of

SHOWN_MAX = 20
WORDS = {True: "yes", False: "no", None: "not known"}


@click.command()
@click.argument("service")
@click.option("--release", metavar="NAME", help="By this release; else by the last one deployed that names the service.")
@common
@pass_session
def recover(session: Session, service: str, release: str | None) -> None:
    """Show the ways out for SERVICE: flag, traffic, previous artifact, hotfix; there or not, safe or not, and the command."""
    found = session.api.request("GET", session.within(f"/services/{part(service)}/recovery"), params={"release": release})
    if session.json:
        session.show_json(found)
    else:
        show(session, found)


def show(session: Session, found: dict[str, Any]) -> None:
    """Print a recovery for people: what not to do first, then what to run."""
    out = session.console
    out.print(
        f"[bold]{escape(found['service'])}[/] in [bold]{escape(found['environment'])}[/]: [bold]{escape(found['advice'])}[/]"
    )
    if found["release"]:
        say_release(session, found["release"])
    else:
        out.print(f"  did its release run a destructive migration? [bold]{found['destructive_migration']}[/]")
    for one in found["statements"][:SHOWN_MAX]:
        if one["statement"]:
            out.print(f"    {one['migration']}:{one['line']}  {one['statement']}", markup=False)
    out.print(table_of([row_of(rung, found["recommended"]) for rung in found["ladder"]], ("rung", "available", "safe", "why")))
    for rung in found["ladder"]:
        if rung["command"]:
            say_command(session, rung)
    for sentence in found["unknown"]:
        out.print(f"[yellow]not known:[/] {escape(sentence)}")


def row_of(rung: dict[str, Any], recommended: str | None) -> dict[str, Any]:
    """A rung as a line; the one to begin with is marked."""
    mark = "> " if rung["rung"] == recommended else "  "
    return {
        **rung,
        "rung": mark + rung["rung"].replace("_", " "),
        **{name: WORDS[rung[name]] for name in ("available", "safe")},
    }


def say_command(session: Session, rung: dict[str, Any]) -> None:
    """Print what to run; what is not safe is shown, and marked, so that nobody runs it in passing."""
    mark = "" if rung["safe"] else "  # NOT SAFE" if rung["safe"] is False else "  # not known to be safe"
    for line in rung["command"].splitlines():
        session.console.print(f"{rung['rung'].replace('_', ' ')}: {line}{mark}", markup=False)


COMMANDS = (recover,)

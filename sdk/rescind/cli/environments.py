"""`rescind environments`: what there is, a new one, and the generation of bucketing that each evaluates with."""

from __future__ import annotations

import click
from rich.markup import escape

from rescind.cli.options import past, past_gate_option, reason_option
from rescind.cli.session import Session, common, part, pass_session
from rescind.cli.tables import table_of
from rescind.evaluation import GENERATIONS


@click.group(invoke_without_command=True)
@common
@click.pass_context
def environments(context: click.Context) -> None:
    """List environments, create one, or set one's generation of bucketing."""
    if context.invoked_subcommand is None:
        context.invoke(listing)


@environments.command("list")
@common
@pass_session
def listing(session: Session) -> None:
    """List the environments that the token may see."""
    answer = session.api.request("GET", "/v1/environments")
    if session.json:
        session.show_json(answer)
        return
    rows = answer["environments"]
    columns = ("name", "revision", "bucketing", "created_at")
    session.console.print(table_of(rows, columns) if rows else "the token may see no environment")


@environments.command("create")
@click.argument("name", metavar="ENVIRONMENT")
@reason_option
@common
@pass_session
def create(session: Session, name: str, reason: str) -> None:
    """Create ENVIRONMENT; one that is there stays as it is."""
    answer = session.api.request("PUT", f"/v1/environments/{part(name)}", json={"reason": reason})
    if session.json:
        session.show_json(answer)
    else:
        session.console.print(f"environment {escape(name)} is there")


@environments.command("bucketing")
@click.argument("name", metavar="ENVIRONMENT")
@click.argument("generation", type=click.Choice(GENERATIONS))
@reason_option
@past_gate_option
@common
@pass_session
def bucketing(session: Session, name: str, generation: str, reason: str, past_gate: bool) -> None:
    """Hash the shares of ENVIRONMENT by GENERATION from now on. Subjects move between shares: `rescind moved` says which."""
    body = {"generation": generation, "reason": reason, **past(past_gate)}
    answer = session.api.request("PUT", f"/v1/environments/{part(name)}/bucketing", json=body)
    session.tell(answer, f"[bold]{escape(name)}[/] hashes by {generation} since revision {escape(answer['revision'])}")


COMMANDS = (environments,)

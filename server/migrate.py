"""`rescind migrate`: brings the database's schema up to this version, or says what is pending."""

from __future__ import annotations

import asyncio
import os

import click
import msgspec

from runtime.errors import RuntimeFault
from runtime.migrations import Phase, pending
from runtime.migrations import migrate as apply
from server.migrations import ROOMS


@click.command()
@click.option(
    "--phase", type=click.Choice(["pre", "post"]), help="pre: additive, before the new version runs; post: afterwards."
)
@click.option("--check", is_flag=True, help="Say what is pending and change nothing; exit 1 if something is.")
@click.option("--database-url", metavar="URL", help="RESCIND_DATABASE_URL.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def migrate(context: click.Context, phase: Phase | None, check: bool, database_url: str | None, as_json: bool) -> None:
    """Apply database migrations. Twice changes nothing."""
    url = database_url or os.environ.get("RESCIND_DATABASE_URL")
    if not url:
        raise click.UsageError("--database-url or RESCIND_DATABASE_URL says which database")
    try:
        files = asyncio.run(carry_out(url, phase, check))
    except RuntimeFault as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(msgspec.json.encode({"pending" if check else "applied": files}))
    elif not files:
        click.echo("nothing is pending")
    else:
        click.echo("\n".join(f"{'pending' if check else 'applied'} {file}" for file in files))
    context.exit(1 if check and files else 0)


async def carry_out(url: str, phase: Phase | None, check: bool) -> list[str]:
    """The files that are pending, or that were applied, as `room/file`."""
    found = await (pending(url, ROOMS, phase) if check else apply(url, ROOMS, phase))
    return [f"{one.room}/{one.file}" for one in found]

"""The command `rescind`: its own verbs, and those of the server package where that is installed."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click

from rescind.cli import (
    breakers,
    connections,
    counts,
    doctor,
    effects,
    environments,
    explain,
    flags,
    imports,
    instances,
    kill,
    lift,
    moved,
    preview,
    recover,
    releases,
    retention,
    rollbacks,
    rollouts,
    sagas,
    schedules,
    segments,
    status,
    tokens,
    work,
)
from rescind.cli.codes import Exit
from rescind.cli.failures import say
from rescind.cli.session import Session, common
from rescind.errors import RescindError
from rescind.version import __version__

GROUP = "rescind.commands"
HELP_MAX = 400
ANY = {"ignore_unknown_options": True, "allow_extra_args": True}
SERVER_VERBS = {
    "demo": "Everything in one go on this machine: a bad release, killed and undone, and that it adds up.",
    "dev": "The whole system on this machine, on embedded PostgreSQL and Valkey.",
    "serve": "A production server.",
    "migrate": "Database migrations.",
    "migrations": "Look at database migrations before they run: what is additive, what is not.",
}
HELP = """Kill one flag; every service is back on the old path and its side effects are undone, once each, and it adds up."""


class Commands(click.Group):
    """Our verbs, then those that other packages register under `rescind.commands`: those are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *SERVER_VERBS, *entry_points(group=GROUP).names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        known = super().get_command(ctx, cmd_name)
        if known is not None:
            return known
        for entry in entry_points(group=GROUP, name=cmd_name):
            return _load(entry)
        return _how_to_get(cmd_name) if cmd_name in SERVER_VERBS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of `--help`, without an import of what other packages bring."""
        own = {
            name: command.get_short_help_str(limit=HELP_MAX) for name, command in self.commands.items() if not command.hidden
        }
        theirs = {name: SERVER_VERBS.get(name, "") for name in self.list_commands(ctx) if name not in self.commands}
        with formatter.section("Commands"):
            formatter.write_dl(sorted({**own, **theirs}.items()))


def _load(entry: EntryPoint) -> click.Command:
    """The verb of another package; where its module is broken, a command that says so, and every other verb goes on."""
    try:
        command: click.Command = entry.load()
    except Exception as error:
        return _broken(entry, error)
    return command


def _broken(entry: EntryPoint, error: Exception) -> click.Command:
    @click.command(entry.name, add_help_option=False, context_settings=ANY)
    @click.pass_context
    def broken(context: click.Context) -> None:
        click.echo(f"`rescind {entry.name}` cannot be loaded: {entry.value}: {type(error).__name__}: {error}", err=True)
        click.echo("next: reinstall the package that brings it (pip install --force-reinstall rescind-server)", err=True)
        context.exit(Exit.FAILED)

    return broken


def _how_to_get(verb: str) -> click.Command:
    @click.command(verb, help=SERVER_VERBS[verb], context_settings=ANY)
    @click.pass_context
    def absent(context: click.Context) -> None:
        click.echo(f"`rescind {verb}` comes with the server: pip install rescind-server", err=True)
        context.exit(Exit.USAGE)

    return absent


@click.group(cls=Commands, help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rescind")
@common
def cli() -> None:
    """The group; what the options said is in the session."""


for module in (
    breakers,
    connections,
    counts,
    doctor,
    effects,
    environments,
    explain,
    flags,
    imports,
    instances,
    kill,
    lift,
    moved,
    preview,
    recover,
    releases,
    retention,
    rollbacks,
    rollouts,
    sagas,
    schedules,
    segments,
    status,
    tokens,
    work,
):
    for command in module.COMMANDS:
        cli.add_command(command)


def run(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    session = Session()
    try:
        result: Any = cli.main(arguments, prog_name="rescind", standalone_mode=False, obj=session)
    except RescindError as error:
        return say(session, error)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.Abort:
        session.errors.print("interrupted")
        return Exit.INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        return Exit.OK
    return result if isinstance(result, int) else Exit.OK

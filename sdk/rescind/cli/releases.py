"""`rescind releases`: what ships, and is rolled back, together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec
from rich.markup import escape

from rescind.cli.options import document_of, reason_option
from rescind.cli.pages import whole
from rescind.cli.places import located
from rescind.cli.preview import say_release
from rescind.cli.session import Session, common, part, pass_session
from rescind.cli.tables import table_of
from rescind.errors import ApiError
from rescind.wire import Fault

SQL_BYTES_MAX = 1024 * 1024
BELOW = "/release"
COLUMNS = ("name", "tag", "reversibility", "destructive_migration", "flags", "services", "deployed_at")


class Named(click.Group):
    """A group in which a word that is no verb is a name, to be shown."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb; `show` for a name."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            return "show", self.commands["show"], args
        return super().resolve_command(ctx, args)


@click.group(cls=Named, invoke_without_command=True)
@common
@click.pass_context
def releases(context: click.Context) -> None:
    """List releases, show one (`rescind releases NAME`), put one."""
    if context.invoked_subcommand is None:
        context.invoke(listing)


@releases.command("list")
@click.option("--service", metavar="NAME", help="Those that name this service.")
@click.option("--flag", metavar="KEY", help="Those that name this flag.")
@common
@pass_session
def listing(session: Session, service: str | None = None, flag: str | None = None) -> None:
    """List the releases, the last deployed first."""
    answer = whole(session, "/releases", "releases", service=service, flag=flag)
    if session.json:
        session.show_json(answer)
        return
    rows = answer["releases"]
    session.console.print(table_of(rows, COLUMNS) if rows else "no releases yet: `rescind releases set FILE --reason TEXT`")


@releases.command()
@click.argument("name")
@common
@pass_session
def show(session: Session, name: str) -> None:
    """Show release NAME: its artifacts, its migrations as they were classed, and its reversibility."""
    answer = session.api.request("GET", session.within(f"/releases/{part(name)}"))
    if session.json:
        session.show_json(answer)
    else:
        tell(session, answer)


@releases.command("set")
@click.argument("document", metavar="FILE|JSON")
@click.option("--name", metavar="NAME", help="Of the release; else the document says `name`.")
@click.option("--migration", "files", multiple=True, metavar="FILE", help="One more migration, by its text. Repeat it.")
@reason_option
@common
@pass_session
def put(session: Session, document: str, name: str | None, files: tuple[str, ...], reason: str) -> None:
    """Put a release from FILE (JSON or YAML, `-` for standard input) or literal JSON. The same once more changes nothing.

    \b
    For example release.yaml:
      name: "2026-11-25"
      tag: v2.4.0
      services:
        checkout: {artifact: "shop/checkout@sha256:...", previous: "shop/checkout@sha256:..."}
      migrations: [{name: 0042_drop_note.sql, file: db/0042_drop_note.sql}]
      flags: [checkout.new-flow]
    """
    read = document_of(document, what="the release")
    if not isinstance(read, dict):
        raise click.UsageError("a release is an object with `name`, `services`, `migrations`, `flags`, `tag`")
    named = name or read.pop("name", None)
    read.pop("name", None)
    if not isinstance(named, str) or not named:
        raise click.UsageError("the release needs a name, a text: --name NAME, or `name` in the document")
    body = {"release": with_texts(read, folder_of(document), files), "reason": reason}
    try:
        answer = session.api.request("PUT", session.within(f"/releases/{part(named)}"), json=body)
    except ApiError as error:
        if not session.json:
            error.errors = with_places(error.errors, document)
        raise
    if session.json:
        session.show_json(answer)
    else:
        session.console.print(f"{'set' if answer['changed'] else 'unchanged:'} release [bold]{escape(named)}[/]")
        tell(session, answer)


def tell(session: Session, answer: dict[str, Any]) -> None:
    """Print a release."""
    out, release = session.console, answer["release"]
    say_release(session, {**answer, "tag": release["tag"]})
    services = [{"service": name, **one} for name, one in release["services"].items()]
    if services:
        out.print(table_of(services, ("service", "artifact", "previous")))
    out.print(f"flags: {escape(', '.join(release['flags'])) or 'none'}")
    rows = [{**one, "place": f"{one['migration']}:{one['line']}"} for one in answer["findings"]]
    if rows:
        out.print(table_of(rows, ("place", "class", "rule", "about", "reason")))


def with_texts(release: dict[str, Any], folder: Path, files: tuple[str, ...]) -> dict[str, Any]:
    """The release with the texts of the migrations that it names by `file`, and of those given beside it."""
    listed = release.get("migrations")
    given = [text_in(one, folder) for one in listed] if isinstance(listed, list) else []
    more = [{"name": Path(file).name, "sql": text_of(Path(file))} for file in files]
    return {**release, "migrations": [*given, *more]} if isinstance(listed, list) or more else release


def text_in(migration: Any, folder: Path) -> Any:
    """A migration with the text of its `file`, which is beside the document; the server judges all else."""
    if not isinstance(migration, dict) or not isinstance(migration.get("file"), str):
        return migration
    path = folder / migration["file"]
    rest = {name: value for name, value in migration.items() if name != "file"}
    return {"name": path.name, **rest, "sql": text_of(path)}


def text_of(path: Path) -> str:
    """Of a file of SQL. Raises `UsageError`."""
    try:
        if path.stat().st_size > SQL_BYTES_MAX:
            raise click.UsageError(f"{path} is larger than {SQL_BYTES_MAX // 2**20} MiB: give its `class`")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"migration {str(path)!r} cannot be read: {error}") from None


def folder_of(document: str) -> Path:
    """Where the document is, else here."""
    return Path() if document.lstrip()[:1] in ("{", "[", "-") else Path(document).parent


def with_places(faults: list[Fault], document: str) -> list[Fault]:
    """The faults with their lines in the document, which the API has one level deeper."""
    own = [msgspec.structs.replace(one, pointer=one.pointer.removeprefix(BELOW)) for one in faults]
    return located(own, document)


COMMANDS = (releases,)

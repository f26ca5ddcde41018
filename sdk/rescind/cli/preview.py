"""`rescind preview FLAG`, or of a release: what a kill would stop and undo."""

from __future__ import annotations

from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from rescind.cli.options import scope_of, since_option
from rescind.cli.session import Session, common, part, pass_session
from rescind.cli.tables import money

PREVIEW_SECONDS = 2.0


@click.command()
@click.argument("flag", required=False)
@click.option("--release", metavar="NAME", help="Of all flags of this release instead.")
@since_option
@click.option("--scope", multiple=True, metavar="K=V", help="Only where this attribute has this value.")
@common
@pass_session
def preview(session: Session, flag: str | None, release: str | None, since: str | None, scope: tuple[str, ...]) -> None:
    """Show what killing FLAG would stop and undo, as far as 300 ms can tell."""
    if (flag is None) == (release is None):
        raise click.UsageError("name a FLAG, or a release with --release NAME")
    path = f"/flags/{part(flag)}" if flag is not None else f"/releases/{part(release or '')}"
    found = fetch(session, path, since=since, scope=scope)
    if session.json:
        session.show_json(found)
    else:
        (show if flag is not None else show_release)(session, found)


def fetch(session: Session, path: str, *, since: str | None, scope: tuple[str, ...]) -> dict[str, Any]:
    """The server's preview of what is at `path` in the environment. Raises `ApiError` and `Unreachable`."""
    params = {"since": since, **{f"scope.{name}": value for name, value in scope_of(scope, raw=True).items()}}
    asked = session.within(f"{path}/kill-preview")
    answer: dict[str, Any] = session.api.request("GET", asked, params=params, timeout_seconds=PREVIEW_SECONDS)
    return answer


def show(session: Session, found: dict[str, Any]) -> None:
    """Print a preview for people."""
    out = session.console
    flag, environment = escape(found["flag"]), escape(found["environment"])
    out.print(
        f"[bold]{flag}[/] in [bold]{environment}[/] would serve [bold]{escape(found['off_variant'])}[/] to everyone in scope"
    )
    for standing in found["standing"]:
        out.print(f"  it is killed already: rollback {standing['rollback_id']}; another kill joins it")
    if found.get("proceeds"):
        out.print(f"  it proceeds without the server: {found.get('proceeded') or 0} such effects are on record")
    for one in found.get("continues") or []:
        what = "past their pivot" if one["past_pivot"] else "running"
        out.print(f"  {one['instances']} instances of {escape(one['saga'])} {escape(one['version'])} {what} would go on first")
    if found.get("release"):
        say_release(session, found["release"])
    services = found["services"]
    names = ", ".join(f"{escape(name)} {count['instances']}" for name, count in services.items()) or "none known"
    out.print(f"  instances: {names}")
    if found["effects"]:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("kind", "effects", "money", "undone by"):
            table.add_column(name, justify="right" if name in ("effects", "money") else "left")
        for kind, numbers in found["effects"].items():
            amounts = ", ".join(money(amount, currency) for currency, amount in numbers["amounts"].items())
            table.add_row(escape(kind), str(numbers["effects"]), amounts, ", ".join(numbers["undone_by"]))
        out.print(table)
    elif found["effects"] is not None:
        out.print("  no effects to undo")
    for sentence in found["unknown"]:
        out.print(f"  [yellow]not known or not undone:[/] {escape(sentence)}")


def show_release(session: Session, found: dict[str, Any]) -> None:
    """Print the preview of a release: what it is, then each of its flags."""
    say_release(session, found["release"])
    for one in found["flags"]:
        show(session, {**one, "release": None})
    for sentence in found["unknown"]:
        session.console.print(f"  [yellow]not known:[/] {escape(sentence)}")


def say_release(session: Session, release: dict[str, Any]) -> None:
    """Print a release and its reversibility, with the reasons."""
    out = session.console
    tag = f" ({escape(release['tag'])})" if release["tag"] else ""
    out.print(f"  release [bold]{escape(release['name'])}[/]{tag}: [bold]{release['reversibility'].replace('_', ' ')}[/]")
    out.print(f"  did it run a destructive migration? [bold]{release['destructive_migration']}[/]")
    for reason in release["reasons"]:
        out.print(f"    {escape(reason)}")


COMMANDS = (preview,)

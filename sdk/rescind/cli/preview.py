"""`rescind preview FLAG`: what a kill would stop and undo."""

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
@click.argument("flag")
@since_option
@click.option("--scope", multiple=True, metavar="K=V", help="Only where this attribute has this value.")
@common
@pass_session
def preview(session: Session, flag: str, since: str | None, scope: tuple[str, ...]) -> None:
    """Show what killing FLAG would stop and undo, as far as 300 ms can tell."""
    found = fetch(session, flag, since=since, scope=scope)
    if session.json:
        session.show_json(found)
    else:
        show(session, found)


def fetch(session: Session, flag: str, *, since: str | None, scope: tuple[str, ...]) -> dict[str, Any]:
    """The server's preview. Raises `ApiError` and `Unreachable`."""
    params = {"since": since, **{f"scope.{name}": value for name, value in scope_of(scope, raw=True).items()}}
    path = session.within(f"/flags/{part(flag)}/kill-preview")
    answer: dict[str, Any] = session.api.request("GET", path, params=params, timeout_seconds=PREVIEW_SECONDS)
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


COMMANDS = (preview,)

"""`rescind effects`: the ledger, filtered."""

from __future__ import annotations

import click

from rescind.cli.session import Session, common, pass_session
from rescind.cli.tables import table_of

COLUMNS = ("id", "kind", "key", "flag", "variant", "status", "epoch", "subject", "admitted_at")

STATUSES = ("admitted", "succeeded", "failed", "in_doubt")


@click.command()
@click.option("--flag", metavar="FLAG", help="Only those done under this flag.")
@click.option("--saga", metavar="SAGA", help="Only those of this saga.")
@click.option("--status", type=click.Choice(STATUSES), help="Only those that stand so.")
@click.option("--epoch", type=int, help="Only those that this epoch of the flag admitted.")
@click.option("--rollback", metavar="ID", help="Only those that this rollback names.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many at most.")
@click.option("--after", metavar="ID", help="Those after this one, as `next` says.")
@common
@pass_session
def effects(session: Session, /, **filters: object) -> None:
    """List effects of the ledger."""
    answer = session.api.request("GET", session.within("/effects"), params=dict(filters))
    if session.json:
        session.show_json(answer)
        return
    rows = [{"id": row.get("effect_id"), **row} for row in answer["effects"]]
    columns = (*COLUMNS, "proceeded_at") if any(row.get("proceeded_at") for row in rows) else COLUMNS
    session.console.print(table_of(rows, columns) if rows else "no such effects")
    if answer.get("next"):
        session.console.print(f"more: --after {answer['next']}")


COMMANDS = (effects,)

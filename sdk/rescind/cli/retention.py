"""`rescind retention`: for how long history is kept, how far it was looked through, and what has gone."""

from __future__ import annotations

import click
from rich.markup import escape

from rescind.cli.session import Session, common, pass_session
from rescind.cli.tables import table_of

SWEEPS = ("what", "begun_at", "ended_at", "looked", "dropped", "dropped_ever")
HORIZONS = ("flag", "gone_until", "number")


@click.command()
@common
@pass_session
def retention(session: Session) -> None:
    """Show for how long history is kept, and what of it has gone."""
    answer = session.api.request("GET", session.within("/retention"))
    if session.json:
        session.show_json(answer)
        return
    out = session.console
    out.print(f"history in [bold]{escape(answer['environment'])}[/] is kept {days(answer['history_days'])} after its end")
    out.print(f"keys are kept {days(answer['keys_days'])} after their history has gone")
    out.print(table_of(answer["sweeps"], SWEEPS))
    if answer["horizons"]:
        out.print(table_of(answer["horizons"], HORIZONS, title="gone, and no kill undoes it"))


def days(number: int | None) -> str:
    """For people.

    >>> days(None), days(1)
    ('for ever', 'for 1 day')
    """
    return "for ever" if number is None else f"for {number} day{'' if number == 1 else 's'}"


COMMANDS = (retention,)

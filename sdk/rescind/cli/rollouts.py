"""`rescind rollout`: a variant on its way to more and more subjects, step by step."""

from __future__ import annotations

from typing import Any

import click
from rich.markup import escape

from rescind.cli.options import seconds_of
from rescind.cli.session import Session, common, part, pass_session
from rescind.cli.tables import table_of, text_of


@click.command()
@click.argument("flag")
@click.argument("variant", required=False)
@click.option("--steps", metavar="P,P,...", help="Rising percentages, for example 1,10,50,100.")
@click.option("--every", metavar="DURATION", help="Between the steps: 30m, 1h, 1d. The first is taken at once.")
@click.option("--stop", is_flag=True, help="Take no further step; the flag stays as it is.")
@click.option("--reason", metavar="TEXT", help="Why, for the audit log.")
@common
@pass_session
def rollout(
    session: Session, flag: str, variant: str | None, steps: str | None, every: str | None, stop: bool, reason: str | None
) -> None:
    """Roll VARIANT of FLAG out in steps; without VARIANT, show how far it is.

    Each step is a revision of its own, in your name. The rules of the flag stay: what grows is the share of those whom no rule
    takes. It stops where it is when the flag is killed, archived, or written by anyone else, and a lift does not resume it.
    """
    path = session.within(f"/flags/{part(flag)}/rollout")
    if stop:
        answer = session.api.request("DELETE", path, json={"reason": _given(reason, "--reason")})
    elif variant is None:
        answer = session.api.request("GET", path)
    else:
        body = {
            "variant": variant,
            "steps": percents_of(_given(steps, "--steps")),
            "every_seconds": seconds_of(_given(every, "--every")),
            "reason": _given(reason, "--reason"),
        }
        answer = session.api.request("POST", path, json=body)
    if session.json:
        session.show_json(answer)
    else:
        show(session, answer)


def show(session: Session, answer: dict[str, Any]) -> None:
    """How far it is, its steps, and why it stopped."""
    out, percent = session.console, text_of(answer["percent"])
    state = f"stopped: {answer['stopped']}" if answer["stopped"] else answer["state"]
    share = f"{answer['variant']} at {percent} %, {answer['rest']} for the rest; {state}"
    out.print(f"[bold]{escape(answer['flag'])}[/]: {escape(share)}")
    for fault in answer["faults"]:
        out.print(f"  {escape(fault['detail'])}")
    done = {one["percent"]: one for one in answer["done"]}
    rows = [
        {"percent": step, **{name: done.get(step, {}).get(name) for name in ("revision", "at")}} for step in answer["steps"]
    ]
    out.print(table_of(rows, ("percent", "revision", "at")))
    if answer["next_at"]:
        out.print(f"the next step is taken at {escape(text_of(answer['next_at']))} UTC")


def percents_of(text: str) -> list[float]:
    """Percentages between commas.

    >>> percents_of("1, 2.5,100 %")
    [1, 2.5, 100]
    """
    try:
        values = [float(one.strip().rstrip("%").strip()) for one in text.split(",")]
    except ValueError:
        raise click.UsageError(f"--steps {text!r}: write percentages between commas, 1,10,50,100") from None
    return [int(value) if value.is_integer() else value for value in values]


def _given(value: str | None, option: str) -> str:
    if value is None:
        raise click.UsageError(f"{option} is missing")
    return value


COMMANDS = (rollout,)

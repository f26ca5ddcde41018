"""`rescind moved`: which of a list of targeting keys change their variant when an environment changes its bucketing."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.progress import Progress

from rescind.cli.explain import context_of
from rescind.cli.session import Session, common, pass_session
from rescind.cli.tables import plural, table_of
from rescind.clock import Clock
from rescind.errors import ApiError
from rescind.evaluation import GENERATIONS, Evaluator
from rescind.packed import PackedSnapshot, read_snapshot

KEYS_MAX = 1_000_000
KEY_LENGTH_MAX = 1_024
TEXT_MAX = 64 * 1024 * 1024
"""Characters of the whole list."""
SHOWN_MAX = 50
"""Of those who move; `--json` has them all."""
CHUNK = 5_000


@click.command()
@click.argument("flag")
@click.argument("keys", metavar="FILE")
@click.argument("attributes", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--to", "generation", type=click.Choice(GENERATIONS), help="Left out: the one that is not in use.")
@common
@pass_session
def moved(session: Session, flag: str, keys: str, attributes: tuple[str, ...], generation: str | None) -> None:
    """Say which of the targeting keys in FILE (one a line, `-`: standard input) FLAG would serve another variant.

    The other attributes of their contexts are those given, the same for all: a rule that asks for more is not reached without.
    """
    snapshot = snapshot_of(session)
    if flag not in snapshot.flags:
        raise ApiError(404, "unknown_flag", f"There is no flag {flag!r}.")
    target = generation or next(name for name in GENERATIONS if name != snapshot.bucketing)
    listed = read_keys(keys)
    found = list(_watched(session, movers(snapshot, flag, target, listed, context_of(None, attributes)), len(listed)))
    answer = {
        "flag": flag, "environment": session.environment, "revision": str(snapshot.revision), "from": snapshot.bucketing,
        "to": target, "key_count": len(listed), "moved": found,
    }  # fmt: skip
    if session.json:
        session.show_json(answer)
    else:
        _show(session, answer)


def snapshot_of(session: Session) -> PackedSnapshot:
    """All that the environment evaluates with."""
    return read_snapshot(session.api.send("GET", session.within("/snapshot")).content)


def read_keys(place: str) -> list[str]:
    """The targeting keys, one a line; empty lines name nobody. Raises `UsageError`."""
    try:
        with nullcontext(sys.stdin) if place == "-" else Path(place).open(encoding="utf-8") as file:
            text = file.read(TEXT_MAX + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"the targeting keys {place!r} cannot be read: {error}") from None
    keys = [line for line in text.splitlines() if line]
    if len(keys) > KEYS_MAX or len(text) > TEXT_MAX:
        raise click.UsageError(f"more than {KEYS_MAX:,} targeting keys, or {TEXT_MAX:,} characters: split the list")
    if any(len(key) > KEY_LENGTH_MAX for key in keys):
        raise click.UsageError(f"a targeting key has more than {KEY_LENGTH_MAX} characters: one a line is expected")
    return keys


def movers(
    snapshot: PackedSnapshot, flag: str, generation: str, keys: Iterable[str], attributes: dict[str, Any]
) -> Iterator[dict[str, Any] | None]:
    """For each key: who it is with the variants before and after, or None where they are the same."""
    now = int(Clock().now().timestamp())
    before, after = (
        Evaluator({flag: snapshot.flags[flag]}, snapshot.evaluators, snapshot.metadata, name, now=lambda: now)
        for name in (snapshot.bucketing, generation)
    )
    for key in keys:
        context = {**attributes, "targetingKey": key}
        here, there = before.outcome(flag, context).variant, after.outcome(flag, context).variant
        yield None if here == there else {"targeting_key": key, "from": here, "to": there}


def _watched(session: Session, found: Iterator[dict[str, Any] | None], count: int) -> Iterator[dict[str, Any]]:
    """Those who move, with a bar for a long list."""
    with Progress(console=session.errors, transient=True, disable=count < CHUNK or session.json) as progress:
        task = progress.add_task("evaluating", total=count)
        for number, one in enumerate(found, 1):
            if number % CHUNK == 0:
                progress.update(task, completed=number)
            if one is not None:
                yield one


def _show(session: Session, answer: dict[str, Any]) -> None:
    out, found, count = session.console, answer["moved"], answer["key_count"]
    said = f"{len(found):,} of {plural(count, 'targeting key')}"
    out.print(f"from {answer['from']} to {answer['to']}, [bold]{escape(answer['flag'])}[/] would serve {said} another variant")
    ways = Counter((str(one["from"]), str(one["to"])) for one in found)
    if ways:
        rows: Sequence[dict[str, Any]] = [{"from": a, "to": b, "keys": number} for (a, b), number in ways.most_common()]
        out.print(table_of(rows, ("from", "to", "keys")))
        out.print(table_of(found[:SHOWN_MAX], ("targeting_key", "from", "to")))
    if len(found) > SHOWN_MAX:
        out.print(f"[dim]and {len(found) - SHOWN_MAX:,} more: --json has them all[/]")


COMMANDS = (moved,)

"""A difference, as the API answers it, for people: green what comes, yellow what changes, nothing twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rescind.cli.tables import plural

ROWS_MAX = 400
VALUE_LENGTH_MAX = 80

Row = tuple[str, str, str, str]


def is_empty(difference: Mapping[str, Any]) -> bool:
    """Whether applying it would change nothing."""
    return not any(difference[name] for name in ("added", "changed", "evaluators", "metadata"))


def show(console: Console, difference: Mapping[str, Any], environment: str) -> None:
    """The table of what changes, and one line that sums up."""
    rows = list(_rows(difference))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "flag", "field", "before → after"):
        table.add_column(column, overflow="fold")
    for row in rows[:ROWS_MAX]:
        table.add_row(*row)
    if rows:
        console.print(table)
    if len(rows) > ROWS_MAX:
        console.print(f"… and {plural(len(rows) - ROWS_MAX, 'line')} more (--json has all of them)")
    console.print(sum_of(difference, environment))


def sum_of(difference: Mapping[str, Any], environment: str) -> str:
    """How many of each, in words."""
    parts = [
        f"[green]{len(difference['added'])} new[/]",
        f"[yellow]{len(difference['changed'])} changed[/]",
        f"{len(difference['unchanged'])} unchanged",
    ]
    staying = len(difference["staying"])
    if staying:
        parts.append(
            f"{staying} not in the file {'stays' if staying == 1 else 'stay'} as {'it is' if staying == 1 else 'they are'}"
        )
    return f"{escape(environment)} at revision {difference['revision']}: {', '.join(parts)}"


def _rows(difference: Mapping[str, Any]) -> Iterator[Row]:
    for flag in difference["added"]:
        yield "[green]+[/]", f"[green]{escape(flag['key'])}[/]", "", f"new; off variant {escape(flag['off_variant'])}"
    for flag in difference["changed"]:
        yield from _fields(flag["changes"], escape(flag["key"]), 2)
    yield from _fields(difference["evaluators"], "[dim]segments[/]", 1)
    yield from _fields(difference["metadata"], "[dim]metadata[/]", 1)


def _fields(changes: Sequence[Mapping[str, Any]], name: str, steps: int) -> Iterator[Row]:
    """One line per field; its pointer below the flag's own."""
    for change in changes:
        sign = "[green]+[/]" if "before" not in change else "[red]-[/]" if "after" not in change else "[yellow]~[/]"
        field = "/".join(change["pointer"].split("/")[steps + 1 :])
        yield sign, name, escape(field), _values(change)


def _values(change: Mapping[str, Any]) -> str:
    before, after = (escape(_short(change[name])) if name in change else None for name in ("before", "after"))
    if before is None:
        return f"[green]{after}[/]"
    if after is None:
        return f"[red]{before}[/]"
    return f"[red]{before}[/] → [green]{after}[/]"


def _short(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= VALUE_LENGTH_MAX else f"{text[: VALUE_LENGTH_MAX - 1]}…"

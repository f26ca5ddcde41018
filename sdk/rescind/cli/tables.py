"""Answers as tables for people. Values are shown as they came; money in the currency's own unit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.markup import escape
from rich.table import Table

from rescind.cli.listing import Listing

WITHOUT_MINOR = frozenset(
    {"BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF"}
)
STATES = ("compensated", "never_happened", "irreversible", "skipped", "waiting", "pending")


def table_of(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, title: str | None = None) -> Listing:
    """A table of the named fields, as wide as there is room; a dotted name looks inside."""
    names = [column.rpartition(".")[2] for column in columns]
    texts = [{name: text_of(inside(row, column)) for name, column in zip(names, columns, strict=True)} for row in rows]
    return Listing(texts, names, title)


def inside(row: Mapping[str, Any], name: str) -> Any:
    """The value at a dotted name, or null."""
    value: Any = row
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def text_of(value: object) -> str:
    """A JSON value in few characters.

    >>> text_of(True), text_of(None), text_of([1, 42]), text_of({"a": 1})
    ('yes', '', '1.42', 'a=1')
    """
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case [int(generation), int(n)]:
            return f"{generation}.{n}"
        case list():
            return ", ".join(text_of(item) for item in value)
        case dict():
            return ", ".join(f"{name}={text_of(item)}" for name, item in value.items())
        case str() if len(value) > 18 and value[4:5] == "-" and value[10:11] == "T":
            return instant(value)
        case _:
            return str(value)


def instant(text: str) -> str:
    """An instant in UTC, to the millisecond."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    except ValueError:
        return text


def money(amount_minor: int, currency: str) -> str:
    """Minor units as an amount.

    >>> money(1299, "USD"), money(500, "JPY")
    ('12.99 USD', '500 JPY')
    """
    name = currency.upper()
    return f"{amount_minor} {name}" if name in WITHOUT_MINOR else f"{amount_minor / 100:,.2f} {name}"


def plural(number: int, noun: str) -> str:
    """A number of things.

    >>> plural(1, "effect"), plural(2, "effect")
    ('1 effect', '2 effects')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def counts_table(counts: Mapping[str, Mapping[str, Any]]) -> Table:
    """Effects per kind and what became of them, with the money that is back and the money that there was."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("kind")
    shown = [state for state in STATES if any(kind.get(state) for kind in counts.values())]
    for name in ("set", *(state.replace("_", " ") for state in shown), "money undone"):
        table.add_column(name, justify="right")
    for kind, numbers in counts.items():
        table.add_row(
            escape(kind), str(numbers.get("admitted", 0)), *(str(numbers.get(state, 0)) for state in shown), money_line(numbers)
        )
    return table


def money_line(numbers: Mapping[str, Any]) -> str:
    """`12.99 of 20.00 USD` per currency, and how many effects of the kind have no amount.

    >>> money_line({"amounts": {"USD": {"admitted": 2598, "compensated": 2598}}, "without_amount": 4})
    '25.98 of 25.98 USD, 4 without an amount'
    """
    parts = []
    for currency, amounts in (numbers.get("amounts") or {}).items():
        whole = money(amounts.get("admitted", 0), currency)
        parts.append(f"{money(amounts.get('compensated', 0), currency).rpartition(' ')[0]} of {whole}")
    bare = numbers.get("without_amount", 0)
    return ", ".join([*parts, f"{bare} without an amount"]) if parts and bare else ", ".join(parts)

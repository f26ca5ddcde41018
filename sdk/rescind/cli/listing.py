"""Rows and columns in the width there is.

Every column has a rank and a least width. Where the least widths do not fit, the columns of the highest rank are left out until
they do, and named below; what room is left goes to the others by rank. Ids and instants are never broken: they are copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.text import Text

GAP = 2
NAME_LEAST = 40
"""A name longer than this may be broken; a flag's or an instance's is seldom."""
TEXT_LEAST = 12
RANKS = {
    "id": 0, "effect_id": 0, "name": 0, "instance": 0, "place": 0, "rung": 0, "targeting_key": 0,
    "key": 1, "flags": 1, "state": 1, "class": 1, "rule": 1, "status": 1, "service": 1, "at": 1,
    "kind": 2, "about": 2, "flag": 2, "why": 2, "off_variant": 2, "type": 2, "live": 2, "declared": 2, "scopes": 2,
    "reason": 3, "behind": 3, "service_version": 3, "revision": 3, "cause": 3, "to come": 3, "environment": 3,
    "admitted_at": 5, "subject": 5, "actor": 5, "updated_by": 5, "owner": 5,
    "applied_at": 5, "sdk_version": 6,
    "epoch": 6, "reversibility": 6, "services": 6, "settled_at": 6,
}  # fmt: skip
RANK_OTHER = 4
WHOLE = frozenset({"id", "effect_id", "rollback_id", "state", "status", "revision", "at", "place", "class", "rule", "rung"})
NAMES = frozenset({"name", "flag", "flags", "instance", "service", "kind", "variant", "off_variant", "targeting_key"})


class Column(Struct, frozen=True, kw_only=True):
    """One column: its heading, its cells, and how it gives way. `natural` is its widest cell."""

    name: str
    cells: list[str]

    @property
    def heading(self) -> str:
        """The name in words."""
        return self.name.replace("_", " ")

    @property
    def rank(self) -> int:
        """0 is left out last."""
        return RANKS.get(self.name, RANK_OTHER)

    @property
    def natural(self) -> int:
        """The width in which nothing is broken."""
        return max(map(cell_len, (self.heading, *(line for cell in self.cells for line in cell.split("\n")))))

    @property
    def least(self) -> int:
        """The width below which it is better left out."""
        if self.name in WHOLE or self.name.endswith("_at"):
            return self.natural
        return max(cell_len(self.heading), min(self.natural, NAME_LEAST if self.name in NAMES else TEXT_LEAST))


def fit(columns: Sequence[Column], width: int) -> dict[int, int]:
    """The width of each column that is shown, by its place. The last one of the lowest rank always is."""
    shown = list(range(len(columns)))
    while len(shown) > 1 and _total([columns[place].least for place in shown]) > width:
        shown.remove(max(shown, key=lambda place: (columns[place].rank, place)))
    widths = {place: columns[place].least for place in shown}
    left = width - _total(list(widths.values()))
    for place in sorted(shown, key=lambda place: (columns[place].rank, place)):
        more = max(0, min(left, columns[place].natural - widths[place]))
        widths[place] += more
        left -= more
    return widths


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


class Listing:
    """Printed by a rich console: as many columns as its width takes, and no blanks at the ends of lines."""

    def __init__(self, rows: Sequence[Mapping[str, str]], names: Sequence[str], title: str | None = None) -> None:
        self._columns = [Column(name=name, cells=[row[name] for row in rows]) for name in names]
        self._row_count = len(rows)
        self._title = title

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        widths = fit(self._columns, options.max_width)
        if self._title:
            yield Text(self._title, style="italic")
        yield from self._lines(console, widths, [column.heading for column in self._columns], style="bold")
        for number in range(self._row_count):
            yield from self._lines(console, widths, [column.cells[number] for column in self._columns])
        hidden = [column.heading for place, column in enumerate(self._columns) if place not in widths and any(column.cells)]
        if hidden:
            said = Text(f"(too narrow for: {', '.join(hidden)}; --json has them)", style="dim")
            yield from said.wrap(console, options.max_width)

    def _lines(self, console: Console, widths: Mapping[int, int], cells: Sequence[str], style: str = "") -> Iterator[Text]:
        parts = [[line.plain for line in Text(cells[place]).wrap(console, width)] for place, width in widths.items()]
        for number in range(max(map(len, parts))):
            texts = [part[number].rstrip() if number < len(part) else "" for part in parts]
            padded = (text + " " * (width - cell_len(text)) for text, width in zip(texts, widths.values(), strict=True))
            yield Text((" " * GAP).join(padded).rstrip(), style=style)

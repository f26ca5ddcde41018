"""What is known of the schema from the migrations that were read so far, since there is no database to ask.

New means: created by the release that is judged. Sure means: by a plain CREATE or ADD, which fails where the name is taken;
`IF NOT EXISTS` may have found something older, so that a drop behind it is still a drop.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from server.rollbacks.statements.reading import Body

Name = tuple[str, str]
"""Schema, or "" where none was said, and name."""


Constant = tuple[str, object]
"""A literal: (`sval`, "kill")."""


class ColumnType(NamedTuple):
    """A type as the grammar names it, and its modifiers: (`varchar`, (20,)). Serials are the integers that they are."""

    name: str
    modifiers: tuple[int, ...] = ()
    is_array: bool = False


class NewColumn(NamedTuple):
    """A column that this release adds. `is_free`: an earlier artifact's rows have null in it; else `constant`, if known."""

    is_sure: bool
    is_free: bool
    constant: Constant | None = None


@dataclass
class Catalogue:
    """Grows with every statement."""

    types: dict[Name, dict[str, ColumnType]] = field(default_factory=dict)
    tables: dict[Name, bool] = field(default_factory=dict)
    """New tables and views: whether that is sure."""
    columns: dict[tuple[Name, str], NewColumn] = field(default_factory=dict)
    indexes: dict[str, bool] = field(default_factory=dict)
    """New indexes by name: whether unique."""

    def begin_release(self) -> None:
        """From now on what is created is new. The types stay known."""
        self.tables.clear()
        self.columns.clear()
        self.indexes.clear()

    def forget_new(self) -> None:
        """Nothing is sure to be new any more, nor of a known type: names mean something else, or were rolled back."""
        self.begin_release()
        self.types.clear()

    def forget(self, name: Name) -> None:
        """The name is free, or another's."""
        self.tables.pop(name, None)
        self.types.pop(name, None)
        self.columns = {place: one for place, one in self.columns.items() if place[0] != name}

    def learn(self, table: Name, column: str, type_: ColumnType, *, is_sure: bool) -> None:
        """The column is of this type; what is not sure overrides nothing that is known."""
        held = self.types.setdefault(table, {})
        if is_sure or column not in held:
            held[column] = type_

    def is_new(self, name: Name, *, surely: bool = False) -> bool:
        """Whether this release created the table, or (not `surely`) says so by IF NOT EXISTS."""
        return self.tables.get(name, False) if surely else name in self.tables

    def is_free(self, table: Name, column: str) -> bool:
        """Whether the column is new and null in rows of an earlier artifact."""
        found = self.columns.get((table, column))
        return found is not None and found.is_free


def constant_of(expression: Body) -> Constant | None:
    """The literal that an expression is, cast or not; None for null and for what is none."""
    while "TypeCast" in expression:
        expression = expression["TypeCast"].get("arg", {})
    for kind, held in expression.get("A_Const", {}).items():
        if isinstance(held, dict):
            return kind, held.get(kind)
    return None


def name_of(relation: Body) -> Name:
    """Of a RangeVar."""
    return relation.get("schemaname", ""), relation.get("relname", "")


def name_from(parts: list[str]) -> Name:
    """Of a dotted name."""
    return (parts[-2], parts[-1]) if len(parts) > 1 else ("", parts[-1] if parts else "")


def text_of(name: Name, column: str = "") -> str:
    """As people write it."""
    return ".".join(part for part in (*name, column) if part)

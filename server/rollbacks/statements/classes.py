"""The words in which statements are judged."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct, field


class StatementClass(StrEnum):
    """What a statement does to the artifact that ran before, the mildest first."""

    ADDITIVE = "additive"
    """The previous artifact goes on as if nothing had happened."""
    NEEDS_BACKFILL = "needs_backfill"
    """It fills what is new: the previous artifact goes on, and what it writes meanwhile has to be filled again."""
    UNKNOWN = "unknown"
    """Nobody can tell from the text alone. Never taken for additive."""
    DESTRUCTIVE = "destructive"
    """The previous artifact, or its data, does not survive it."""


class Undoing(StrEnum):
    """How far one can go back behind a statement."""

    PREVIOUS = "previous_artifact"
    """The previous artifact runs on what the statement leaves."""
    FORWARD = "forward"
    """It does not: the way out is a new artifact."""
    NEVER = "never"
    """Values that were in use were overwritten or taken out: no artifact brings them back."""
    UNKNOWN = "unknown"


class Rule(Struct, frozen=True, kw_only=True):
    """One line of the table: what matches it is of this class, for this reason."""

    statement_class: StatementClass
    undoing: Undoing
    reason: str


class Finding(Struct, frozen=True, kw_only=True):
    """One statement, or one command of an ALTER TABLE, and how it was judged. `line` counts from 1 in its migration."""

    migration: str
    line: Annotated[int, Meta(ge=0)]
    statement: str
    about: str
    """What it is about: `orders.note`."""
    rule: str
    statement_class: StatementClass = field(name="class")
    undoing: Undoing
    reason: str
    note: str | None = None
    """What to know beside the class: what it locks, what it rewrites."""


class Migration(Struct, frozen=True, kw_only=True):
    """A migration as text."""

    name: str
    sql: str


RANKS = {one: rank for rank, one in enumerate(StatementClass)}


def worst(classes: Iterable[StatementClass]) -> StatementClass:
    """The class of several statements together; of none it is additive.

    >>> str(worst([StatementClass.UNKNOWN, StatementClass.ADDITIVE]))
    'unknown'
    """
    return max(classes, key=RANKS.__getitem__, default=StatementClass.ADDITIVE)

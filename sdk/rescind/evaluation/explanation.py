"""Why an evaluation gave what it gave, as data: the shape of what `explain` answers, and how much of it there may be.

Every value of the context or of a rule is shown in little: what is long is cut, and what is no JSON is named by its type.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct

from rescind.evaluation.errors import Fault
from rescind.evaluation.limits import SAFE_INTEGER

FINDINGS_MAX: Final = 250
"""Findings in one explanation."""
FOUND_MAX: Final = 8
"""Attributes that one finding shows."""
FAULTS_SHOWN_MAX: Final = 10
"""Faults of a definition that cannot be read."""
SHOWN_TEXT_MAX: Final = 200
SHOWN_ITEMS_MAX: Final = 10
SHOWN_DEPTH_MAX: Final = 2


class Decided(StrEnum):
    """What the answer comes from. These never change; new ones may be added."""

    NOT_FOUND = "not_found"
    NO_SNAPSHOT = "no_snapshot"
    """The instance has no flags yet."""
    STALE = "stale"
    """The off variant: the request has seen a later revision than the instance could reach (P3), or the flag's staleness limit
    has run out (P6)."""
    UNREADABLE = "unreadable"
    """This version cannot read the definition: the off variant."""
    DISABLED = "disabled"
    KILL = "kill"
    NO_TARGETING = "no_targeting"
    """The default variant, for everyone."""
    PREREQUISITE = "prerequisite"
    """A prerequisite that does not hold: the off variant, by the rule that it laid before the flag's own."""
    RULE = "rule"
    DEFAULT = "default"
    """The targeting decided nothing: the default variant."""
    FAILED = "failed"
    """A known rule failed, or named no variant: the caller's default."""


class Split(Struct, frozen=True, kw_only=True):
    """Where a subject falls among the shares of a `fractional`."""

    generation: str
    by: Any
    """The bucketing value; null where it is flag key and targeting key."""
    hash: int | None
    """32 bits; null where there is nothing to hash: such a subject is in no share."""
    total: int = 0
    """The sum of the weights; 0 where they decide nothing."""
    position: int | None = None
    """`(hash * total) >> 32`: at least `start` and less than `start + weight` of the share."""
    share: int | None = None
    """The index of the share."""
    start: int = 0
    weight: int = 0


class Finding(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One operation of the targeting that was carried out, and what it gave."""

    pointer: str
    """RFC 6901, into the flag's definition as it was written, or below `/$evaluators` into the flag set's; below
    `/$prerequisites` into the rules that its prerequisites laid."""
    operator: str
    value: Any
    found: dict[str, Any] = {}
    """The attributes of the context that it read itself; null where they are absent."""
    operand: int | None = None
    """Which operand decided: of `and`, `or` and `if`."""
    split: Split | None = None
    findings: list[Finding] = []


class Rule(Struct, frozen=True, kw_only=True):
    """The rule of the flag's `if` chain that decided, or of those that its prerequisites laid before it."""

    number: int
    """From 1, of the rules as they were written; one more than there are conditions where none of them held."""
    pointer: str
    """Of its condition; of the last value where none of the conditions held."""
    name: str | None


class KillSeen(Struct, frozen=True, kw_only=True):
    """A standing kill, judged for this context."""

    rollback_id: str | None
    off_variant: str
    scope: dict[str, Any]
    in_scope: bool
    absent: list[str]
    """Attributes of the scope that the context lacks: each counts as in scope (P4)."""


class Explanation(Struct, frozen=True, kw_only=True):
    """The answer for one context, and how it came about."""

    flag: str
    environment: str
    revision: str | None
    decided: Decided
    value: Any
    """Null where it is the caller's default."""
    variant: str | None
    reason: str
    error_code: str | None = None
    error_details: str | None = None
    pointer: str | None = None
    """Where the deciding value stands in the definition."""
    rule: Rule | None = None
    kills: list[KillSeen] = []
    """In the order in which they are judged: the first that has the context in its scope decides."""
    findings: list[Finding] = []
    faults: list[Fault] = []
    """Why this version cannot read the definition."""
    truncated: bool = False
    """There were more findings than `FINDINGS_MAX`, or more work than an explanation may take."""


def shown(value: Any, depth: int = 0) -> Any:
    """A value as an explanation shows it: JSON, and short.

    >>> shown([1, {1, 2}, "x" * 300])[:2]
    [1, '(set)']
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return _cut(value)
    if isinstance(value, int):
        return int(value) if -SAFE_INTEGER <= value <= SAFE_INTEGER else "(a number beyond 2^53)"
    if isinstance(value, float):
        return value if math.isfinite(value) else f"({value})"
    if isinstance(value, list | tuple | dict) and depth >= SHOWN_DEPTH_MAX:
        return "…"
    if isinstance(value, list | tuple):
        items = [shown(item, depth + 1) for item in value[:SHOWN_ITEMS_MAX]]
        return items if len(items) == len(value) else [*items, "…"]
    if isinstance(value, dict):
        members = {name_of(name): shown(item, depth + 1) for name, item in list(value.items())[:SHOWN_ITEMS_MAX]}
        return members if len(value) <= SHOWN_ITEMS_MAX else {**members, "…": len(value) - SHOWN_ITEMS_MAX}
    return f"({type(value).__name__})"


def name_of(name: Any) -> str:
    """An attribute's name, short."""
    return _cut(name) if isinstance(name, str) else f"({type(name).__name__})"


def _cut(source: str) -> str:
    kept = source if len(source) <= SHOWN_TEXT_MAX else source[:SHOWN_TEXT_MAX] + "…"
    return kept.encode("utf-8", "replace").decode()

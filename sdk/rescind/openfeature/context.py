"""From OpenFeature's evaluation context to the JSON values that rules read. Never raises (P6).

An instant becomes its RFC 3339 text in UTC with milliseconds, as JavaScript writes it, so that a rule meets the same text
whichever client asks (P7); one without a zone counts as UTC.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Final

from openfeature.evaluation_context import EvaluationContext

TARGETING_KEY: Final = "targetingKey"
DEPTH_MAX: Final = 32
"""Deeper values are cut off: they become null."""
_PLAIN: Final = frozenset({str, int, bool, type(None)})


def context_of(given: EvaluationContext | None) -> dict[str, Any]:
    """The attributes as JSON values, the targeting key among them as `targetingKey`.

    >>> context_of(EvaluationContext("user-1", {"seen": datetime(2026, 11, 24), "plans": ("a", "b")}))
    {'seen': '2026-11-24T00:00:00.000Z', 'plans': ['a', 'b'], 'targetingKey': 'user-1'}
    """
    if given is None:
        return {}
    attributes = given.attributes
    context = {} if not attributes else _object(attributes, 1)
    if given.targeting_key is not None:
        context[TARGETING_KEY] = json_value(given.targeting_key)
    return context


def json_value(value: Any, depth: int = 0) -> Any:
    """`value` as JSON has it; null for a number that is none and for what is nested too deep; the text of anything else."""
    if value.__class__ in _PLAIN:
        return value
    try:
        return _converted(value, depth)
    except Exception:  # P6: an attribute's own code may do anything
        return None


def _converted(value: Any, depth: int) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Enum():
            return json_value(value.value, depth + 1) if depth < DEPTH_MAX else None
        case str():
            return str.__str__(value)
        case int():
            return int(value)
        case datetime():
            return instant(value)
        case date():
            return value.isoformat()
        case Decimal():
            return _number(value)
        case Mapping():
            return _object(value, depth + 1) if depth < DEPTH_MAX else None
        case list() | tuple():
            return [json_value(item, depth + 1) for item in value] if depth < DEPTH_MAX else None
        case Set():
            return [json_value(item, depth + 1) for item in sorted(value, key=repr)] if depth < DEPTH_MAX else None
        case bytes():
            return value.decode("utf-8", "replace")
        case _:
            return str(value)


def _object(value: Any, depth: int) -> dict[str, Any]:
    try:
        return {
            name if name.__class__ is str else str(name): item if item.__class__ in _PLAIN else json_value(item, depth)
            for name, item in value.items()
        }
    except Exception:  # P6: not a mapping after all, or one that changes meanwhile
        return {}


def instant(value: datetime) -> str:
    """RFC 3339, in UTC, to the millisecond."""
    aware = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return aware.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _number(value: Decimal) -> int | float | None:
    if not value.is_finite():
        return None
    return int(value) if value == value.to_integral_value() and abs(value) < Decimal(2**53) else float(value)

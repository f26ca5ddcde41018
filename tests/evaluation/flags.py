"""Flags for the evaluation's tests, and one flag evaluated by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from rescind.evaluation import Evaluator, Resolution

BOOLEANS = {"on": True, "off": False}
NOON = 1_800_000_000


class ScopedKill(Struct, frozen=True, kw_only=True):
    scope: dict[str, Any] = {}
    off_variant: str = "off"


class Spec(Struct, frozen=True, kw_only=True):
    """What the evaluator asks of a flag."""

    definition: Any
    off_variant: str = "off"
    kills: list[ScopedKill] = []
    max_staleness_seconds: float | None = None


def flag(targeting: Any = None, *, variants: Any = None, default: Any = "off", **more: Any) -> dict[str, Any]:
    """A definition, ENABLED unless said otherwise."""
    definition = {"state": "ENABLED", "variants": BOOLEANS if variants is None else variants, "defaultVariant": default, **more}
    return definition if targeting is None else {**definition, "targeting": targeting}


def resolve(
    definition: Any,
    context: Mapping[str, Any] | None = None,
    default: Any = "the caller's",
    kind: str = "any",
    *,
    key: str = "flag",
    spec: Mapping[str, Any] | None = None,
    **evaluator: Any,
) -> Resolution:
    """The resolution of one flag by an evaluator that has only it."""
    made = Evaluator({key: Spec(definition=definition, **(spec or {}))}, now=lambda: NOON, **evaluator)
    return made.evaluate(key, context, default, kind)

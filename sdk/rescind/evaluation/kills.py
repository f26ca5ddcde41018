"""Kills as they meet an evaluation (P4): who is in a kill's scope, and which variant stands for the flag meanwhile.

A kill without a scope arrives as an overlay of the definition (P7); one with a scope is judged here, for every context.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from rescind.evaluation.values import strictly_equal

KILLED = "rescind.killed"


class Kill(Protocol):
    """A standing kill: `rescind.wire.Kill` is one."""

    @property
    def scope(self) -> Mapping[str, Any]: ...

    @property
    def off_variant(self) -> str: ...


class FlagSpec(Protocol):
    """A flag to evaluate: `rescind.wire.SnapshotFlag` is one."""

    @property
    def definition(self) -> Mapping[str, Any]: ...

    @property
    def off_variant(self) -> str: ...

    @property
    def kills(self) -> Iterable[Kill]: ...

    @property
    def max_staleness_seconds(self) -> float | None: ...


def in_scope(context: Mapping[str, Any], scope: Iterable[tuple[str, Any]]) -> bool:
    """Whether every attribute of `scope` has its value in `context`. One that is absent or null counts as in scope.

    >>> in_scope({"region": "eu"}, [("region", "eu"), ("tenant", "a")])
    True
    """
    for name, value in scope:
        found = context.get(name)
        if found is not None and not strictly_equal(found, value):
            return False
    return True


def judged_order(kills: Iterable[Kill]) -> list[Kill]:
    """The kills in the order in which an evaluation judges them: the one that takes everyone first, then narrower ones."""
    return sorted(kills, key=lambda kill: len(kill.scope), reverse=True)[::-1]

"""Measuring a document before anything else looks at it: depth, values, text. Bounded for any document, a cyclic one too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from rescind.evaluation.errors import FaultCode


class Measure(NamedTuple):
    """How large a document is, as far as it was looked at."""

    nodes: int
    excess: tuple[FaultCode, str] | None
    """Which limit it exceeds."""


def measure(document: Any, depth_max: int, nodes_max: int, size_max: int) -> Measure:
    """Count `document`, level by level, and stop at the first limit that it exceeds."""
    nodes, size, depth = 1, 0, 0
    level: list[Any] = [document]
    while level:
        depth += 1
        below: list[Any] = []
        take: Callable[[Any], None] = below.extend
        for value in level:
            if isinstance(value, str):
                size += len(value)
                continue
            if isinstance(value, dict):
                size += sum([len(key) for key in value if isinstance(key, str)])
                nodes += len(value)
                items = value.values()
            elif isinstance(value, list | tuple):
                nodes += len(value)
                items = value  # type: ignore[assignment]
            else:
                continue
            if nodes > nodes_max:
                return Measure(nodes, (FaultCode.TOO_LARGE, f"more than {nodes_max} values"))
            take(items)
        if size > size_max:
            return Measure(nodes, (FaultCode.TOO_LARGE, f"more than {size_max} characters of text"))
        if depth > depth_max and below:
            return Measure(nodes, (FaultCode.TOO_DEEP, f"nested deeper than {depth_max} levels"))
        level = below
    return Measure(nodes, None)

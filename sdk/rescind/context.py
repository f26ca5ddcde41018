"""What one request has seen: one revision for all its evaluations (P3), and which variant each flag gave it.

Held in contextvars, so that tasks and threads started by a request carry it. Evaluations are remembered as their inputs,
in an immutable chain: a task that evaluates a flag for one user never changes what another task remembers. Outside a
request nothing is pinned, and what a task evaluated is remembered all the same: its effects take it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Protocol

from msgspec import Struct

from rescind.evaluation.explanation import Explanation
from rescind.evaluation.resolution import Resolution
from rescind.wire import Revision

REMEMBERED_MAX = 64


class Evaluates(Protocol):
    """What answers for flags: an evaluator, or the off variants of a request that could not catch up."""

    revision: Any

    @property
    def served(self) -> Mapping[str, Callable[[Any], Resolution]]:
        """What answers at once; a flag that is not in it, or one that fails there, is asked for by `boolean`."""

    def boolean(self, key: str, default: bool, context: Mapping[str, Any] | None = None) -> bool: ...

    def evaluate(self, key: str, context: Mapping[str, Any] | None, default: Any, kind: str = "any") -> Resolution: ...

    def explain(self, key: str, context: Mapping[str, Any] | None = None) -> Explanation: ...


class Memory(Struct, frozen=True):
    """The last evaluation of a flag in this task, and those before it."""

    key: str
    evaluator: Evaluates
    context: Mapping[str, Any] | None
    before: Memory | None
    depth: int


class Pin:
    """A request's evaluator, its revision, and the latest revision that the request has met anywhere."""

    __slots__ = ("evaluated", "evaluator", "revision", "seen")

    def __init__(self, evaluator: Evaluates | None, revision: Revision, seen: Revision) -> None:
        self.evaluator = evaluator
        self.revision = revision
        self.seen = seen
        self.evaluated: dict[str, Memory] = {}
        """The last evaluation of each flag anywhere in the request: for an effect in a task that remembers none."""

    def move(self, evaluator: Evaluates) -> None:
        """What the request evaluates from here on is at this evaluator's revision, which is not older than `seen`."""
        self.evaluator, self.revision, self.seen = evaluator, evaluator.revision, evaluator.revision


class RequestContext:
    """The contextvars of one client."""

    def __init__(self) -> None:
        self.pin: ContextVar[Pin | None] = ContextVar("rescind.pin", default=None)
        self.memory: ContextVar[Memory | None] = ContextVar("rescind.memory", default=None)
        self._get, self._set = self.memory.get, self.memory.set

    def remember(self, key: str, evaluator: Evaluates, context: Mapping[str, Any] | None, pin: Pin | None) -> None:
        """Keep what this evaluation was made from."""
        head = self._get()
        if head is None:
            memory = Memory(key, evaluator, context, None, 1)
        elif head.key == key:
            memory = Memory(key, evaluator, context, head.before, head.depth)
        else:
            memory = Memory(key, evaluator, context, head, head.depth + 1)
            if memory.depth > REMEMBERED_MAX:
                memory = compact(memory)
        self._set(memory)
        if pin is not None and (len(pin.evaluated) < REMEMBERED_MAX or key in pin.evaluated):
            pin.evaluated[key] = memory

    def recall(self, key: str) -> Memory | None:
        """The last evaluation of `key` by this task, else by its request, else None."""
        memory = self.memory.get()
        while memory is not None and memory.key != key:
            memory = memory.before
        pin = self.pin.get()
        return memory or (pin.evaluated.get(key) if pin else None)


def compact(memory: Memory) -> Memory:
    """The same, with one entry per flag, and half of what may be remembered at most."""
    latest: dict[str, Memory] = {}
    entry: Memory | None = memory
    while entry is not None and len(latest) < REMEMBERED_MAX // 2:
        latest.setdefault(entry.key, entry)
        entry = entry.before
    result: Memory | None = None
    for kept in reversed(latest.values()):
        result = Memory(kept.key, kept.evaluator, kept.context, result, result.depth + 1 if result else 1)
    assert result is not None
    return result

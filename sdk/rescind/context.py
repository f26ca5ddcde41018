"""What one request has seen: one revision for all its evaluations (P3), and which variant each flag gave it.

Held in contextvars, so that tasks and threads started by a request carry it. Evaluations are remembered as their inputs,
in an immutable chain: a task that evaluates a flag for one user never changes what another task remembers. Outside a
request nothing is pinned, and what a task evaluated is remembered all the same: its effects take it.

A pin ends with its request, and after a minute in any case: a task that goes on, a stream that stays open, a child that was
forked in between follow what is current from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from typing import Any, NamedTuple, Protocol

from msgspec import Struct

from rescind.evaluation.explanation import Explanation
from rescind.evaluation.resolution import Resolution
from rescind.wire import Revision

REMEMBERED_MAX = 64
PIN_SECONDS_MAX = 60.0


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

    __slots__ = ("began_at", "ended", "evaluated", "evaluator", "revision", "seen")

    def __init__(self, evaluator: Evaluates | None, revision: Revision, seen: Revision, began_at: float = 0.0) -> None:
        self.evaluator = evaluator
        """None: what is current, unless it is older than `seen`."""
        self.revision = revision
        self.seen = seen
        self.began_at = began_at
        """On the monotonic clock."""
        self.ended = False
        self.evaluated: dict[str, Memory] = {}
        """The last evaluation of each flag anywhere in the request: for an effect in a task that remembers none."""

    def end(self) -> None:
        """From now on whoever still carries it evaluates what is current."""
        self.ended = True
        self.evaluator = None

    def move(self, evaluator: Evaluates | None, revision: Revision, seen: Revision) -> None:
        """Hold a later revision; one that has ended in the meantime stays ended."""
        self.evaluator, self.revision, self.seen = evaluator, revision, max(self.seen, seen)
        if self.ended:
            self.evaluator = None


class Held(NamedTuple):
    """A pin in force, and what brings back what was before."""

    pin: Pin
    before: Token[Pin | None]
    remembered: Token[Memory | None]


class RequestContext:
    """The contextvars of one client."""

    def __init__(self) -> None:
        self.pin: ContextVar[Pin | None] = ContextVar("rescind.pin", default=None)
        self.memory: ContextVar[Memory | None] = ContextVar("rescind.memory", default=None)
        self._get, self._set = self.memory.get, self.memory.set
        self._held: set[Pin] = set()
        """As many as there are requests under way, and none for longer than a minute."""

    def hold(self, pin: Pin) -> Held:
        """Put `pin` in force here, and in all tasks and threads that are begun from here."""
        self._held.add(pin)
        return Held(pin, self.pin.set(pin), self.memory.set(None))

    def keep(self, pin: Pin) -> None:
        """`pin`, which may have been ended for its age, is in force anew."""
        self._held.add(pin)

    def release(self, held: Held, current: Revision) -> None:
        """The request is over. Call it in the context of `hold`."""
        held.pin.end()
        if held.pin.seen <= current:
            self._held.discard(held.pin)
        self.memory.reset(held.remembered)
        self.pin.reset(held.before)

    def end_older(self, before: float) -> None:
        """End the pins that began before an instant of the monotonic clock. What they have seen and nobody confirmed is
        dropped: a header that was false must not hold anyone back for ever."""
        for pin in list(self._held):
            if pin.began_at < before:
                pin.end()
                pin.seen = pin.revision
                self._held.discard(pin)

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

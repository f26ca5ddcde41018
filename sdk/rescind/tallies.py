"""Counters that any thread may bump without a lock, and that one reader drains without stopping them.

A counter is an `itertools.repeat` that has very many repetitions left: `next` on it is one step of the interpreter in C, which
no other thread of a GIL divides (a free-threaded interpreter is not claimed), and unlike `itertools.count` makes no number.
What is left only ever shrinks; `operator.length_hint` (PEP 424) reads it and changes nothing. The reader takes the
difference to what it read before: nothing is swapped or put back, so that no bump is lost or read twice.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from itertools import repeat
from operator import length_hint
from typing import Generic, TypeAlias, TypeVar

Tally: TypeAlias = "repeat[None]"
"""Bumped by `next`, or by a loop that ends at its first step, which costs no call."""

K = TypeVar("K")


def new_tally() -> Tally:
    """One that was never bumped."""
    return repeat(None, sys.maxsize)


def read(tally: Tally) -> int:
    """How often it was bumped.

    >>> tally = new_tally()
    >>> next(tally), next(tally), read(tally), read(tally)
    (None, None, 2, 2)
    """
    return sys.maxsize - length_hint(tally)


class Counted:
    """A counter, and how much of it was drained."""

    __slots__ = ("drained", "tally")

    def __init__(self) -> None:
        self.tally = new_tally()
        self.drained = 0

    def drain(self) -> int:
        """What came in since the last time."""
        before, self.drained = self.drained, read(self.tally)
        return self.drained - before


class Tallies(Generic[K]):
    """A bounded set of counters by key. What finds no room is counted under its `rest`."""

    def __init__(self, keys_max: int, rest: Callable[[K], K]) -> None:
        """`rest` gives the key that is counted in place of one without room. It has few values, and those always have room."""
        self._keys_max = keys_max
        self._rest = rest
        self._counted: dict[K, Counted] = {}
        self._leaving: dict[K, Counted] = {}
        """Forgotten at the last drain: drained once more, for a thread that had one in its hand."""

    def __len__(self) -> int:
        return len(self._counted)

    @property
    def is_full(self) -> bool:
        """Whether the next new key goes to its rest."""
        return len(self._counted) >= self._keys_max

    def of(self, key: K) -> Tally:
        """The key's counter, to be bumped by `next`. Threads that race for the last room get a few more between them."""
        counted = self._counted.get(key)
        if counted is None:
            counted = self._counted.setdefault(self._rest(key) if self.is_full else key, Counted())
        return counted.tally

    def drain(self) -> Counter[K]:
        """What came in since the last drain. For one reader."""
        found: Counter[K] = Counter()
        leaving, self._leaving = self._leaving, {}
        for key, counted in [*leaving.items(), *self._counted.copy().items()]:
            if number := counted.drain():
                found[key] += number
        return found

    def forget(self) -> None:
        """Make room: every key begins anew. Whoever keeps a counter has until the next drain to let go of it."""
        self._leaving, self._counted = self._counted, {}

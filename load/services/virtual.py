"""An event loop whose time passes only when nothing else is left to do: discrete events, no waiting, the same every time.

What runs on it is the code that runs everywhere: tasks, timers and timeouts. It knows no sockets and no threads.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from rescind.clock import Clock

T = TypeVar("T")
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Jumping(self))

    def time(self) -> float:
        """Seconds since the beginning."""
        return self.now


class _Jumping(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("nothing is left that could happen")
        self._loop.now += max(0.0, timeout)
        return []


class VirtualClock(Clock):
    """The clocks and dice of a simulation."""

    def __init__(self, loop: VirtualLoop, chance: random.Random) -> None:
        self._loop = loop
        self._chance = chance

    def now(self) -> datetime:
        """Virtual."""
        return BEGINNING + timedelta(seconds=self._loop.now)

    def monotonic(self) -> float:
        """Virtual."""
        return self._loop.now

    def random(self) -> float:
        """From the seed."""
        return self._chance.random()


def run(loop: VirtualLoop, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; what it leaves running is cancelled."""
    try:
        return loop.run_until_complete(work)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()

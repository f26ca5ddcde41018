"""Whether a body lives: one that may be silent only for so long is cancelled when it is, and is then in doubt (P16).

A body that hangs is no different, to whoever waits for it, from one that works: only it can say. The worker's leases say that
the process lives, and go on until the body has been given up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar


class Pulse:
    """Of one body, from its beginning. `timeout_seconds` and `silence_seconds`: null is no limit of its own."""

    def __init__(self, timeout_seconds: float | None, silence_seconds: float | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._silence_seconds = silence_seconds
        self.over = False
        """It has ended, or was given up: nothing is put off any more."""
        now = self._loop.time()
        self._end = None if timeout_seconds is None else now + timeout_seconds
        self.limit = asyncio.timeout_at(self._until(now))

    def beat(self) -> None:
        """The body lives. From any thread."""
        if self._silence_seconds is None or self.over:
            return
        with suppress(RuntimeError):  # the worker is gone, and a thread of it still runs
            self._loop.call_soon_threadsafe(self._extend)

    def _extend(self) -> None:
        if not self.over and not self.limit.expired():
            self.limit.reschedule(self._until(self._loop.time()))

    def _until(self, now: float) -> float | None:
        ends = [self._end, None if self._silence_seconds is None else now + self._silence_seconds]
        return min((end for end in ends if end is not None), default=None)


_beating: ContextVar[Pulse | None] = ContextVar("rescind.pulse", default=None)


def beat() -> None:
    """The body that is running here lives; nothing, outside of one that a worker carries out."""
    pulse = _beating.get()
    if pulse is not None:
        pulse.beat()


@contextmanager
def felt(pulse: Pulse) -> Iterator[None]:
    """Make it the pulse of the body that runs here."""
    token = _beating.set(pulse)
    try:
        yield
    finally:
        pulse.over = True
        _beating.reset(token)

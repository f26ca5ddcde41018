"""A request that has seen revision R is never evaluated at an older one (P3).

Catching up happens before a request is served, never inside an evaluation: one fetch for all who wait, a small budget,
and what the server does not know either is ignored. Forged headers cost a bounded check: no more than twenty fetches a
second are made for headers, and a revision that the server denied is not asked for again for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from enum import Enum

from rescind.clock import Clock
from rescind.context import Pin, RequestContext
from rescind.current import Current
from rescind.header import read_header
from rescind.stale import OffVariants
from rescind.stream import Follower
from rescind.wire import Revision

BUDGET_SECONDS = 0.020
CHECKS_PER_SECOND = 20.0
CHECKS_BURST = 20.0
DENIED_MAX = 256
DENIED_SECONDS = 5.0


class CatchUp(Enum):
    """How catching up ended."""

    REACHED = "reached"
    UNKNOWN = "unknown"
    """The server, asked for at least this revision, does not have it: the header is false."""
    LATE = "late"
    """Not reached within the budget: off variants, reason STALE."""


class Causality:
    """Pins requests."""

    def __init__(self, current: Current, follower: Follower, context: RequestContext, clock: Clock) -> None:
        self._current = current
        self._follower = follower
        self._context = context
        self._clock = clock
        self._denied: dict[Revision, float] = {}
        self._checks = CHECKS_BURST
        self._checked_at = 0.0

    def seen(self, values: Iterable[str | bytes], environment: str) -> Revision | None:
        """The believable revision in a header's values that this instance is not at yet, or None."""
        revision = read_header(values, environment, self._current.revision)
        return revision if revision is not None and revision > self._current.revision else None

    def news(self, values: Iterable[str | bytes], environment: str) -> Revision | None:
        """The believable revision in a reply's header beyond what this request is pinned to, or what is current."""
        pin = self._context.pin.get()
        revision = read_header(values, environment, self._current.revision)
        held = pin.revision if pin else self._current.revision
        return revision if revision is not None and revision > held else None

    async def catch_up(self, revision: Revision, budget_seconds: float = BUDGET_SECONDS) -> CatchUp:
        """Wait until `revision` is applied, for no longer than the budget."""
        now = self._clock.monotonic()
        if self._current.revision >= revision:
            return CatchUp.REACHED
        if now - self._denied.get(revision, -DENIED_SECONDS) < DENIED_SECONDS:
            return CatchUp.UNKNOWN
        try:
            async with asyncio.timeout(budget_seconds):
                if self._may_check(now):
                    answer = await self._follower.fetch(revision)
                    if self._current.revision >= revision:
                        return CatchUp.REACHED
                    if answer is not None and answer.denies(revision):
                        self._deny(revision, now)
                        return CatchUp.UNKNOWN
                await self._follower.reach(revision)
                return CatchUp.REACHED
        except TimeoutError:
            return CatchUp.LATE

    def pin(self, seen: Revision | None = None, outcome: CatchUp = CatchUp.REACHED) -> Pin:
        """A pin on what is current, or on the off variants for one that came late."""
        revision, evaluator = self._current.revision, self._current.evaluator
        if outcome is CatchUp.LATE and seen is not None:
            return Pin(None if evaluator is None else OffVariants(evaluator), revision, seen)
        return Pin(evaluator, revision, revision)

    def learn(self, pin: Pin | None, seen: Revision, outcome: CatchUp) -> None:
        """A reply carried `seen`: what the request evaluates from here on is not older (P3)."""
        if pin is None or outcome is CatchUp.UNKNOWN or seen <= pin.revision:
            return
        seen = max(pin.seen, seen)
        moved = self.pin(seen, outcome if self._current.revision >= seen else CatchUp.LATE)
        pin.evaluator, pin.revision, pin.seen = moved.evaluator, moved.revision, moved.seen

    def _deny(self, revision: Revision, now: float) -> None:
        if len(self._denied) >= DENIED_MAX:
            self._denied.clear()
        self._denied[revision] = now

    def _may_check(self, now: float) -> bool:
        self._checks = min(CHECKS_BURST, self._checks + (now - self._checked_at) * CHECKS_PER_SECOND)
        self._checked_at = now
        if self._checks < 1:
            return False
        self._checks -= 1
        return True

"""A request that has seen revision R is never evaluated at an older one (P3).

Catching up happens before a request is served, never inside an evaluation: one fetch for all who wait, a small budget,
and what the server does not know either is ignored. Forged headers cost a bounded check: no more than twenty fetches a
second are begun for headers, and a revision that the server denied is not asked for again for a while: for seconds where it is
far off, for a moment where it may be the next to come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from enum import Enum

from rescind.clock import Clock
from rescind.context import PIN_SECONDS_MAX, Held, Pin, RequestContext
from rescind.current import NOTHING, Current
from rescind.header import read_header
from rescind.stale import OffVariants
from rescind.stream import CATCH_UP, Follower
from rescind.wire import Revision

BUDGET_SECONDS = 0.020
CHECKS_PER_SECOND = 20.0
CHECKS_BURST = 20.0
DENIED_MAX = 256
DENIED_SECONDS = 5.0
NEAR = 16
NEAR_DENIED_SECONDS = 0.25
FETCHES_MAX = 3
LOOK_SECONDS = 1.0


class CatchUp(Enum):
    """How catching up ended."""

    REACHED = "reached"
    UNKNOWN = "unknown"
    """The server, asked for at least this revision, does not have it: the header is false."""
    LATE = "late"
    """Not reached within the budget: off variants, reason STALE."""


class Causality:
    """Pins requests, and ends their pins."""

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
        held = pin.revision if pin and not pin.ended else self._current.revision
        return revision if revision is not None and revision > held else None

    async def catch_up(self, revision: Revision, budget_seconds: float = BUDGET_SECONDS, how: str = CATCH_UP) -> CatchUp:
        """Wait until `revision` is applied, for no longer than the budget. `how` it was heard of: by a request, or a reply."""
        if self._current.revision >= revision:
            return CatchUp.REACHED
        if self._is_denied(revision):
            return CatchUp.UNKNOWN
        try:
            async with asyncio.timeout(budget_seconds):
                return await self._catch_up(revision, how)
        except TimeoutError:
            return CatchUp.LATE

    def begin(self, seen: Revision | None = None, outcome: CatchUp = CatchUp.REACHED) -> Held:
        """A request or a message begins here, which has seen `seen`; `end` takes what this returns."""
        return self._context.hold(self.pin(seen, outcome))

    def end(self, held: Held) -> None:
        """It is over. Tasks that it has started and left behind follow what is current from here on."""
        self._context.release(held, self._current.revision)

    def pin(self, seen: Revision | None = None, outcome: CatchUp = CatchUp.REACHED) -> Pin:
        """A pin on what is current, or on the off variants for one that came late."""
        evaluator, now = self._current.evaluator, self._clock.monotonic()
        revision: Revision = evaluator.revision if evaluator is not None else NOTHING
        if outcome is CatchUp.LATE and seen is not None and seen > revision:
            return Pin(OffVariants(evaluator) if evaluator is not None else None, revision, seen, now)
        return Pin(evaluator, revision, revision, now)

    def learn(self, pin: Pin | None, seen: Revision, outcome: CatchUp) -> None:
        """A reply carried `seen`: what the request evaluates from here on is not older (P3)."""
        if pin is None or outcome is CatchUp.UNKNOWN or seen <= pin.revision:
            return
        seen = max(pin.seen, seen)
        moved = self.pin(seen, outcome if self._current.revision >= seen else CatchUp.LATE)
        pin.move(moved.evaluator, moved.revision, moved.seen)

    def renew(self, pin: Pin, outcome: CatchUp) -> None:
        """A connection that stays open was told something: what it does now belongs together, and to what is current.

        `outcome`: of catching up with what it has seen so far.
        """
        moved = self.pin(pin.seen, outcome)
        pin.ended, pin.began_at, pin.seen = False, moved.began_at, moved.seen
        pin.move(moved.evaluator, moved.revision, moved.seen)
        self._context.keep(pin)

    def carried(self) -> Revision:
        """The latest revision that whoever asks has seen; 0.0 where nothing is known."""
        pin = self._context.pin.get()
        if pin is None:
            return self._current.revision
        return max(pin.seen, self._current.revision) if pin.ended else pin.seen

    async def run(self) -> None:
        """End pins that have held for a minute, until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """End those that have held for a minute by now."""
        self._context.end_older(self._clock.monotonic() - PIN_SECONDS_MAX)

    async def _catch_up(self, revision: Revision, how: str) -> CatchUp:
        for _ in range(FETCHES_MAX):  # the first may share one that asked for less
            if not (self._follower.is_fetching() or self._may_check()):
                break
            answer = await self._follower.fetch(revision, how)
            if self._current.revision >= revision:
                return CatchUp.REACHED
            if answer is None:
                break
            if answer.denies(revision):
                self._deny(revision)
                return CatchUp.UNKNOWN
        await self._follower.reach(revision)
        return CatchUp.REACHED

    def _is_denied(self, revision: Revision) -> bool:
        denied_at = self._denied.get(revision)
        if denied_at is None:
            return False
        current = self._current.revision
        is_near = revision.generation == current.generation and revision.n <= current.n + NEAR
        return self._clock.monotonic() - denied_at < (NEAR_DENIED_SECONDS if is_near else DENIED_SECONDS)

    def _deny(self, revision: Revision) -> None:
        if len(self._denied) >= DENIED_MAX:
            self._denied.clear()
        self._denied[revision] = self._clock.monotonic()

    def _may_check(self) -> bool:
        now = self._clock.monotonic()
        self._checks = min(CHECKS_BURST, self._checks + (now - self._checked_at) * CHECKS_PER_SECOND)
        self._checked_at = now
        if self._checks < 1:
            return False
        self._checks -= 1
        return True

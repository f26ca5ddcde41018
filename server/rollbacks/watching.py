"""Following a rollback: wait until it has come so far, or see it at every change.

PostgreSQL is asked again and again, no faster than its answers allow: a rollback of a million effects is summed up less often
than one of ten. Whichever server carries it on, every server can show it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal
from uuid import UUID

import msgspec

from runtime.clock import Clock
from runtime.postgres import Postgres
from runtime.problem import Problem
from runtime.right import Right
from server.rollbacks import record
from server.rollbacks.errors import unknown_rollback
from server.rollbacks.record import RollbackRecord

Goal = Literal["contained", "drained", "settled", "verified"]
GOALS: tuple[Goal, ...] = ("contained", "drained", "settled", "verified")
INTERVAL_SECONDS_MIN = 0.05
INTERVAL_PER_QUERY = 5.0
IDLE_SHARE = 0.1
IDLE_SECONDS_MAX = 0.5
STILL_SECONDS = 1.0
"""How often a follower hears that nothing has changed."""
WAIT_SECONDS_MAX = 600.0


class Watching:
    """Reads rollbacks. Raises `Problem` 404 for one that does not exist."""

    def __init__(self, pg: Postgres, clock: Clock) -> None:
        self._pg = pg
        self._clock = clock

    async def get(self, rollback_id: UUID) -> RollbackRecord:
        """The rollback now."""
        async with self._pg.connection() as connection:
            found = await record.load(connection, rollback_id)
        if found is None:
            raise unknown_rollback(str(rollback_id))
        return found

    async def unknown(self, text: str, environment: str | None) -> Problem:
        """404 for what is no rollback, with those of the environment (null: of all) that may have been meant."""
        async with self._pg.connection() as connection:
            latest = await record.latest(connection, environment)
        return unknown_rollback(text, latest)

    async def wait(self, rollback_id: UUID, goal: Goal, timeout_seconds: float, right: Right) -> RollbackRecord:
        """The rollback once it has reached `goal`, or as it stands when the time is up.

        Raises `Problem` 401 as soon as the right to see it is gone.
        """
        if goal == "verified":
            raise Problem(
                422, "nothing_measures_health", "Cannot be verified", "Nothing measures health in this environment.",
                next_step="wait for `settled`, and look at your own dashboards",
            )  # fmt: skip
        deadline = self._clock.monotonic() + min(timeout_seconds, WAIT_SECONDS_MAX)
        while True:
            begun = self._clock.monotonic()
            found = await self.get(rollback_id)
            now = self._clock.monotonic()
            if reached(found, goal) or now >= deadline:
                return found
            await right.pause(min(pause_seconds(now - begun), max(deadline - now, 0.0)))

    async def changes(self, rollback_id: UUID, right: Right) -> AsyncIterator[RollbackRecord | None]:
        """The rollback at once and whenever it changed, until it is settled and contained; null after 1 s without change.

        Raises `Problem` 401 as soon as the right to see it is gone.
        """
        last = b""
        told = changed = self._clock.monotonic()
        while True:
            begun = self._clock.monotonic()
            found = await self.get(rollback_id)
            now = self._clock.monotonic()
            seen = msgspec.json.encode(msgspec.structs.replace(found, as_of=found.fenced_at))
            if seen != last:
                yield found
                last, told, changed = seen, now, now
            elif now - told > STILL_SECONDS:
                yield None
                told = now
            if found.state == "settled" and (found.contained_at or found.lifted_at):
                return
            idle = min((now - changed) * IDLE_SHARE, IDLE_SECONDS_MAX)
            await right.pause(max(pause_seconds(now - begun), idle))


def pause_seconds(query_seconds: float) -> float:
    """How long to leave PostgreSQL alone after an answer that took `query_seconds`."""
    return max(INTERVAL_SECONDS_MIN, INTERVAL_PER_QUERY * query_seconds)


def reached(found: RollbackRecord, goal: Goal) -> bool:
    """Whether the rollback has come as far as `goal`."""
    match goal:
        case "contained":
            return found.contained_at is not None
        case "drained":
            return found.drained_at is not None or found.state == "settled"
        case "settled":
            return found.state == "settled"
        case "verified":
            return found.verified_at is not None

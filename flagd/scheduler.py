"""The loop that applies what is due: scheduled changes, and the steps of rollouts. Every server runs one.

Which server does which does not matter: a row that one has locked is passed over by the others. Polling is enough, and
PostgreSQL's clock decides; this process's own only says when to look again.
"""

from __future__ import annotations

import logging
from uuid import UUID

from flagd.rollouts import Rollouts
from flagd.schedules import Schedules
from runtime.background import Background
from runtime.clock import Clock
from runtime.errors import OutcomeUnknown, Unavailable
from runtime.telemetry import counter

LOOK_SECONDS = 1.0
PASS_MAX = 200
"""Of either kind in one pass, so that neither starves the other."""

log = logging.getLogger("rescind.flagd.scheduler")
survived = counter("rescind.flagd.scheduler.errors")


class Scheduler(Background):
    """Looks every second."""

    def __init__(self, schedules: Schedules, rollouts: Rollouts, clock: Clock) -> None:
        self._schedules = schedules
        self._rollouts = rollouts
        self._clock = clock

    async def look(self) -> None:
        """One pass: everything that is due now."""
        await self._apply()
        await self._roll_out()

    async def run(self) -> None:
        """Until cancelled. What is being applied then is finished by another server, or not at all."""
        while True:
            try:
                await self.look()
            except (Unavailable, OutcomeUnknown) as error:
                log.debug("what is due waits: %s", error)
            except Exception:
                survived.add(1)
                log.exception("what is due waits for the next look")
            await self._clock.sleep(LOOK_SECONDS)

    async def _apply(self) -> None:
        left: set[str] = set()
        for _ in range(PASS_MAX):
            one = await self._schedules.apply_due(sorted(left))
            if one is None:
                return
            if one.state == "waiting":
                left.add(one.environment)
            elif one.state == "refused":
                log.warning("schedule %s of %s in %s was refused: %s", one.id, one.actor, one.environment, one.faults)

    async def _roll_out(self) -> None:
        seen: set[UUID] = set()
        for _ in range(PASS_MAX):
            one = await self._rollouts.carry_on(sorted(seen))
            if one is None:
                return
            seen.add(one)

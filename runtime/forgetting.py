"""The loop that forgets what is kept for a time: answers, counts. Every server runs one; two do no harm."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from runtime.background import Background
from runtime.clock import Clock
from runtime.errors import OutcomeUnknown, Unavailable
from runtime.telemetry import counter

PERIOD_SECONDS = 3_600.0

log = logging.getLogger("rescind.forgetting")
survived = counter("rescind.forgetting.errors")


class Forgetting(Background):
    """Calls each of `purges` at its start and then every hour; one that fails hurts no other."""

    def __init__(self, purges: Sequence[Callable[[], Awaitable[object]]], clock: Clock) -> None:
        self._purges = purges
        self._clock = clock

    async def run(self) -> None:
        """Until cancelled; what was not forgotten is found by the next."""
        while True:
            for purge in self._purges:
                await self._one(purge)
            await self._clock.sleep(PERIOD_SECONDS)

    async def _one(self, purge: Callable[[], Awaitable[object]]) -> None:
        try:
            await purge()
        except (Unavailable, OutcomeUnknown) as error:
            log.debug("what is old is kept for another while: %s", error)
        except Exception:
            survived.add(1)
            log.exception("what is old is kept for another while")

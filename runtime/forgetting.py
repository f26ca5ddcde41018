"""The loop that forgets what is kept for a time: answers, counts. Every server runs one; two do no harm."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence

from runtime.clock import Clock
from runtime.errors import OutcomeUnknown, Unavailable
from runtime.telemetry import counter

PERIOD_SECONDS = 3_600.0

log = logging.getLogger("rescind.forgetting")
survived = counter("rescind.forgetting.errors")


class Forgetting:
    """Calls each of `purges` at its start and then every hour; one that fails hurts no other."""

    def __init__(self, purges: Sequence[Callable[[], Awaitable[object]]], clock: Clock) -> None:
        self._purges = purges
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="runtime.forgetting")

    async def stop(self) -> None:
        """End; what was not forgotten is found by the next."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
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

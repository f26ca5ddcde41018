"""The loop that forgets answers kept for `Idempotency-Key` once their day is over. Every server runs one; two do no harm."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from runtime.clock import Clock
from runtime.errors import OutcomeUnknown, Unavailable
from runtime.idempotency import Requests
from runtime.telemetry import counter

PERIOD_SECONDS = 3_600.0

log = logging.getLogger("rescind.forgetting")
survived = counter("rescind.forgetting.errors")


class Forgetting:
    """Purges at its start and then every hour."""

    def __init__(self, requests: Requests, clock: Clock) -> None:
        self._requests = requests
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
            try:
                await self._requests.purge()
            except (Unavailable, OutcomeUnknown) as error:
                log.debug("old answers are kept for another while: %s", error)
            except Exception:
                survived.add(1)
                log.exception("old answers are kept for another while")
            await self._clock.sleep(PERIOD_SECONDS)

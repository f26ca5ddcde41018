"""A worker carries out what its sagas' functions can do: steps act, and effects are undone (P13, P15).

Each runs at least once under its `action_key`. A function that raises leaves the attempt in doubt; `NotDone`, or an error that
the step lists as proof, says that nothing was done. When the worker is stopped it claims nothing more and lets what runs come
to its end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from rescind.clock import full_jitter_seconds
from rescind.core import Core
from rescind.errors import ApiError, Unreachable
from rescind.handlers import Handlers, handlers_of
from rescind.hands import LEASE_SECONDS, Hands
from rescind.saga import Saga

logger = logging.getLogger("rescind.worker")

WAIT_SECONDS = 10.0
UNREGISTERED = "unknown_saga"
"""The code of a claim for a saga that is not registered yet: the worker goes on asking, and says so."""


class Worker:
    """The loop of `client.work(saga, ...)`; several sagas, or versions with other steps, share `concurrency` evenly."""

    def __init__(self, core: Core, sagas: Sequence[Saga], concurrency: int, lease_seconds: float = LEASE_SECONDS) -> None:
        self._core = core
        self._lease_seconds = lease_seconds
        self._groups = handlers_of(sagas)
        self._share = max(1, concurrency // max(1, len(self._groups)))

    async def run(self) -> None:
        """Work until cancelled; then end what has begun, within twenty seconds. Raises `ApiError` for a refusal."""
        serving = [asyncio.ensure_future(self._serve(handlers)) for handlers in self._groups]
        try:
            await asyncio.gather(*serving)
        finally:
            for one in serving:
                one.cancel()
            await asyncio.gather(*serving, return_exceptions=True)

    async def _serve(self, handlers: Handlers) -> None:
        hands = Hands(self._core, handlers, self._share, lease_seconds=self._lease_seconds)
        failures = 0
        try:
            while True:
                await hands.room()
                try:
                    await hands.claim(WAIT_SECONDS)
                except (Unreachable, ApiError) as error:
                    if isinstance(error, ApiError) and not error.passing and error.code != UNREGISTERED:
                        raise
                    failures += 1
                    logger.warning("cannot claim: %s", error)
                    await asyncio.sleep(full_jitter_seconds(self._core.clock, failures))
                else:
                    failures = 0
        finally:
            await hands.stop()

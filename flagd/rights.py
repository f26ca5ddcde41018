"""An open stream ends with the right to read it, a token's or another: within a second, wherever the stream goes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from flagd.broadcast import Subscription
from runtime.clock import Clock
from runtime.errors import Unavailable
from runtime.problem import Problem

REVOKED_SECONDS = 0.5
"""How often the rights of open streams are looked at: a revocation holds within a second."""

log = logging.getLogger("rescind.flagd.stream")


class Rights:
    """The open streams by what their right to be read hangs on, looked at once per right and not per stream.

    `check` raises a 401 `Problem` for a right that is gone.
    """

    def __init__(self, check: Callable[[str], Awaitable[object]], clock: Clock) -> None:
        self._check = check
        self._clock = clock
        self._open: dict[str, set[Subscription]] = {}
        self._watching: asyncio.Task[None] | None = None

    def watch(self, right: str, subscription: Subscription) -> None:
        """Close it when the right is gone; to be given back with `unwatch`."""
        self._open.setdefault(right, set()).add(subscription)
        if self._watching is None:
            self._watching = asyncio.create_task(self._close_revoked(), name="flagd.stream.revoked")

    def unwatch(self, right: str, subscription: Subscription) -> None:
        """It has ended."""
        subscriptions = self._open.get(right, set())
        subscriptions.discard(subscription)
        if not subscriptions:
            self._open.pop(right, None)

    async def _close_revoked(self) -> None:
        """For as long as streams are open."""
        try:
            while self._open:
                await self._clock.sleep(REVOKED_SECONDS)
                for right in list(self._open):
                    await self._close_if_revoked(right)
        finally:
            self._watching = None

    async def _close_if_revoked(self, right: str) -> None:
        try:
            await self._check(right)
        except Problem as problem:
            if problem.status == 401:
                for subscription in self._open.pop(right, set()):
                    subscription.close()
        except Unavailable as error:  # whether it is revoked cannot be told now: a later look will
            log.debug("open streams: %s", error)

"""Open streams end when the token that opened them is revoked: within a second, at one look per token, not per stream."""

from __future__ import annotations

import asyncio
import logging

from flagd.broadcast import Subscription
from runtime.clock import Clock
from runtime.errors import Unavailable
from runtime.problem import Problem
from runtime.verifier import Verifier

REVOKED_SECONDS = 0.5
"""How often the tokens of open streams are looked at: a revocation holds within a second."""

log = logging.getLogger("rescind.flagd.stream")


class RevocationWatch:
    """The subscriptions of every token that has some."""

    def __init__(self, verifier: Verifier, clock: Clock | None = None) -> None:
        self._verifier = verifier
        self._clock = clock or Clock()
        self._open: dict[str, set[Subscription]] = {}
        self._watching: asyncio.Task[None] | None = None

    def enter(self, token: str, subscription: Subscription) -> None:
        """Close the subscription once its token is no longer good."""
        self._open.setdefault(token, set()).add(subscription)
        if self._watching is None:
            self._watching = asyncio.create_task(self._close_revoked(), name="flagd.stream.revoked")

    def leave(self, token: str, subscription: Subscription) -> None:
        """It has ended."""
        subscriptions = self._open.get(token, set())
        subscriptions.discard(subscription)
        if not subscriptions:
            self._open.pop(token, None)

    async def _close_revoked(self) -> None:
        """For as long as streams are open."""
        try:
            while self._open:
                await self._clock.sleep(REVOKED_SECONDS)
                for token in list(self._open):
                    await self._close_if_revoked(token)
        finally:
            self._watching = None

    async def _close_if_revoked(self, token: str) -> None:
        try:
            await self._verifier.verify(token)
        except Problem as problem:
            if problem.status == 401:
                for subscription in self._open.pop(token, set()):
                    subscription.close()
        except Unavailable as error:  # whether it is revoked cannot be told now: a later look will
            log.debug("open streams: %s", error)

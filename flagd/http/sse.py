"""What the streams of this wing share: how one is written to its end, and that it ends with the right to read it.

Server-sent events: WHATWG HTML, section 9.2.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from flagd.broadcast import Event, Subscription
from flagd.http.gate import Header, Receive, Send
from runtime.clock import Clock
from runtime.errors import Unavailable
from runtime.problem import Problem

REVOKED_SECONDS = 0.5
"""How often the rights of open streams are looked at: a revocation holds within a second."""
HEADERS: list[Header] = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]

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


async def pour(subscription: Subscription, first: bytes, frame_of: Callable[[Event], bytes | None], send: Send) -> None:
    """Everything a stream is sent, until it ends; one that is too slow to take it is cut off where it stands."""
    writer = asyncio.current_task()
    assert writer is not None
    subscription.on_slow = writer.cancel
    try:
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": first, "more_body": True})
        async for event in subscription:
            frame = frame_of(event)
            if frame is not None:
                await send({"type": "http.response.body", "body": frame, "more_body": True})
    except asyncio.CancelledError:
        if not subscription.was_slow:
            raise
        writer.uncancel()
    else:
        await send({"type": "http.response.body", "body": b""})


async def until_gone(receive: Receive, subscription: Subscription) -> None:
    """Close the subscription when its reader has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
    subscription.close()

"""The open streams of a listener: bounded in number, cut off where a reader is too slow, ended with an error at a stop.

A stream that ends well is one that released clients do not open again, so none of ours does: whatever the reason, they get
a status that makes them come back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from grpc import StatusCode

from flagd.broadcast import Event, Subscription
from flagd.grpc.gate import Admitted, Context, Refusal
from flagd.rights import Rights

STREAMS_MAX = 1_000


class Feed(Protocol):
    """What one stream is sent: encoded messages."""

    def first(self) -> Iterable[bytes]:
        """Before anything happens."""

    def following(self, event: Event) -> Iterable[bytes]:
        """After an event of the replica."""


class Streams:
    """Every stream of one listener."""

    def __init__(self, rights: Rights) -> None:
        self._rights = rights
        self._open: set[Subscription] = set()
        self._is_ending = False

    def __len__(self) -> int:
        return len(self._open)

    def end(self) -> None:
        """No more streams, and the end of those that are open."""
        self._is_ending = True
        for subscription in self._open:
            subscription.close()

    async def serve(self, admitted: Admitted, subscription: Subscription, feed: Feed, context: Context) -> None:
        """Send what the feed gives until the client leaves. Always ends by an exception: `Refusal` says why."""
        try:
            self._enter(admitted, subscription)
            await _send(subscription, feed, context)
        finally:
            self._open.discard(subscription)
            admitted.replica.leave(subscription)
            if admitted.token is not None:
                self._rights.unwatch(admitted.token, subscription)
        raise Refusal(StatusCode.UNAVAILABLE, "this stream has ended: open another")

    def _enter(self, admitted: Admitted, subscription: Subscription) -> None:
        if self._is_ending:
            raise Refusal(StatusCode.UNAVAILABLE, "this server stops: try another")
        if len(self._open) >= STREAMS_MAX:
            raise Refusal(StatusCode.RESOURCE_EXHAUSTED, f"{STREAMS_MAX} streams are open here: try another server")
        self._open.add(subscription)
        if admitted.token is not None:
            self._rights.watch(admitted.token, subscription)


async def _send(subscription: Subscription, feed: Feed, context: Context) -> None:
    writer = asyncio.current_task()
    assert writer is not None
    subscription.on_slow = writer.cancel
    try:
        for message in feed.first():
            await context.write(message)
        async for event in subscription:
            for message in feed.following(event):
                await context.write(message)
    except asyncio.CancelledError:
        if not subscription.was_slow:
            raise
        writer.uncancel()
        raise Refusal(StatusCode.RESOURCE_EXHAUSTED, "too slow a reader: open another stream") from None

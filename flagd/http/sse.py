"""How this wing's streams over HTTP are written to their end. Server-sent events: WHATWG HTML, section 9.2."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from flagd.broadcast import Event, Subscription
from flagd.http.gate import Header, Receive, Send

HEADERS: list[Header] = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


async def pour(
    subscription: Subscription, first: bytes, frame_of: Callable[[Event], bytes | None], send: Send, *more: Header
) -> None:
    """Everything a stream is sent, until it ends; one that is too slow to take it is cut off where it stands."""
    writer = asyncio.current_task()
    assert writer is not None
    subscription.on_slow = writer.cancel
    try:
        await send({"type": "http.response.start", "status": 200, "headers": [*HEADERS, *more]})
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

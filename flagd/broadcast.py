"""One event to many readers: encoded once, and every subscriber gets the very same bytes.

A subscriber has a bounded queue. One that does not keep up is let go: it comes back with the revision it has and resumes,
which costs less than a server that remembers for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Literal, Self

from msgspec import Struct
from rescind import wire

QUEUE_MAX = 64
AT_ONCE_MAX = 64
"""So many subscribers are woken in one go; then whatever else the loop has to do has its turn."""
KILL_AT_ONCE_MAX = 2_048
"""The same for a kill, which goes first: the acknowledgements of those who have it would come between it and the others."""

Kind = Literal["snapshot", "change", "heartbeat"]


class Event(Struct, frozen=True, kw_only=True):
    """What goes to subscribers: framed for SSE, with the revision it leads to and the one it follows."""

    kind: Kind
    revision: wire.Revision
    previous: wire.Revision | None = None
    """Of a change: it may only be given to one who has exactly this."""
    frame: bytes
    is_kill: bool = False


def sse(
    kind: Kind, revision: wire.Revision, data: bytes, previous: wire.Revision | None = None, *, is_kill: bool = False
) -> Event:
    """The event with its frame as server-sent events want it (WHATWG HTML, section 9.2). `data` is JSON on one line."""
    head = f"event: {kind}\nid: {revision}\ndata: ".encode()
    return Event(kind=kind, revision=revision, previous=previous, frame=head + data + b"\n\n", is_kill=is_kill)


class Subscription:
    """An asynchronous iterator over what is broadcast from now on. It ends when closed, or when its reader was too slow."""

    def __init__(self) -> None:
        self._queue: deque[Event] = deque()
        self._filled = asyncio.Event()
        self.is_closed = False
        self.was_slow = False
        self.on_slow: Callable[[], object] | None = None
        """Called where the reader is too slow: it may hang in a write that nobody takes."""

    def offer(self, event: Event) -> bool:
        """Whether it still takes part. One whose queue is full is closed, and what it had not read is dropped."""
        if self.is_closed:
            return False
        if len(self._queue) >= QUEUE_MAX:
            self.was_slow = True
            self.close()
            if self.on_slow is not None:
                self.on_slow()
            return False
        self._queue.append(event)
        self._filled.set()
        return True

    def close(self) -> None:
        """End the iteration at once."""
        self.is_closed = True
        self._queue.clear()
        self._filled.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._queue:
            if self.is_closed:
                raise StopAsyncIteration
            self._filled.clear()
            await self._filled.wait()
        return self._queue.popleft()


class Broadcast:
    """The subscribers of one environment."""

    def __init__(self) -> None:
        self._subscriptions: dict[Subscription, None] = {}
        self._under_way: deque[tuple[Event, Iterator[Subscription]]] = deque()
        """Events, in order, and who has not got each of them yet."""

    def __len__(self) -> int:
        return len(self._subscriptions)

    def subscribe(self) -> Subscription:
        """From now on; to be given back with `leave`."""
        subscription = Subscription()
        self._subscriptions[subscription] = None
        return subscription

    def leave(self, subscription: Subscription) -> None:
        """No more for this one."""
        subscription.close()
        self._subscriptions.pop(subscription, None)

    def send(self, event: Event) -> None:
        """To all, without waiting for any of them, and without holding up the loop for as long as thousands take.

        A kill hurries on what is under way before it.
        """
        self._under_way.append((event, iter(list(self._subscriptions))))
        if len(self._under_way) == 1:
            self._go_on()

    def close(self) -> None:
        """End them all."""
        for subscription in self._subscriptions:
            subscription.close()
        self._subscriptions.clear()
        self._under_way.clear()

    def _go_on(self) -> None:
        if not self._under_way:  # closed meanwhile
            return
        event, left = self._under_way[0]
        at_once = KILL_AT_ONCE_MAX if any(one.is_kill for one, _ in self._under_way) else AT_ONCE_MAX
        some = list(islice(left, at_once))
        for subscription in some:
            if not subscription.offer(event):
                self._subscriptions.pop(subscription, None)
        if len(some) < at_once:
            self._under_way.popleft()
        if self._under_way:
            asyncio.get_running_loop().call_soon(self._go_on)

"""Many calls, few requests, no timer: a batch leaves as soon as there is something and a place in flight.

Alone, a call leaves at once; under load, what gathered while the batches in flight were under way leaves together. A call is
a `Ticket`: whoever awaits it may be cancelled, and another may take over the wait for what is under way.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, TypeVar

from rescind.errors import ApiError, ClientClosed, Unreachable

Item = TypeVar("Item")
Result = TypeVar("Result")

BATCH_MAX = 256
BODY_BYTES_MAX = 4 * 1024 * 1024
"""Half of what the server takes in one request."""
SHARE_MIN = 64
"""A batch is split between the places that are free, unless the parts would be smaller than this."""
IN_FLIGHT_MAX = 2
WAITING_MAX = 20_000
SWEEP_SECONDS = 0.1


class Ticket(Generic[Item, Result]):
    """One item under way; `await ticket.future` gives its result, or raises what its request raised."""

    __slots__ = ("_error", "_result", "future", "is_answered", "item", "size", "until")

    def __init__(self, item: Item, size: int, future: asyncio.Future[Result], until: float) -> None:
        self.item = item
        self.size = size
        self.future = future
        self.until = until
        self.is_answered = False
        self._result: Result
        self._error: Exception | None = None

    def answer(self, result: Result) -> None:
        """The result has come."""
        if self.is_answered:  # too late: its time was over
            return
        self._result = result
        self.is_answered = True
        if not self.future.done():
            self.future.set_result(result)

    def fail(self, error: Exception) -> None:
        """No result will come."""
        if self.is_answered:
            return
        self._error = error
        self.is_answered = True
        if not self.future.done():
            self.future.set_exception(error)

    def take_over(self) -> None:
        """Let another wait, where the one who did was cancelled: the item is under way all the same."""
        self.future = self.future.get_loop().create_future()
        if self._error is not None:
            self.future.set_exception(self._error)
        elif self.is_answered:
            self.future.set_result(self._result)


class Batcher(Generic[Item, Result]):
    """`submit` one item and await its ticket; `send` takes a list and answers one result each, in order.

    A batch is bounded by count and by `size_of` its items, in bytes. One that is refused for what is in it goes again in
    halves: the refusal of one item is not its neighbours'.
    """

    def __init__(self, send: Callable[[list[Item]], Awaitable[list[Result]]], size_of: Callable[[Item], int]) -> None:
        self._send = send
        self._size_of = size_of
        self._waiting: deque[Ticket[Item, Result]] = deque()
        self._in_flight: dict[asyncio.Task[None], list[Ticket[Item, Result]]] = {}
        self._scheduled = False
        self._sweeping: asyncio.TimerHandle | None = None
        self._closed = False

    def submit(self, item: Item, seconds: float = float("inf")) -> Ticket[Item, Result]:
        """Send `item`; its ticket fails with `TimeoutError` after `seconds`.

        Raises `ClientClosed`, `Unreachable` when too many wait, and what `size_of` raises for an item that cannot be written:
        that is the business of its caller, and of nobody in the same batch.
        """
        if self._closed:
            raise ClientClosed("the client was closed")
        if len(self._waiting) >= WAITING_MAX:
            raise Unreachable(f"{WAITING_MAX} are waiting already")
        loop = asyncio.get_running_loop()
        ticket: Ticket[Item, Result] = Ticket(item, self._size_of(item), loop.create_future(), loop.time() + seconds)
        self._waiting.append(ticket)
        if not self._scheduled and len(self._in_flight) < IN_FLIGHT_MAX:
            self._scheduled = True
            loop.call_soon(self._leave)
        if self._sweeping is None:
            self._sweeping = loop.call_later(SWEEP_SECONDS, self._sweep)
        return ticket

    def withdraw(self, ticket: Ticket[Item, Result]) -> bool:
        """Take back what has not left yet. Whether it had not."""
        try:
            self._waiting.remove(ticket)
        except ValueError:
            return False
        return True

    async def close(self) -> None:
        """Send what waits, then refuse."""
        self._closed = True
        while self._in_flight or self._waiting:
            self._leave()
            await asyncio.gather(*self._in_flight, return_exceptions=True)
            await asyncio.sleep(0)  # from Python 3.12 on, what is done is gathered at once: `_landed` still has to run

    def abandon(self) -> None:
        """Give up: whoever still waits gets `ClientClosed`."""
        self._closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        for task in self._in_flight:
            task.cancel()
        fail_all(self._waiting, ClientClosed("the client was closed"))
        self._waiting.clear()

    def _leave(self) -> None:
        self._scheduled = False
        while self._waiting and (places := IN_FLIGHT_MAX - len(self._in_flight)) > 0:
            share = -(-len(self._waiting) // places)
            size = min(len(self._waiting), BATCH_MAX, max(SHARE_MIN, share))
            batch = self._batch(size)
            task = asyncio.ensure_future(self._carry(batch))
            self._in_flight[task] = batch
            task.add_done_callback(self._landed)

    def _batch(self, size: int) -> list[Ticket[Item, Result]]:
        batch = [self._waiting.popleft()]
        total = batch[0].size
        while len(batch) < size and (total := total + self._waiting[0].size) <= BODY_BYTES_MAX:
            batch.append(self._waiting.popleft())
        return batch

    def _landed(self, task: asyncio.Task[None]) -> None:
        del self._in_flight[task]
        if self._waiting and not task.cancelled():
            self._leave()

    def _sweep(self) -> None:
        """Tell those whose time is over; one timer for all costs less than one each."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        waiting = len(self._waiting)
        for tickets in (self._waiting, *self._in_flight.values()):
            fail_all([ticket for ticket in tickets if ticket.until <= now], TimeoutError())
        for _ in range(waiting):
            if not (ticket := self._waiting.popleft()).is_answered:
                self._waiting.append(ticket)
        is_busy = self._waiting or self._in_flight
        self._sweeping = loop.call_later(SWEEP_SECONDS, self._sweep) if is_busy else None

    async def _carry(self, batch: list[Ticket[Item, Result]]) -> None:
        try:
            results = await self._send([ticket.item for ticket in batch])
            if len(results) != len(batch):
                raise Unreachable(f"{len(results)} results for {len(batch)} items")
        except asyncio.CancelledError:
            fail_all(batch, ClientClosed("the client was closed"))
            raise
        except Exception as error:  # a request's failure belongs to those who wait for it
            if isinstance(error, ApiError) and error.blames_body and len(batch) > 1:
                half = len(batch) // 2
                await self._carry(batch[:half])
                await self._carry(batch[half:])
            else:
                fail_all(batch, error)
            return
        for ticket, result in zip(batch, results, strict=True):
            ticket.answer(result)


def fail_all(tickets: Iterable[Ticket[Item, Result]], error: Exception) -> None:
    """Hand `error` to everyone who still waits."""
    for ticket in tickets:
        ticket.fail(error)

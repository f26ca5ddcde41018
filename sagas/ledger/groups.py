"""Group commit: what queued while the last group was written is written as the next one, with no timer.

One caller alone waits for nobody; many share a transaction. A failure of the database reaches every caller of the group and
says whether anything may stand (hazard 6); a fault of one item never reaches its neighbours.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

import asyncpg
from asyncpg import Connection

from runtime.errors import OutcomeUnknown, Unavailable
from runtime.postgres import AWAY, UNUSABLE
from runtime.telemetry import counter

Item = TypeVar("Item")
Answer = TypeVar("Answer")

GROUP_MAX = 512
SHARE_MIN = 32
QUEUE_MAX = 50_000
TRIES_MAX = 100
FLUSH_SECONDS = 30.0
CLOSE_SECONDS = 2.0


class Moved(Exception):  # noqa: N818 - what happened, not what went wrong
    """What a flush looked at without locks is not what it found under them: nothing was written, and it looks again."""


AGAIN = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.LockNotAvailableError, Moved)
SHORT = (asyncpg.InsufficientResourcesError, asyncpg.PostgresSystemError, asyncpg.OperatorInterventionError)
"""The database's own trouble, no item's."""
LOST = (*AWAY, asyncpg.InterfaceError, ConnectionError)
failures = counter("rescind.ledger_failures")
log = logging.getLogger("rescind.ledger")


class Deferred:
    """A flush's answer for an item that it has not decided: it joins a later group."""


DEFERRED = Deferred()
Flush = Callable[[Connection, Sequence[Item]], Awaitable[Sequence[Answer | Deferred]]]


class _Call(Generic[Answer]):
    """One caller's items, answered together."""

    __slots__ = ("answers", "future", "left")

    def __init__(self, count: int, future: asyncio.Future[list[Answer]]) -> None:
        self.answers: list[Any] = [None] * count
        self.left = count
        self.future = future

    def answer(self, index: int, answer: Answer) -> None:
        self.answers[index] = answer
        self.left -= 1
        if not self.left and not self.future.done():
            self.future.set_result(self.answers)

    def fail(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class _Entry(Generic[Item, Answer]):
    __slots__ = ("alone", "call", "index", "item", "key", "tries")

    def __init__(self, item: Item, key: Hashable, call: _Call[Answer], index: int) -> None:
        self.item = item
        self.key = key
        self.call = call
        self.index = index
        self.tries = 0
        self.alone = False


class Groups(Generic[Item, Answer]):
    """A queue and its writers, each on a connection of its own.

    Items with one key never share a group nor run in two at once, and keep their order.
    """

    def __init__(
        self,
        name: str,
        open_connection: Callable[[], Awaitable[Connection]],
        flush: Flush[Item, Answer],
        key_of: Callable[[Item], Hashable],
        *,
        size_max: int = GROUP_MAX,
        fault: Callable[[Item, Exception], Answer] | None = None,
    ) -> None:
        """`fault` says what an item is answered that cannot be written even alone; without it, its whole call fails."""
        self._name = name
        self._fault = fault
        self._open = open_connection
        self._flush = flush
        self._key_of = key_of
        self._size_max = size_max
        self._queue: deque[_Entry[Item, Answer]] = deque()
        self._busy: set[Hashable] = set()
        self._bell = asyncio.Event()
        self._writers: list[asyncio.Task[None]] = []
        self._stopping = False
        self._idle = 0

    def start(self, writers: int) -> None:
        """Start that many writers."""
        self._stopping = False
        self._writers = [asyncio.create_task(self._write(), name=f"{self._name}-{number}") for number in range(writers)]

    async def stop(self) -> None:
        """Write what is queued if the database takes it within a moment, then end; the rest is told to come again."""
        self._stopping = True
        self._bell.set()
        if self._writers:
            await asyncio.wait(self._writers, timeout=CLOSE_SECONDS)
        for writer in self._writers:
            writer.cancel()
        await asyncio.gather(*self._writers, return_exceptions=True)
        self._writers = []
        while self._queue:
            self._queue.popleft().call.fail(Unavailable("the ledger", "it is stopping"))

    async def submit(self, items: Sequence[Item]) -> list[Answer]:
        """One answer per item, in order. Raises `Unavailable` (nothing was done, come again) or `OutcomeUnknown`."""
        if not items:
            return []
        if self._stopping or not self._writers:
            raise Unavailable("the ledger", "it is not running")
        if len(self._queue) + len(items) > QUEUE_MAX:
            raise Unavailable("the ledger", "too many effects are waiting")
        call: _Call[Answer] = _Call(len(items), asyncio.get_running_loop().create_future())
        for index, item in enumerate(items):
            self._queue.append(_Entry(item, self._key_of(item), call, index))
        self._bell.set()
        return await call.future

    async def _write(self) -> None:
        connection: Connection | None = None
        try:
            while True:
                entries = self._take()
                if not entries:
                    if self._stopping and not self._queue:
                        return
                    self._bell.clear()
                    self._idle += 1
                    await self._bell.wait()
                    self._idle -= 1
                    continue
                try:
                    connection = await self._write_group(connection, entries)
                finally:
                    self._busy.difference_update(entry.key for entry in entries)
                    self._bell.set()
        finally:
            if connection is not None:
                await _close(connection)

    def _take(self) -> list[_Entry[Item, Answer]]:
        """The next group: what is queued and whose key is free, up to the limit, shared with the writers that are idle."""
        share = -(-len(self._queue) // max(1, self._idle + 1))
        size_max = min(self._size_max, max(SHARE_MIN, share))
        taken: list[_Entry[Item, Answer]] = []
        passed: list[_Entry[Item, Answer]] = []
        passed_keys: set[Hashable] = set()
        looked = 0
        while self._queue and len(taken) < size_max and looked < 4 * self._size_max:
            looked += 1
            entry = self._queue.popleft()
            if entry.call.future.done():
                continue
            if entry.key in self._busy or entry.key in passed_keys or (entry.alone and taken):
                passed.append(entry)
                passed_keys.add(entry.key)
                continue
            self._busy.add(entry.key)
            taken.append(entry)
            if entry.alone:
                break
        self._queue.extendleft(reversed(passed))
        return taken

    async def _write_group(self, connection: Connection | None, entries: list[_Entry[Item, Answer]]) -> Connection | None:
        """Flush one group; the connection for the next one, or null where its state is not known."""
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                if connection is None or connection.is_closed():
                    connection = await self._open()
                answers = await self._flush(connection, [entry.item for entry in entries])
        except AGAIN:
            self._requeue(entries)
        except (Unavailable, OutcomeUnknown) as error:
            _fail(entries, error)
            await _drop(connection)
            return None
        except LOST as error:  # outside a transaction, which tells its own: nothing was done
            _fail(entries, Unavailable("PostgreSQL", str(error)))
            await _drop(connection)
            return None
        except asyncpg.InternalClientError as error:  # a connection that was cut while it rested; where exactly is not told
            _fail(entries, OutcomeUnknown(str(error)))
            await _drop(connection)
            return None
        except TimeoutError as error:
            _fail(entries, OutcomeUnknown(f"no answer from PostgreSQL in {FLUSH_SECONDS} s: {error}"))
            await _drop(connection)
            return None
        except asyncio.CancelledError:
            _fail(entries, OutcomeUnknown("the ledger stopped"))
            await _drop(connection)
            raise
        except SHORT as error:
            _fail(entries, Unavailable("PostgreSQL", str(error)))
            await _drop(connection)
            return None
        except Exception as error:
            failures.add(1, {"type": type(error).__name__})
            log.warning("a group of %d failed: %r", len(entries), error, exc_info=len(entries) == 1)
            self._isolate(entries, error)
            await _drop(connection)
            return None
        else:
            self._answer(entries, answers)
        return connection

    def _answer(self, entries: list[_Entry[Item, Answer]], answers: Sequence[Answer | Deferred]) -> None:
        deferred = []
        for entry, answer in zip(entries, answers, strict=True):
            if isinstance(answer, Deferred):
                deferred.append(entry)
            else:
                entry.call.answer(entry.index, answer)
        self._requeue(deferred)

    def _requeue(self, entries: list[_Entry[Item, Answer]]) -> None:
        for entry in reversed(entries):
            entry.tries += 1
            if entry.tries > TRIES_MAX:
                entry.call.fail(Unavailable("the ledger", "the effect could not be decided in time"))
            else:
                self._queue.appendleft(entry)

    def _isolate(self, entries: list[_Entry[Item, Answer]], error: Exception) -> None:
        """An error that is one item's must not be its neighbours': each is written alone, and answered alone for its error."""
        if len(entries) == 1:
            entry = entries[0]
            if self._fault is None:
                entry.call.fail(error)
            else:
                entry.call.answer(entry.index, self._fault(entry.item, error))
            return
        for entry in entries:
            entry.alone = True
        self._requeue(entries)


def _fail(entries: Sequence[_Entry[Any, Any]], error: BaseException) -> None:
    for entry in entries:
        entry.call.fail(error)


async def _drop(connection: Connection | None) -> None:
    if connection is not None and not connection.is_closed():
        connection.terminate()


async def _close(connection: Connection) -> None:
    with contextlib.suppress(TimeoutError, asyncpg.PostgresError, *UNUSABLE):
        await connection.close(timeout=CLOSE_SECONDS)

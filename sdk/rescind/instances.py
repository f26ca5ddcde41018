"""Saga instances of this client: started in batches, and awaited together, with no timer (P18).

To start one is idempotent by its id, so a start whose answer was lost is repeated. All that wait for instances of one saga
share a long poll; an instance that is new to it is asked for at once by a shorter one, and then joins it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import islice

import msgspec

from rescind.batcher import Batcher
from rescind.clock import Clock, full_jitter_seconds
from rescind.errors import ApiError, ClientClosed, SagaUnknown, Unreachable
from rescind.transport import AsyncApi
from rescind.wire import (
    InstanceAwait,
    InstanceAwaitAnswer,
    InstanceStart,
    InstanceStartAnswer,
    InstanceStarted,
    InstanceStartRequest,
    InstanceState,
)

START_SECONDS = 10.0
REQUEST_SECONDS = 5.0
RETRY_BASE_SECONDS = 0.1
RETRY_CAP_SECONDS = 1.0
POLLS_MAX = 4
IDS_MAX = 256
"""Asked for in one poll; more take turns."""
LONG_SECONDS = 10.0
SHORT_SECONDS = 0.5
"""What a poll beside the long one waits, before its instances join that."""


class Instances:
    """Of one client, by saga."""

    def __init__(self, api: AsyncApi, clock: Clock) -> None:
        self._api = api
        self._clock = clock
        self._starts: dict[str, Batcher[InstanceStart, InstanceStarted]] = {}
        self._watches: dict[str, Watch] = {}

    async def start(self, saga: str, start: InstanceStart) -> InstanceStarted:
        """The server's answer. Raises `Unreachable` after ten seconds without one, `ApiError` for a refusal as a whole."""
        batcher = self._starts.get(saga)
        if batcher is None:
            batcher = self._starts[saga] = Batcher(lambda starts: self._send(saga, starts), size_of)
        deadline = self._clock.monotonic() + START_SECONDS
        failures = 0
        while True:
            try:
                return await batcher.submit(start, deadline - self._clock.monotonic()).future
            except TimeoutError:
                raise Unreachable(f"no answer within {START_SECONDS:.0f} s to the start of {start.id!r}") from None
            except (Unreachable, ApiError) as error:
                if isinstance(error, ApiError) and not error.passing:
                    raise
                failures += 1
                wait = full_jitter_seconds(self._clock, failures, base=RETRY_BASE_SECONDS, cap=RETRY_CAP_SECONDS)
                if self._clock.monotonic() + wait >= deadline:
                    raise
            await asyncio.sleep(wait)

    async def ended(self, saga: str, instance: str) -> InstanceState:
        """Where it stands once it has ended, or waits for a person. Raises `SagaUnknown`, `ApiError` and `ClientClosed`."""
        watch = self._watches.get(saga)
        if watch is None:
            watch = self._watches[saga] = Watch(self._api, self._clock, saga)
        return await watch.ended(instance)

    def tasks(self) -> list[asyncio.Task[None]]:
        """The polls that are under way."""
        return [task for watch in self._watches.values() for task in watch.polls]

    def abandon(self) -> None:
        """Whoever still waits gets `ClientClosed`."""
        for batcher in self._starts.values():
            batcher.abandon()
        for watch in self._watches.values():
            watch.abandon()

    async def _send(self, saga: str, starts: list[InstanceStart]) -> list[InstanceStarted]:
        path = self._api.within(f"/sagas/{saga}/instances:start")
        body = InstanceStartRequest(instances=starts)
        return (await self._api.repeatable(path, body, InstanceStartAnswer, timeout_seconds=REQUEST_SECONDS)).results


class Watch:
    """Who waits for which instances of one saga. Every one that is waited for is in a poll, or new."""

    def __init__(self, api: AsyncApi, clock: Clock, saga: str) -> None:
        self._api = api
        self._clock = clock
        self._saga = saga
        self._waiting: dict[str, set[asyncio.Future[InstanceState]]] = {}
        self._new: dict[str, None] = {}
        self.polls: set[asyncio.Task[None]] = set()
        self._is_long = False
        self._failures = 0
        self._scheduled = False
        self._closed = False

    async def ended(self, instance: str) -> InstanceState:
        """Where it stands once it has ended, or waits for a person."""
        if self._closed:
            raise ClientClosed("the client was closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[InstanceState] = loop.create_future()
        if instance not in self._waiting:
            self._waiting[instance] = set()
            self._ask_for([instance])
        self._waiting[instance].add(future)
        try:
            return await future
        finally:
            self._waiting.get(instance, set()).discard(future)

    def abandon(self) -> None:
        """Whoever still waits gets `ClientClosed`."""
        self._closed = True
        for instance in list(self._waiting):
            self._fail(instance, ClientClosed("the client was closed"))
        for poll in self.polls:
            poll.cancel()

    def _ask_for(self, instances: Iterable[str]) -> None:
        self._new.update(dict.fromkeys(instances))
        if not self._scheduled and self._new and not self._closed:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._leave)

    def _leave(self) -> None:
        self._scheduled = False
        while self._new and len(self.polls) < POLLS_MAX and not self._closed:
            asked = list(islice(self._new, IDS_MAX))
            for instance in asked:
                del self._new[instance]
            is_long, self._is_long = not self._is_long, True
            poll = asyncio.ensure_future(self._poll(asked, is_long))
            self.polls.add(poll)
            poll.add_done_callback(self._landed)

    def _landed(self, poll: asyncio.Task[None]) -> None:
        self.polls.discard(poll)
        self._ask_for(())

    async def _poll(self, asked: list[str], is_long: bool) -> None:
        try:
            await self._look(asked, LONG_SECONDS if is_long else SHORT_SECONDS)
            self._failures = 0
        except (Unreachable, ApiError) as error:
            if isinstance(error, ApiError) and not error.passing:
                for instance in asked:
                    self._fail(instance, error)
            self._failures += 1
            await asyncio.sleep(full_jitter_seconds(self._clock, self._failures))
        finally:
            self._is_long = self._is_long and not is_long
            self._ask_for(self._still(asked))

    async def _look(self, asked: list[str], wait_seconds: float) -> None:
        path = self._api.within(f"/sagas/{self._saga}/instances:await")
        body = InstanceAwait(ids=asked, wait_seconds=wait_seconds)
        timeout_seconds = wait_seconds + REQUEST_SECONDS
        answer = await self._api.repeatable(path, body, InstanceAwaitAnswer, timeout_seconds=timeout_seconds)
        for state in answer.ended:
            for future in self._waiting.pop(state.id, ()):
                if not future.done():
                    future.set_result(state)
        for instance in answer.unknown:
            self._fail(instance, SagaUnknown("there is no such instance", saga=self._saga, id=instance))

    def _still(self, asked: list[str]) -> list[str]:
        """Those of them that someone waits for; the others are forgotten."""
        for instance in asked:
            if not self._waiting.get(instance, True):
                del self._waiting[instance]
        return [instance for instance in asked if instance in self._waiting]

    def _fail(self, instance: str, error: Exception) -> None:
        for future in self._waiting.pop(instance, ()):
            if not future.done():
                future.set_exception(error)


def size_of(start: InstanceStart) -> int:
    """Its bytes in a request."""
    return len(msgspec.json.encode(start))

"""The faces of the client over one core: `Client` for threads, here, and `AsyncClient` for the caller's event loop.

Neither does I/O when it is made, needs an event loop, or starts a thread; both start at first use, at `wait_ready` or when
entered, and end in two seconds. A process that forks may use both in parent and child.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar, Unpack

from rescind import forks
from rescind.asyncclient import AsyncClient
from rescind.core import Core
from rescind.effects import EffectContext
from rescind.errors import ClientClosed, ConfigurationError
from rescind.evaluations import Evaluations, effect_context
from rescind.handles import Handle, Order, Results, begin
from rescind.hands import LEASE_SECONDS
from rescind.loops import end_all, result_here, result_of
from rescind.options import CLOSE_SECONDS, READY_SECONDS, EffectOptions, InstanceOptions, Options
from rescind.running import run
from rescind.saga import Saga
from rescind.settings import settings_from
from rescind.worker import Worker

__all__ = ["AsyncClient", "Client"]

T = TypeVar("T")

READY_SLACK_SECONDS = 1.0


class Client(Evaluations):
    """The synchronous client: one daemon thread keeps it current."""

    def __init__(self, *, sagas: Sequence[Saga] = (), **options: Unpack[Options]) -> None:
        super().__init__(Core(settings_from(**options), sagas=sagas))
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leaving: asyncio.Future[None] | None = None

    def effect(
        self, kind: str, *, flag: str, key: str, payload: Mapping[str, Any], **options: Unpack[EffectOptions]
    ) -> EffectContext:
        """An effect around a body: `with`, or `async with` in code that runs on a loop of its own."""
        return effect_context(self, kind, flag=flag, key=key, payload=payload, **options)

    def wait_ready(self, timeout_seconds: float = READY_SECONDS) -> bool:
        """Whether there is a snapshot, waiting for it at most this long. Never raises."""
        if self.core.closed:
            return self.core.current.snapshot is not None
        self.ensure_started()
        try:
            return self.block_on_core(self.core.wait_ready(timeout_seconds), timeout_seconds + READY_SLACK_SECONDS)
        except (TimeoutError, concurrent.futures.TimeoutError, ConfigurationError, ClientClosed):  # in, or behind, a callback
            return self.core.current.snapshot is not None

    def register(self, saga: Saga) -> bool:
        """Lay down a saga's definition; False where another meaning holds under its version. Raises `ApiError`."""
        return self.block_on_core(self.core.registration.register(saga))

    def work(self, *sagas: Saga, concurrency: int = 16, lease_seconds: float = LEASE_SECONDS) -> None:
        """Carry out the sagas' steps and compensations until interrupted; what has begun comes to its end first.

        Versions of one saga may be served together. When this process dies, others take its work over once `lease_seconds`
        have passed. Raises `ConfigurationError` where there is nothing to do, `ApiError`.
        """
        self.ensure_started()
        self.block_on_core(Worker(self.core, sagas, concurrency, lease_seconds).run())

    def start(
        self,
        saga: Saga,
        *,
        id: str,  # noqa: A002 - the wire's own word
        input: Mapping[str, Any],  # noqa: A002 - the wire's own word
        **options: Unpack[InstanceOptions],
    ) -> Handle:
        """Start an instance, durably; workers anywhere run it. Starting the same again changes nothing.

        Raises `SagaConflict`, `SagaKilled`, `SagaRefused`, `Unreachable` and `ApiError`.
        """
        order = Order(saga=saga, id=id, input=input, **options)
        self.ensure_started()
        self.block_on_core(begin(self.core, order, order.begun(self.core)))
        return Handle(self, saga.name, id)

    def result(self, saga: Saga | str, id: str, *, timeout_seconds: float | None = None) -> Results:  # noqa: A002
        """What each step of an instance gave, once it is done, whoever started it. Raises as `Handle.result`."""
        return Handle(self, saga if isinstance(saga, str) else saga.name, id).result(timeout_seconds)

    def run(
        self,
        saga: Saga,
        *,
        id: str,  # noqa: A002 - the wire's own word
        input: Mapping[str, Any],  # noqa: A002 - the wire's own word
        lease_seconds: float = LEASE_SECONDS,
        **options: Unpack[InstanceOptions],
    ) -> Results:
        """Run an instance in this process, as `AsyncClient.run`; synchronous steps in threads, others on the client's own."""
        order = Order(saga=saga, id=id, input=input, **options)
        self.ensure_started()
        return self.block_on_core(run(self.core, order, lease_seconds))

    def close(self, timeout_seconds: float = CLOSE_SECONDS) -> None:
        """Deliver what is under way, sign off, stop the thread. Bounded; the second call does nothing.

        Who waits for the client in another thread gets `ClientClosed`. In a callback, on the client's own, it returns at once.
        """
        with self._starting:
            thread, loop, self._thread, self._loop = self._thread, self._loop, None, None
        if thread is None or loop is None:
            self.core.closed = True
            return
        if threading.current_thread() is thread:
            self._leaving = asyncio.ensure_future(self.core.close(timeout_seconds), loop=loop)
            self._leaving.add_done_callback(lambda _: loop.stop())
            return
        until = time.monotonic() + timeout_seconds
        closing = asyncio.run_coroutine_threadsafe(self.core.close(timeout_seconds * 0.9), loop)
        try:
            closing.result(timeout_seconds)
        except concurrent.futures.TimeoutError:
            closing.cancel()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(max(0.0, until - time.monotonic()))

    def __enter__(self) -> Client:
        self.wait_ready()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def ensure_started(self) -> None:
        """Start the thread, once; in a child that nobody told of its fork, again."""
        if forks.page[0] != forks.OWN:
            forks.recover()
        if self._thread is None and not self.core.closed:
            with self._starting:
                if self._loop is None and not self.core.closed:
                    self.core.load()
                    loop = asyncio.new_event_loop()
                    self._loop = loop
                    self._thread = threading.Thread(target=self._run, args=(loop,), name="rescind", daemon=True)
                    self._thread.start()
                    self.is_pending = False

    def forked(self) -> None:
        """This is a child: the thread is not here. Where the parent had one, the child has its own at once."""
        thread, loop = self._thread, self._loop
        if loop is not None:
            forks.abandon(asyncio.all_tasks(loop))
            forks.inherited.append((thread, loop))
            if threading.current_thread() is thread:  # a callback forked
                loop.stop()
        self._starting, self._thread, self._loop = threading.Lock(), None, None
        self.is_pending = not self.core.closed
        self.core.forked()
        if thread is not None:
            with suppress(RuntimeError):  # no thread may start now: the first use will
                self.ensure_started()

    async def on_core(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the thread's loop, from another loop."""
        future = self._hand_over(work)
        return await (work if future is None else result_here(future))

    def block_on_core(self, work: Coroutine[Any, Any, T], timeout_seconds: float | None = None) -> T:
        """Run `work` on the thread's loop and wait for it."""
        if self._thread is not None and threading.current_thread() is self._thread:
            work.close()
            raise ConfigurationError("this would wait for the thread that it runs on: do it outside of the callback")
        future = self._hand_over(work)
        return asyncio.run(work) if future is None else result_of(future, timeout_seconds)

    def in_background(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run `work` on the thread's loop and do not wait."""
        self.ensure_started()
        with self._starting:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self.core.keep, work)
                return
        asyncio.run(work)

    def _hand_over(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T] | None:
        """`work`, begun on the thread's loop before that can stop; None once closed, when work only goes to disk."""
        self.ensure_started()
        with self._starting:
            return None if self._loop is None else asyncio.run_coroutine_threadsafe(work, self._loop)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        loop.call_soon(self.core.launch)
        try:
            loop.run_forever()
        finally:
            end_all(loop, self.core.api.close)

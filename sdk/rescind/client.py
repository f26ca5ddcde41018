"""The two faces of the client over one core: `Client` for threads, `AsyncClient` for the caller's event loop.

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
from pathlib import Path
from types import TracebackType
from typing import Any, TypedDict, TypeVar, Unpack

from rescind import forks
from rescind.core import Core
from rescind.effects import EffectContext
from rescind.effects import Saga as SagaArgument
from rescind.errors import ClientClosed, ConfigurationError
from rescind.evaluations import Evaluations, effect_context
from rescind.loops import end_all, end_on, result_here, result_of
from rescind.saga import Saga
from rescind.settings import settings_from
from rescind.threads import in_thread
from rescind.worker import Worker

T = TypeVar("T")

READY_SECONDS = 5.0
READY_SLACK_SECONDS = 1.0
CLOSE_SECONDS = 2.0


class Options(TypedDict, total=False):
    """How a client is set up; each falls back to its `RESCIND_*` variable."""

    url: str | None
    token: str | None
    environment: str | None
    """only with a token that is good for all environments"""
    service: str | None
    service_version: str | None
    instance: str | None
    state_dir: str | Path | None
    bootstrap: str | Path | Mapping[str, Any] | None
    """Flags for a first start without the server: a flagd document or a snapshot, or the path of one."""


class EffectOptions(TypedDict, total=False):
    """What an effect may say beside its kind, flag, key and payload."""

    saga: SagaArgument | None
    """(name, version, id), or `saga.instance(id)`"""
    step: str | None
    kind_version: str | None
    subject: str | None
    attributes: Mapping[str, Any] | None
    variant: str | None
    """left out: what this task's or request's own evaluation of the flag gave"""
    lease_seconds: float | None
    """left out: what the step's definition says, where its saga is registered with this client, else 30"""


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

    def work(self, saga: Saga, *, concurrency: int = 16) -> None:
        """Carry out the saga's compensations until interrupted; what has begun comes to its end first."""
        self.ensure_started()
        self.block_on_core(Worker(self.core, saga, concurrency).run())

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


class AsyncClient(Evaluations):
    """The asynchronous client: the same core, on the loop that first uses it."""

    def __init__(self, *, sagas: Sequence[Saga] = (), **options: Unpack[Options]) -> None:
        super().__init__(Core(settings_from(**options), sagas=sagas))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loaded = False

    def effect(
        self, kind: str, *, flag: str, key: str, payload: Mapping[str, Any], **options: Unpack[EffectOptions]
    ) -> EffectContext:
        """An effect around a body, for `async with`."""
        return effect_context(self, kind, flag=flag, key=key, payload=payload, **options)

    @property
    def home(self) -> asyncio.AbstractEventLoop | None:
        """The loop that it works on; None before its first use."""
        return self._loop

    async def start(self) -> None:
        """Read the last known snapshot and start following the server."""
        if not self._loaded and not self.core.closed:
            self._loaded = True
            await in_thread(self.core.load)
        self.ensure_started()

    async def wait_ready(self, timeout_seconds: float = READY_SECONDS) -> bool:
        """Whether there is a snapshot, waiting for it at most this long. Never raises."""
        await self.start()
        return await self.core.wait_ready(0 if self.core.closed else timeout_seconds)

    async def register(self, saga: Saga) -> bool:
        """Lay down a saga's definition; False where another meaning holds under its version. Raises `ApiError`."""
        return await self.on_core(self.core.registration.register(saga))

    async def work(self, saga: Saga, *, concurrency: int = 16) -> None:
        """Carry out the saga's compensations until cancelled; what has begun comes to its end first."""
        await self.on_core(Worker(self.core, saga, concurrency).run())

    async def close(self, timeout_seconds: float = CLOSE_SECONDS) -> None:
        """Deliver what is under way, sign off, stop. Bounded; the second call does nothing."""
        home = self._loop
        if home is None or home is asyncio.get_running_loop():
            await self.core.close(timeout_seconds)
        else:
            await end_on(home, self.core.close(timeout_seconds), timeout_seconds)
            self.core.closed = True

    async def __aenter__(self) -> AsyncClient:
        await self.wait_ready()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def ensure_started(self) -> None:
        """Start on the running loop, once. Without one there is only what the disk holds."""
        if forks.page[0] != forks.OWN:
            forks.recover()
        if self._loop is not None or self.core.closed:
            return
        if not self._loaded:
            self._loaded = True
            self.core.load()
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self.core.launch()
        self.is_pending = False

    def forked(self) -> None:
        """This is a child: its own loop is the one that first uses the client here."""
        if self._loop is not None:
            forks.inherited.append(self._loop)
        self._loop, self.is_pending = None, not self.core.closed
        self.core.forked()

    async def on_core(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work`: this is the core's loop."""
        self._check_loop(work)
        return await work

    def block_on_core(self, work: Coroutine[Any, Any, T]) -> T:
        """Not here."""
        work.close()
        raise ConfigurationError("an AsyncClient's effects are entered with `async with`; rescind.Client has both")

    def in_background(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run `work` and do not wait."""
        if self._loop is None or self._loop.is_closed():
            work.close()
            raise ClientClosed("the client's event loop is gone")
        self._loop.call_soon_threadsafe(self.core.keep, work)

    def _check_loop(self, work: Coroutine[Any, Any, Any]) -> None:
        self.ensure_started()
        if self._loop is not None and self._loop is not asyncio.get_running_loop():
            work.close()
            raise ConfigurationError("an AsyncClient belongs to the loop that first used it; rescind.Client serves several")

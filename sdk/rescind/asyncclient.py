"""The asynchronous face of the client, on the caller's event loop; `rescind.client` has the one for threads."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar, Unpack, overload

from rescind import forks
from rescind.core import Core
from rescind.effects import EffectContext
from rescind.errors import ClientClosed, ConfigurationError
from rescind.evaluations import Evaluations, effect_context
from rescind.handles import AsyncHandle, Order, Results, begin
from rescind.hands import LEASE_SECONDS
from rescind.loops import end_on
from rescind.options import CLOSE_SECONDS, READY_SECONDS, EffectOptions, InstanceOptions, Options
from rescind.running import run
from rescind.saga import Saga
from rescind.settings import settings_from
from rescind.threads import in_thread
from rescind.worker import Worker

T = TypeVar("T")


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

    @overload
    async def start(self) -> None: ...

    @overload
    async def start(
        self,
        saga: Saga,
        *,
        id: str,
        input: Mapping[str, Any],
        **options: Unpack[InstanceOptions],
    ) -> AsyncHandle: ...

    async def start(
        self,
        saga: Saga | None = None,
        *,
        id: str = "",  # noqa: A002 - the wire's own word
        input: Mapping[str, Any] | None = None,  # noqa: A002 - the wire's own word
        **options: Unpack[InstanceOptions],
    ) -> AsyncHandle | None:
        """Start an instance of `saga`, durably; workers anywhere run it. Starting the same again changes nothing.

        Raises `SagaConflict`, `SagaKilled`, `SagaRefused`, `Unreachable` and `ApiError`. Without a saga the client itself
        starts: it reads the last known snapshot and follows the server.
        """
        await self._start()
        if saga is None:
            return None
        order = Order(saga=saga, id=id, input=input or {}, **options)
        await self.on_core(begin(self.core, order, order.begun(self.core)))
        return AsyncHandle(self, saga.name, id)

    async def result(self, saga: Saga | str, id: str, *, timeout_seconds: float | None = None) -> Results:  # noqa: A002
        """What each step of an instance gave, once it is done, whoever started it. Raises as `AsyncHandle.result`."""
        return await AsyncHandle(self, saga if isinstance(saga, str) else saga.name, id).result(timeout_seconds)

    async def run(
        self,
        saga: Saga,
        *,
        id: str,  # noqa: A002 - the wire's own word
        input: Mapping[str, Any],  # noqa: A002 - the wire's own word
        lease_seconds: float = LEASE_SECONDS,
        **options: Unpack[InstanceOptions],
    ) -> Results:
        """Run an instance in this process; what each step gave.

        When the process dies or the caller is cancelled, the coordinator takes over once `lease_seconds` have passed. Raises
        `SagaUndone`, `SagaKilled`, `SagaConflict`, `SagaRefused`, `Unreachable` and `ApiError`.
        """
        order = Order(saga=saga, id=id, input=input, **options)
        return await self.on_core(run(self.core, order, lease_seconds))

    async def _start(self) -> None:
        if not self._loaded and not self.core.closed:
            self._loaded = True
            await in_thread(self.core.load)
        self.ensure_started()

    async def wait_ready(self, timeout_seconds: float = READY_SECONDS) -> bool:
        """Whether there is a snapshot, waiting for it at most this long. Never raises."""
        await self._start()
        return await self.core.wait_ready(0 if self.core.closed else timeout_seconds)

    async def register(self, saga: Saga) -> bool:
        """Lay down a saga's definition; False where another meaning holds under its version. Raises `ApiError`."""
        return await self.on_core(self.core.registration.register(saga))

    async def work(self, *sagas: Saga, concurrency: int = 16, lease_seconds: float = LEASE_SECONDS) -> None:
        """Carry out the sagas' steps and compensations until cancelled; what has begun comes to its end first.

        Versions of one saga may be served together. When this process dies, others take its work over once `lease_seconds`
        have passed. Raises `ConfigurationError` where there is nothing to do, `ApiError`.
        """
        await self.on_core(Worker(self.core, sagas, concurrency, lease_seconds).run())

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

"""The two faces of the real client over a core that has no server: no thread, no file, no network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from rescind.answers import Answer
from rescind.client import AsyncClient, Client
from rescind.clock import Clock
from rescind.core import Core
from rescind.counts import Counts
from rescind.errors import ConfigurationError, Unreachable
from rescind.evaluations import Evaluations
from rescind.events import EventStream
from rescind.handles import Results
from rescind.instances import Instances
from rescind.registration import Registration
from rescind.saga import Saga
from rescind.settings import ClientSettings
from rescind.testing.ledger import Ledger, LedgerAdmission, LedgerReports
from rescind.testing.records import RecordedOutcome
from rescind.transport import AsyncApi
from rescind.wire import InstanceStart, InstanceStarted, InstanceState

T = TypeVar("T")

NOWHERE = "http://rescind.invalid"
"""A name that never resolves (RFC 6761, 6.4); nothing asks for it either."""


class NoServer(AsyncApi):
    """What the client would reach a server by."""

    async def send(self, method: str, path: str, body: object = None, **how: Any) -> Answer:
        """Not here."""
        raise Unreachable(f"a FlagsFixture has no server for {method} {path}")

    async def repeatable(self, path: str, body: object, answer_type: type[T], **how: Any) -> T:
        """Not here."""
        raise Unreachable(f"a FlagsFixture has no server for {path}")

    async def call(self, method: str, path: str, body: object, answer_type: type[T], **how: Any) -> T:
        """Not here."""
        raise Unreachable(f"a FlagsFixture has no server for {method} {path}")

    @asynccontextmanager
    async def events(self, path: str, **how: Any) -> AsyncIterator[EventStream]:
        """Not here."""
        raise Unreachable(f"a FlagsFixture has no server for {path}")
        yield EventStream(path, nothing)


async def nothing() -> bytes:
    """What comes from there."""
    return b""


class LaidDown(Registration):
    """Sagas of a fixture: each is as good as laid down."""

    async def register(self, saga: Saga) -> bool:
        """It is."""
        return True

    async def ensure(self, saga: Saga) -> None:
        """It is."""


class NoInstances(Instances):
    """Nobody here runs them."""

    async def start(self, saga: str, start: InstanceStart) -> InstanceStarted:
        """Raises `ConfigurationError`."""
        raise no_coordinator()

    async def ended(self, saga: str, instance: str) -> InstanceState:
        """Raises `ConfigurationError`."""
        raise no_coordinator()


class RecordingCounts(Counts):
    """Real counts that nobody sends, and a record of each outcome."""

    def __init__(self, clock: Clock, note: Callable[[RecordedOutcome], None]) -> None:
        super().__init__(clock)
        self._note = note

    def track(self, flag: str, variant: str, ok: bool, duration_ms: float | None) -> None:
        """As it is counted, and kept."""
        super().track(flag, variant, ok, duration_ms)
        self._note(RecordedOutcome(flag=flag, variant=variant, ok=ok, duration_ms=duration_ms))


class FixtureCore(Core):
    """The real core, given its snapshots by a fixture, asking the fixture's ledger. Nothing of it runs in the background."""

    def __init__(
        self, settings: ClientSettings, sagas: Sequence[Saga], ledger: Ledger, note: Callable[[RecordedOutcome], None]
    ) -> None:
        self._ledger = ledger
        super().__init__(settings, sagas=sagas, api=NoServer(settings.url, settings.token, settings.environment))
        self.counts = RecordingCounts(self.clock, note)
        self.source = "fixture"

    def _assemble(self, environment: str | None) -> None:
        super()._assemble(environment)
        arguments = (self.api, self.clock, self.settings.instance, self._ledger)
        self.permits.go_through(LedgerAdmission(*arguments), LedgerReports(*arguments))
        self.instances = NoInstances(self.api, self.clock)
        self.registration = LaidDown(self.api, self.sagas, self.settings.service, self.clock, self.named)

    def load(self) -> None:
        """Nothing is on disk."""

    def launch(self) -> None:
        """Nothing is to be followed."""

    async def named(self) -> None:
        """The environment is known from the beginning."""

    async def close(self, timeout_seconds: float) -> None:
        """Effects are refused from now on."""
        self.closed = True
        self.permits.abandon()


class FixtureClient(Client):
    """`rescind.Client` of a fixture."""

    def __init__(self, core: FixtureCore) -> None:
        super().__init__(url=core.settings.url, token=core.settings.token, state_dir=core.settings.state_dir)
        Evaluations.__init__(self, core)

    def ensure_started(self) -> None:
        """It is."""

    def wait_ready(self, timeout_seconds: float = 0.0) -> bool:
        """It is."""
        return True

    async def on_core(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` here and now."""
        return await work

    def block_on_core(self, work: Coroutine[Any, Any, T], timeout_seconds: float | None = None) -> T:
        """Run `work` here and now."""
        return driven(work)

    def in_background(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run `work` here and now."""
        driven(work)

    def work(self, *sagas: Saga, **how: Any) -> None:
        """Raises `ConfigurationError`."""
        raise no_coordinator()

    def run(self, saga: Saga, **how: Any) -> Results:
        """Raises `ConfigurationError`."""
        raise no_coordinator()

    def close(self, timeout_seconds: float = 0.0) -> None:
        """Effects are refused from now on."""
        driven(self.core.close(timeout_seconds))


class FixtureAsyncClient(AsyncClient):
    """`rescind.AsyncClient` of a fixture, on any loop."""

    def __init__(self, core: FixtureCore) -> None:
        super().__init__(url=core.settings.url, token=core.settings.token, state_dir=core.settings.state_dir)
        Evaluations.__init__(self, core)

    def ensure_started(self) -> None:
        """It is."""

    async def _start(self) -> None:
        """It is."""

    async def wait_ready(self, timeout_seconds: float = 0.0) -> bool:
        """It is."""
        return True

    async def on_core(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` here and now."""
        return await work

    def in_background(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run `work` here and now."""
        driven(work)

    async def work(self, *sagas: Saga, **how: Any) -> None:
        """Raises `ConfigurationError`."""
        raise no_coordinator()

    async def run(self, saga: Saga, **how: Any) -> Results:
        """Raises `ConfigurationError`."""
        raise no_coordinator()


def settings_of(environment: str, service: str, number: int) -> ClientSettings:
    """What a client of a fixture is made with, whatever `RESCIND_*` says."""
    return ClientSettings(
        url=NOWHERE,
        token="none",  # noqa: S106 - there is nothing that it opens
        environment=environment,
        service=service,
        service_version="",
        instance=f"{service}@fixture:{number}",
        state_dir=Path("/nonexistent"),
    )


def driven(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for: with or without an event loop around it."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise ConfigurationError("a FlagsFixture answers at once, and this waits for something else")


def notify(core: Core, keys: Sequence[str]) -> None:
    """Call who wants to know of these flags: on the running loop, else on one that ends with the last callback."""

    async def tell() -> None:
        core.notifier.changed(keys, core.current)
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(tell())
    else:
        core.notifier.changed(keys, core.current)


def no_coordinator() -> ConfigurationError:
    return ConfigurationError("a FlagsFixture has no coordinator: call the saga's steps and handlers themselves")

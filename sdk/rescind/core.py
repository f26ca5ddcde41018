"""The one core behind both faces: everything that happens on the event loop, and what evaluations read.

Construction does no I/O and needs no loop. `load` reads the last known snapshot; `launch` starts the work on the loop it
is called on; `close` ends it within its time and signs off.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from rescind.admission import Admission
from rescind.beats import Beats
from rescind.bodies import Bodies
from rescind.causality import Causality
from rescind.clock import Clock, full_jitter_seconds
from rescind.context import RequestContext
from rescind.current import Applied, Current
from rescind.errors import ApiError, RescindError, Unreachable
from rescind.journal import Journal
from rescind.lastknown import LastKnown
from rescind.notify import Notifier
from rescind.permits import Permits
from rescind.reports import Reports
from rescind.saga import Saga, is_within
from rescind.settings import ClientSettings, digest
from rescind.stream import Follower
from rescind.transport import AsyncApi
from rescind.wire import EffectReport, Revision, SagaReference

logger = logging.getLogger("rescind")

T = TypeVar("T")

SAVE_PAUSE_SECONDS = 0.2
EXTENSION_LOOK_SECONDS = 0.5
RESTART_SECONDS = 1.0
NAMED_SECONDS = 5.0
DEFAULT_ENVIRONMENT = "production"


class Core:
    """One client's state and work."""

    def __init__(
        self,
        settings: ClientSettings,
        *,
        sagas: Sequence[Saga] = (),
        clock: Clock | None = None,
        api: AsyncApi | None = None,
    ) -> None:
        self.settings = settings
        self.clock = clock or Clock()
        self.sagas = list(sagas)
        self.api = api or AsyncApi(settings.url, settings.token, settings.environment)
        self.current = Current(self.clock)
        self.context = RequestContext()
        self.notifier = Notifier()
        self.bodies = Bodies(self.current, self.clock)
        self.reports = Reports(self.api, self.clock, settings.instance)
        who = {"instance": settings.instance, "service": settings.service}
        self.follower = Follower(self.api, self.current, self.clock, who, self._applied, self.notifier.turned)
        self.beats = Beats(self.api, settings, self.current, self.bodies, self.reports, self.clock)
        self.permits = Permits(
            current=self.current,
            context=self.context,
            admission=Admission(self.api, self.clock, settings.instance),
            reports=self.reports,
            bodies=self.bodies,
            follower=self.follower,
            notifier=self.notifier,
            named=self.named,
            keep=self.keep,
        )
        self.causality = Causality(self.current, self.follower, self.context, self.clock)
        self.source = "none"
        self.disk_error = ""
        self.closed = False
        self.registered = asyncio.Event()
        self._named = asyncio.Event()
        self._last_known = LastKnown(settings.state_dir / settings.place)
        self._save = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []
        self._background: set[asyncio.Task[Any]] = set()

    # --- life ---------------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Take in the last known snapshot from disk. Never raises (P6)."""
        try:
            snapshot = self._last_known.load()
        except OSError as error:
            self.disk_error = str(error)
            return
        if snapshot is not None and self.current.take_snapshot(snapshot) is not None:
            self.source = "disk"
            self.api.environment = self.api.environment or snapshot.environment

    def launch(self) -> None:
        """Start working on the running loop. Once."""
        if not self.tasks and not self.closed:
            self._start_all(self._main)

    async def wait_ready(self, timeout_seconds: float) -> bool:
        """True once there is a snapshot and the server was asked for a newer one; at the latest after the timeout."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while self.current.snapshot is None:
                    await self.follower.reach(Revision(0, 1))
                await self.follower.tried.wait()
                await self.registered.wait()
        except TimeoutError:
            pass
        return self.current.snapshot is not None

    async def close(self, timeout_seconds: float) -> None:
        """Deliver what is under way, sign off, stop. Bounded, and the second call does nothing."""
        if self.closed:
            return
        self.closed = True
        try:
            async with asyncio.timeout(timeout_seconds * 0.75):
                await self.permits.close()
                await asyncio.gather(*self._background, return_exceptions=True)
                await self.reports.close()
                if self.tasks and self.api.environment:
                    await self.beats.sign_off()
        except (TimeoutError, RescindError) as error:
            logger.debug("signing off ended early: %s", error)
        self.permits.abandon()
        self.notifier.turned()
        for task in self.tasks:
            task.cancel()
        try:
            async with asyncio.timeout(timeout_seconds * 0.25):
                await self.reports.abandon()
                await asyncio.gather(*self.tasks, *self._background, return_exceptions=True)
                await self.api.close()
        except TimeoutError:
            logger.debug("closing ended early")

    def keep(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run `work` in the background; `close` waits for it within its time."""
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._let_go)
        return task

    # --- work -----------------------------------------------------------------------------------------------------------

    def is_proof(self, reference: SagaReference | None, step: str | None, error: BaseException) -> bool:
        """Whether the step's definition lists the error as proof that nothing happened (P10)."""
        names = {kind.__name__ for kind in type(error).__mro__}
        return reference is not None and any(
            saga.name == reference.name and not names.isdisjoint(saga.proofs(step)) for saga in self.sagas
        )

    def lease_seconds(self, reference: SagaReference | None, step: str | None) -> float | None:
        """What the step's definition says of its lease, where its saga is registered here."""
        if reference is None or step is None:
            return None
        name, version = reference.name, reference.version
        declared = (saga.lease_seconds(step) for saga in self.sagas if (saga.name, saga.version) == (name, version))
        return next(declared, None)

    async def register(self, saga: Saga) -> bool:
        """Lay down the saga's definition. False where another meaning is registered under its version: that one holds."""
        await self.named()
        path = self.api.within(f"/sagas/{saga.name}/versions/{saga.version}")
        try:
            await self.api.send("PUT", path, saga.document(), params={"reason": f"registered by {self.settings.service}"})
        except ApiError as error:
            if error.status == 403 and await self._is_registered(saga):
                return True
            if error.status != 409:
                raise
            logger.error(
                "saga %s version %s is registered with another meaning, which is used: %s", saga.name, saga.version, error
            )
            return False
        return True

    async def _is_registered(self, saga: Saga) -> bool:
        """Whether exactly this is registered already: then it takes no right to lay it down."""
        path = self.api.within(f"/sagas/{saga.name}/versions/{saga.version}")
        try:
            standing = await self.api.call("GET", path, None, dict[str, Any])
        except ApiError:
            return False
        return is_within(saga.document(), standing.get("document"))

    def _applied(self, applied: Applied, how: str) -> None:
        self.source = "network"
        self._save.set()
        self.beats.applied(how, applied.kill)
        self.notifier.changed(applied.changed, self.current)

    async def named(self) -> None:
        """Return once the environment is known. Raises `Unreachable` where the server does not say it in time."""
        if self._named.is_set():
            return
        try:
            async with asyncio.timeout(NAMED_SECONDS):
                await self._named.wait()
        except TimeoutError:
            raise Unreachable(f"{self.settings.url} has not said which environment the token is for") from None

    async def _learn_name(self) -> None:
        failures = 0
        while self.api.environment is None:
            try:
                answer = await self.api.call("GET", "/v1/self", None, dict[str, Any])
            except (Unreachable, ApiError) as error:
                failures += 1
                self.follower.failed(error)
                self.follower.tried.set()
                self.registered.set()
                self.notifier.turned()
                await asyncio.sleep(full_jitter_seconds(self.clock, failures))
            else:
                self.api.environment = answer.get("environment") or DEFAULT_ENVIRONMENT
        self._named.set()

    async def _main(self) -> None:
        self._start_all(self._keep_last_known)
        await self._learn_name()
        folder = self.settings.state_dir / digest(self.settings.url, self.api.environment or "") / "journals"
        await self.reports.held.open(Journal(folder, self.settings.instance))
        held = self.reports.held
        self._start_all(
            self.follower.run, self.beats.run, self._extend_leases, self._register_all, held.run, held.adopt_orphans
        )

    async def _register_all(self) -> None:
        for saga in self.sagas:
            try:
                await self._register_patiently(saga)
            except ApiError as error:
                logger.error("saga %s version %s was refused: %s", saga.name, saga.version, error)
        self.registered.set()

    async def _register_patiently(self, saga: Saga) -> None:
        failures = 0
        while True:
            try:
                await self.register(saga)
                return
            except (Unreachable, ApiError) as error:
                if isinstance(error, ApiError) and not error.passing:
                    raise
                self.registered.set()
                failures += 1
                await asyncio.sleep(full_jitter_seconds(self.clock, failures))

    async def _keep_last_known(self) -> None:
        while True:
            await self._save.wait()
            self._save.clear()
            if snapshot := self.current.snapshot:
                try:
                    await asyncio.to_thread(self._last_known.save, snapshot)
                    self.disk_error = ""
                except OSError as error:
                    self.disk_error = str(error)
            await asyncio.sleep(SAVE_PAUSE_SECONDS)

    async def _extend_leases(self) -> None:
        while True:
            await asyncio.sleep(min(EXTENSION_LOOK_SECONDS, self.bodies.next_extension_seconds() or EXTENSION_LOOK_SECONDS))
            for permission in self.bodies.due_extensions():
                self.reports.tell(
                    EffectReport(
                        effect_id=permission.effect_id,
                        token=permission.token,
                        outcome="extend",
                        lease_seconds=permission.lease_seconds,
                    )
                )

    def _start_all(self, *works: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.tasks += [asyncio.create_task(survive(work), name=work.__qualname__) for work in works]

    def _let_go(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.error("work in the background failed", exc_info=error)


async def survive(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `work`, and again after a second where it failed in a way that nobody foresaw: a client outlives its faults."""
    while True:
        try:
            return await work()
        except Exception:  # the boundary of a loop that must go on
            logger.exception("%s failed and starts again", work.__qualname__)
        await asyncio.sleep(RESTART_SECONDS)

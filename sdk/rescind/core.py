"""The one core behind both faces: everything that happens on the event loop, and what evaluations read.

Construction does no I/O and needs no loop. `load` reads the last known snapshot; `launch` starts the work on the loop it
is called on; `close` ends it within its time and signs off.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from rescind import forks
from rescind.admission import Admission
from rescind.beats import START, Beats
from rescind.bodies import Bodies
from rescind.causality import Causality
from rescind.clock import Clock, full_jitter_seconds
from rescind.context import RequestContext
from rescind.counts import Counts
from rescind.current import Applied, Current
from rescind.declarations import Declarations
from rescind.errors import ApiError, RescindError, Unreachable
from rescind.instances import Instances
from rescind.journal import Journal
from rescind.notify import Notifier
from rescind.permits import Permits
from rescind.proceeding import SUFFIX, Proceeding
from rescind.registration import Registration
from rescind.reports import Reports
from rescind.saga import Saga
from rescind.settings import ClientSettings, digest
from rescind.stream import REPLY, Follower
from rescind.summaries import Summaries
from rescind.transport import AsyncApi
from rescind.warmstart import WarmStart
from rescind.wire import EffectReport, ProceededEffect, Revision

logger = logging.getLogger("rescind")

T = TypeVar("T")

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
        self.current = Current(self.clock)
        self.context = RequestContext()
        self.counts = Counts(self.clock)
        self.notifier = Notifier()
        self.declarations = Declarations()
        self.source = "none"
        """Where the snapshot is from: none, disk, bootstrap, network."""
        self.closed = False
        self._is_ending = False
        self._given_api = api
        self._assemble(settings.environment)

    def _assemble(self, environment: str | None) -> None:
        """Everything that belongs to one process and its event loop. A child of the process makes it anew."""
        settings, clock = self.settings, self.clock
        self.api = self._given_api or AsyncApi(settings.url, settings.token, settings.environment)
        self.api.environment = environment
        self.warm = WarmStart(settings, self.current, clock)
        self.bodies = Bodies(self.current, clock)
        self.reports = Reports(self.api, clock, settings.instance)
        who = {"instance": settings.instance, "service": settings.service}
        self.follower = Follower(self.api, self.current, clock, who, self._applied, self.notifier.turned)
        self.proceeding = Proceeding(self.api, clock, self.current, settings.instance, self.keep, lambda: self.beats.emptied())
        self.beats = Beats(
            self.api,
            settings,
            self.current,
            self.bodies,
            self.reports,
            self.declarations,
            self.proceeding,
            clock,
            self._behind,
        )
        self.summaries = Summaries(self.api, settings, self.counts, clock, lambda: self.follower.found_count)
        self.permits = Permits(
            current=self.current,
            context=self.context,
            admission=Admission(self.api, clock, settings.instance),
            reports=self.reports,
            bodies=self.bodies,
            follower=self.follower,
            notifier=self.notifier,
            clock=clock,
            proceeding=self.proceeding,
            named=self.named,
            keep=self.keep,
        )
        self.causality = Causality(self.current, self.follower, self.context, clock)
        self.registration = Registration(self.api, self.sagas, settings.service, clock, self.named)
        self.instances = Instances(self.api, clock)
        self._named = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []
        self._background: set[asyncio.Task[Any]] = set()

    # --- life ---------------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Take in the last known snapshot, or what the service brings along. Blocks on the disk. Never raises (P6)."""
        if self.current.snapshot is not None:
            return
        self.source = self.warm.load()
        if self.current.snapshot is not None:
            self.beats.applied(START, kill=False)
        if self.source == "disk" and self.current.snapshot is not None:
            self.api.environment = self.api.environment or self.current.snapshot.environment

    def forked(self) -> None:
        """This is a child of the process: go on with the snapshot, and with a name, connections and work of its own.

        Effects that were under way are the parent's, and so are the outcomes that it holds.
        """
        journals = [held.journal for held in (self.reports.held, self.proceeding.held) if held.journal is not None]
        forks.let_go([*self.api.files(), *(file for journal in journals for file in journal.files())])
        mine = [*self.tasks, *self._background, *self.instances.tasks()]
        forks.abandon([*mine, *self.api.tasks(), *self.follower.tasks()])
        forks.inherited.append(dict(vars(self)))
        self.settings = self.settings.in_child()
        self.current.forked()
        self.counts.forked()
        self._assemble(self.api.environment)

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
                await self.registration.tried.wait()
        except TimeoutError:
            pass
        return self.current.snapshot is not None

    async def close(self, timeout_seconds: float) -> None:
        """Deliver what is under way, sign off, stop. Bounded, and the second call does nothing."""
        if self._is_ending:
            return
        self.closed = self._is_ending = True
        polls = self.instances.tasks()
        self.instances.abandon()
        try:
            async with asyncio.timeout(timeout_seconds * 0.75):
                await asyncio.gather(self._take_leave(), self.warm.flush(), self._last_counts())
        except (TimeoutError, RescindError) as error:
            logger.debug("signing off ended early: %s", error)
        except Exception:  # whatever it was, the rest is ended all the same
            logger.exception("signing off failed")
        self.permits.abandon()
        self.notifier.turned()
        left = [*self.tasks, *polls, *self.follower.tasks(), *self.api.tasks()]
        for task in left:
            task.cancel()
        try:
            async with asyncio.timeout(timeout_seconds * 0.25):
                await asyncio.gather(self.reports.abandon(), self.proceeding.held.close())
                await asyncio.gather(*left, *self._background, return_exceptions=True)
                await self.api.close()
        except TimeoutError:
            logger.debug("closing ended early")
        finally:
            self.api.close_idle()

    def keep(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run `work` in the background; `close` waits for it within its time."""
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._let_go)
        return task

    async def _take_leave(self) -> None:
        await self.permits.close()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self.reports.close()
        if self.tasks and self.api.environment:
            await self.beats.sign_off()

    async def _last_counts(self) -> None:
        if self.tasks:
            await self.summaries.finish()

    # --- work -----------------------------------------------------------------------------------------------------------

    def _applied(self, applied: Applied, how: str) -> None:
        self.source = "network"
        self.warm.changed()
        self.beats.applied(how, applied.kill)
        self.keep(self.proceeding.prepare(applied.changed))
        self.notifier.changed(applied.changed, self.current)

    def _behind(self, revision: Revision) -> None:
        """The server, asked by a beat, has been at a later revision for a while: the stream does not tell."""
        self.keep(self.follower.fetch(revision, REPLY))

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
                self.registration.tried.set()
                self.notifier.turned()
                asked = (error.retry_after_seconds or 0.0) if isinstance(error, ApiError) else 0.0
                await asyncio.sleep(asked + full_jitter_seconds(self.clock, failures))
            else:
                self.api.environment = answer.get("environment") or DEFAULT_ENVIRONMENT
        self.current.belong(self.api.environment)
        self._named.set()

    async def _main(self) -> None:
        self._start_all(self.warm.run, self.causality.run)
        await self._learn_name()
        self._start_all(self.follower.run, self.follower.poll, self.beats.run, self._extend_leases, self.registration.run)
        self._start_all(self.summaries.run)
        folder = self.settings.state_dir / digest(self.settings.url, self.api.environment or "") / "journals"
        outcomes, records = self.reports.held, self.proceeding.held
        await self.proceeding.open(Journal(folder, self.settings.instance, ProceededEffect, SUFFIX))
        await outcomes.open(Journal(folder, self.settings.instance))
        self._start_all(outcomes.run, outcomes.adopt_orphans, records.run, records.adopt_orphans)

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

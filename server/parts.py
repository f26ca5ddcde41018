"""Everything a server process is made of: opened in order, closed in reverse."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Awaitable, Callable

from rescind import wire

from flagd.counts import Counts
from flagd.imports import Imports
from flagd.instances import Instances
from flagd.releases import Releases
from flagd.replica import Replicas
from flagd.rollouts import Rollouts
from flagd.scheduler import Scheduler
from flagd.schedules import Schedules
from flagd.service import FlagService
from runtime.clock import Clock, Entropy
from runtime.errors import MigrationError
from runtime.forgetting import Forgetting
from runtime.idempotency import Requests
from runtime.migrations import pending
from runtime.partitions import AuditPartitions
from runtime.postgres import Postgres
from runtime.redis import Redis
from runtime.settings import Settings
from runtime.telemetry import Telemetry
from runtime.verifier import Verifier
from sagas import fences, sealing
from sagas.coordinator import Coordinator
from sagas.decisions import Decisions
from sagas.executors import Executors
from sagas.instances.bells import Bells
from sagas.instances.bulk import Bulk
from sagas.instances.engine import Engine
from sagas.instances.keeper import Keeper
from sagas.instances.measures import Measures
from sagas.instances.operations import Operations
from sagas.instances.service import Instances as SagaInstances
from sagas.instances.work import Work
from sagas.ledger import Ledger
from sagas.retention.policy import Retention
from sagas.retention.sweeper import Sweeper
from sagas.tasks import TaskService
from server.http.streams import Streams
from server.migrations import ROOMS
from server.rollbacks.changes import ChangeLists
from server.rollbacks.classing import Classing
from server.rollbacks.containment import ContainmentWatch
from server.rollbacks.preview import Previews
from server.rollbacks.recovery import Recovery
from server.rollbacks.releases import ReleaseDesk
from server.rollbacks.report import Reports
from server.rollbacks.service import Kills
from server.rollbacks.watching import Watching

START_WAIT_SECONDS = 300.0


class Parts:
    """The composed process. `open` waits for PostgreSQL and says so; Redis may be away."""

    def __init__(self, settings: Settings, pg: Postgres, redis: Redis, telemetry: Telemetry) -> None:
        self.settings = settings
        self.pg = pg
        self.redis = redis
        self.telemetry = telemetry
        self.clock = Clock()
        self.entropy = Entropy()
        self.verifier = Verifier(pg, self.clock)
        self.requests = Requests(pg)
        self.streams = Streams()
        self.replicas = Replicas(pg, redis, self.clock)
        self.instances = Instances(pg)
        self.counts = Counts(pg, self.clock)
        self.audit_partitions = AuditPartitions(pg, settings.audit_retention_days)
        self.forgetting = Forgetting([self.requests.purge, self.counts.forget, self.audit_partitions.tend], self.clock)
        self.flags = FlagService(pg, self.replicas, fences.ensure, fences.let_proceed)
        self.imports = Imports(pg, self.replicas, self.flags)
        self.recovery = Recovery(pg, self.replicas, self.clock, self._after_commit)
        self.ledger = Ledger(pg, self.clock, self.entropy, expect_open=self.recovery.expect_open)
        self.executors = Executors(self.clock)
        self.coordinator = Coordinator(
            pg, self.clock, self.entropy, identity_of(), self.executors, on_due=lambda: self.tasks.ring()
        )
        self.decisions = Decisions(pg)
        self.bells = Bells()
        self.engine = Engine(pg, self.clock, self.entropy, on_news=self.bells.news, ranges=self.coordinator.leases.held)
        self.undoing = TaskService(pg, self.clock, self.entropy, on_news=self.bells.news)
        self.tasks = Work(
            pg, self.clock, self.engine, self.undoing, self.ledger, self.bells, expect_open=self.recovery.expect_open
        )
        self.saga_instances = SagaInstances(
            pg, self.clock, self.engine, self.bells, self.decisions, expect_open=self.recovery.expect_open
        )
        self.keeper = Keeper(pg, self.clock, self.engine, self.coordinator.leases, self.bells)
        self.operations = Operations(pg)
        self.bulk = Bulk(pg, self.clock, self.engine, self.saga_instances, self.coordinator.leases)
        self.measures = Measures(pg, self.clock, self.coordinator.leases)
        self.retention = Retention(history_days=settings.retention_days, keys_days=settings.keys_retention_days)
        self.sweeper = Sweeper(pg, self.clock, self.coordinator.leases, self.retention)
        self.containment = ContainmentWatch(pg, self.clock)
        self.kills = Kills(pg, self.entropy, self.recovery, self._after_commit, self.nudge)
        self.changes = ChangeLists(self.flags, self.kills, self.entropy)
        self.schedules = Schedules(pg, self.replicas, self.flags, self.entropy, self.changes)
        self.rollouts = Rollouts(pg, self.replicas, self.flags, self.entropy)
        self.scheduler = Scheduler(self.schedules, self.rollouts, self.clock)
        self.previews = Previews(pg)
        self.desk = ReleaseDesk(pg, Releases(pg), Classing(), self.kills, self.previews)
        self.reports = Reports(pg)
        self.watching = Watching(pg, self.clock)
        self._finishing: list[Callable[[], Awaitable[None]]] = []
        self._stops: list[Callable[[], Awaitable[None]]] = []

    @classmethod
    async def open(cls, settings: Settings, *, wait_seconds: float = START_WAIT_SECONDS) -> Parts:
        """Open and start everything. Raises `Unavailable` after `wait_seconds`, `MigrationError` for an older schema."""
        telemetry = Telemetry.configure("rescind-server", settings)
        pg = await Postgres.open(
            settings.database_url, application_name="rescind server", size_max=settings.database_connections_max,
            wait_seconds=wait_seconds, ring=settings.payload_keys,
        )  # fmt: skip
        parts = cls(settings, pg, Redis.open(settings.redis_url), telemetry)
        try:
            await parts._start()
        except BaseException:
            await parts.close()
            raise
        return parts

    async def acknowledged(self, environment: str, beat: wire.InstanceBeat) -> None:
        """An instance has applied a kill: its permissions are given back, and the kill may be contained now."""
        if beat.begun is not None:
            await self.ledger.acknowledge(environment, beat.instance, beat.begun, beat.revision)
        self.nudge()

    def nudge(self) -> None:
        """Something about a rollback has changed: those who drive it look at once."""
        self.coordinator.nudge()
        self.containment.bell()
        self.tasks.ring()

    def end_streams(self) -> None:
        """Let go of clients that would hold a stop up."""
        self.streams.stop()
        self.replicas.end_streams()

    def finish_before_close(self, finish: Callable[[], Awaitable[None]]) -> None:
        """Have `finish` called, and waited for, while everything still runs: it writes what is left to be written."""
        self._finishing.append(finish)

    async def close(self) -> None:
        """Stop what was started, the last first, and let go of the servers."""
        await self.kills.stop()
        for finish in self._finishing:
            await finish()
        for stop in reversed(self._stops):
            with contextlib.suppress(Exception):
                await stop()
        self._stops.clear()
        await self.executors.close()
        self.telemetry.flush()
        await self.redis.close()
        await self.pg.close()

    async def _start(self) -> None:
        missing = await pending(self.settings.database_url, ROOMS, "pre")
        if missing:
            names = ", ".join(str(one) for one in missing[:5])
            raise MigrationError(f"the database is older than this version ({names}): run `rescind migrate`")
        async with self.pg.connection() as connection:
            await sealing.check(connection)
        starting: list[tuple[Callable[[], Awaitable[None]], Callable[[], Awaitable[None]]]] = [
            (self.forgetting.start, self.forgetting.stop),
            (self.replicas.start, self.replicas.stop),
            (self.recovery.start, self.recovery.stop),
            (self.ledger.start, self.ledger.stop),
            (self.containment.start, self.containment.stop),
        ]
        if "flags" in self.settings.roles:
            starting.append((self.scheduler.start, self.scheduler.stop))
        if "sagas" in self.settings.roles:
            starting.append((self.engine.start, self.engine.stop))
            starting.append((self.undoing.start, self.undoing.stop))
            starting.append((self.coordinator.start, self.coordinator.stop))
            starting.append((self.keeper.start, self.keeper.stop))
            starting.append((self.bulk.start, self.bulk.stop))
            starting.append((self.measures.start, self.measures.stop))
            starting.append((self.sweeper.start, self.sweeper.stop))
        for start, stop in starting:
            await start()
            self._stops.append(stop)

    async def _after_commit(self, environment: str, revision: wire.Revision) -> None:
        await self.replicas.refresh(environment, revision)


def identity_of() -> str:
    """The name of this process among coordinators, for people: the coordinator makes it unique."""
    return f"{socket.gethostname()}:{os.getpid()}"

"""The coordinator: any number may run; each drives the rollbacks of the ranges it holds a lease on (P18).

A kill rings its bell in process (`nudge`) or through PostgreSQL (`rescind_rollback`); polling is enough on its own. Stopped
politely it lets running attempts end and gives its ranges back; killed, another takes them over when they have run out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from uuid import UUID

import asyncpg
from msgspec import Struct

from runtime.clock import Clock, Entropy
from runtime.errors import RuntimeFault
from runtime.listening import keep_listening
from runtime.postgres import Postgres
from runtime.queries import Queries
from runtime.telemetry import counter
from sagas.breakers import Breakers
from sagas.catalogue import Catalogue
from sagas.claims import MARGIN_SECONDS, Claims
from sagas.core.breakers import COOL_SECONDS, FAILURES_MAX
from sagas.dispatch import CONCURRENCY, Dispatcher
from sagas.drain import START_WINDOW_SECONDS, Drain
from sagas.drive import Drive
from sagas.enumeration import NO_WORKER_SECONDS, Enumeration
from sagas.executors import Executors
from sagas.leases import LEASE_SECONDS, LOOK_SECONDS, RENEW_SECONDS, Leases
from sagas.tools import POLL_SECONDS, Tools

QUERIES = Queries.load("sagas", "coordinator")
CHANNEL = "rescind_rollback"
OPEN_MAX = 1_000
STOP_SECONDS = 5.0

log = logging.getLogger("rescind.coordinator")
survived = counter("rescind.coordinator.errors")


class Tuning(Struct, frozen=True, kw_only=True):
    """Times and limits. The defaults are those of production."""

    lease_seconds: float = LEASE_SECONDS
    renew_seconds: float = RENEW_SECONDS
    poll_seconds: float = POLL_SECONDS
    start_window_seconds: float = START_WINDOW_SECONDS
    no_worker_seconds: float = NO_WORKER_SECONDS
    margin_seconds: float = MARGIN_SECONDS
    concurrency: int = CONCURRENCY
    breaker_failures_max: int = FAILURES_MAX
    breaker_cool_seconds: float = COOL_SECONDS


class Coordinator:
    """One per process. `identity` is made unique by chance, so that a restarted process is another holder."""

    def __init__(
        self,
        pg: Postgres,
        clock: Clock,
        entropy: Entropy,
        identity: str,
        executors: Executors,
        *,
        tuning: Tuning | None = None,
        on_due: Callable[[], None] = lambda: None,
    ) -> None:
        self._tuning = tuning or Tuning()
        self._pg = pg
        self._clock = clock
        self.identity = f"{identity}/{entropy.token_bytes(6).hex()}"
        self.leases = Leases(pg, clock, self.identity, lease_seconds=self._tuning.lease_seconds)
        catalogue = Catalogue(clock)
        enumeration = Enumeration(catalogue, entropy, no_worker_seconds=self._tuning.no_worker_seconds)
        breakers = Breakers(
            clock,
            "undo",
            failures_max=self._tuning.breaker_failures_max,
            cool_seconds=self._tuning.breaker_cool_seconds,
        )
        self._dispatcher = Dispatcher(
            pg,
            clock,
            entropy,
            self.leases,
            enumeration,
            executors,
            actor=self.identity,
            on_news=self.nudge,
            breakers=breakers,
            concurrency=self._tuning.concurrency,
        )
        self.tools = Tools(
            pg=pg,
            clock=clock,
            entropy=entropy,
            leases=self.leases,
            catalogue=catalogue,
            enumeration=enumeration,
            claims=Claims(catalogue, entropy, margin_seconds=self._tuning.margin_seconds, breakers=breakers),
            dispatcher=self._dispatcher,
            drain=Drain(pg, clock, self.leases, start_window_seconds=self._tuning.start_window_seconds),
            actor=self.identity,
            on_due=on_due,
            poll_seconds=self._tuning.poll_seconds,
            no_worker_seconds=self._tuning.no_worker_seconds,
        )
        self._bell = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._drives: dict[UUID, tuple[Drive, asyncio.Task[None]]] = {}

    async def start(self) -> None:
        """Start driving. Returns at once; a database that is away is waited for."""
        self._dispatcher.start()
        self._tasks = [
            asyncio.create_task(self._keep_leases()),
            asyncio.create_task(self._watch()),
            asyncio.create_task(self._listen()),
        ]

    async def stop(self) -> None:
        """Begin nothing more, let what runs end, give the leases back."""
        keeper, *others = self._tasks
        await _cancel(others)
        drives = list(self._drives.values())
        for drive, _ in drives:
            drive.stop()
        if drives:
            await asyncio.wait([task for _, task in drives], timeout=STOP_SECONDS)
        await _cancel([task for _, task in drives])
        await self._dispatcher.stop(STOP_SECONDS)
        await _cancel([keeper])
        try:
            await self.leases.give_back()
        except (RuntimeFault, asyncpg.PostgresError) as error:
            log.warning("the leases were not given back: %s", error)

    def nudge(self, rollback_id: UUID | None = None) -> None:
        """Ring the bell: something happened, with this rollback or with any."""
        drive = self._drives.get(rollback_id) if rollback_id is not None else None
        if drive is not None:
            drive[0].ring()
        else:
            self._bell.set()

    async def _keep_leases(self) -> None:
        """Renew now and then, and look oftener whether somebody else has let a range go."""
        renewed: float | None = None
        while True:
            now = self._clock.monotonic()
            renews = renewed is None or now - renewed >= self._tuning.renew_seconds
            renewed = now if renews else renewed
            try:
                await self._keep(renews=renews)
            except Exception as error:
                survived.add(1, {"loop": "leases"})
                log.warning("leases could not be renewed: %s: %s", type(error).__name__, error)
            await self._clock.sleep(min(self._tuning.renew_seconds, LOOK_SECONDS))

    async def _keep(self, *, renews: bool) -> None:
        before = len(self.leases.held())
        if not self._dispatcher.able:
            await self._let_go(before)
        elif renews:
            await self.leases.keep()
        else:
            await self.leases.look()
        if len(self.leases.held()) > before:
            self._bell.set()

    async def _let_go(self, held: int) -> None:
        """Who cannot write outcomes down leaves the ranges to who can (P18)."""
        if held:
            survived.add(1, {"loop": "writer"})
            log.error("outcomes cannot be written: %d leases are given back", held)
        await self.leases.give_back()

    async def _watch(self) -> None:
        while True:
            try:
                await self._spawn()
            except Exception as error:
                survived.add(1, {"loop": "watch"})
                log.warning("rollbacks could not be read: %s: %s", type(error).__name__, error)
            try:
                async with asyncio.timeout(self._tuning.poll_seconds):
                    await self._bell.wait()
            except TimeoutError:
                pass
            self._bell.clear()

    async def _spawn(self) -> None:
        """A drive for every rollback that asks for something and lies in a range of ours."""
        held = self.leases.held()
        if not held:
            return
        async with self._pg.connection() as connection:
            rows = await connection.fetch(QUERIES.open, held, OPEN_MAX)
        for row in rows:
            if row["id"] in self._drives:
                continue
            drive = Drive(self.tools, row["id"], row["range"])
            task = asyncio.create_task(drive.run())
            self._drives[row["id"]] = (drive, task)
            task.add_done_callback(partial(self._ended, row["id"]))

    def _ended(self, rollback_id: UUID, task: asyncio.Task[None]) -> None:
        self._drives.pop(rollback_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            survived.add(1, {"loop": "drive"})
            log.error("the drive of rollback %s failed and begins again", rollback_id, exc_info=error)

    async def _listen(self) -> None:
        """Hear the bells of other processes."""
        await keep_listening(self._pg, self._clock, {CHANNEL: self._heard}, _not_listening)

    def _heard(self, payload: str) -> None:
        try:
            self.nudge(UUID(payload))
        except ValueError:
            self._bell.set()


def _not_listening(error: Exception) -> None:
    survived.add(1, {"loop": "listen"})
    log.warning("not listening: %s: %s", type(error).__name__, error)


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

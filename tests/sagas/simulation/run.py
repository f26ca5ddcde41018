"""One simulated run: servers, workers and a provider take turns as a seed says, one at a time, over a real database.

Nothing happens by itself. A server answers, or looks after undoings, only in its turn; what time would bring is brought by a
turn of its own, which moves the clock and the rows' instants. One crash is dealt (`Fate`); whoever it met begins a new life.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg
import msgspec

from load.chaos.checks import violations
from load.chaos.history import History, Reported, Started
from load.chaos.reading import read
from runtime.clock import Entropy
from runtime.errors import RuntimeFault
from sagas.coordinator import QUERIES, Tuning
from sagas.drive import Drive
from sagas.instances.keeper import Keeper
from sagas.leases import LeaseLost
from tests.sagas.instances.world import Server, World, claim
from tests.sagas.simulation.cutting import Fate, Process, Reached, Side
from tests.sagas.simulation.shop import TERMS, Hand, Held, Provider, Worker
from tests.waiting import until

SERVERS, WORKERS, NAMES = 2, 2, 4
TURNS = 120
ROUNDS_MAX = 60
LEASE_SECONDS = 3_600.0
TUNING = Tuning(lease_seconds=LEASE_SECONDS, start_window_seconds=2.0)
OPEN_MAX = 100
PASSES: tuple[str, ...] = (
    "UPDATE sagas.effects SET lease_until = clock_timestamp() - interval '1 s', start_until = clock_timestamp() "
    "- interval '1 s' WHERE status = 'admitted'",
    "UPDATE sagas.compensations SET lease_until = clock_timestamp() - interval '1 s' WHERE state = 'running'",
    "UPDATE sagas.ready AS r SET due_at = statement_timestamp() - (1000 - n.place) * interval '1 ms' FROM (SELECT uid, step, "
    "row_number() OVER (ORDER BY uid, step) AS place FROM sagas.ready WHERE due_at > statement_timestamp()) AS n "
    "WHERE r.uid = n.uid AND r.step = n.step",
    "UPDATE sagas.compensations SET due_at = clock_timestamp() WHERE state = 'due'",
    "UPDATE sagas.dispositions SET judge_at = clock_timestamp() WHERE judge_at IS NOT NULL",
    "UPDATE sagas.leases SET expires_at = clock_timestamp() - interval '1 s' WHERE expires_at > clock_timestamp()",
)
"""What more time than any lease and any delay does to the rows."""
LIFT = "UPDATE sagas.fences SET closed = false, epoch = epoch + 1, rollback_id = NULL WHERE closed"
MOVING = (
    "SELECT EXISTS (SELECT FROM sagas.instances WHERE state IN ('running', 'undoing')) OR EXISTS (SELECT FROM "
    "sagas.dispositions WHERE state = 'pending') OR EXISTS (SELECT FROM sagas.rollbacks WHERE carries = 'kill' AND "
    "state NOT IN ('settled', 'waiting'))"
)
LEFT = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1"
T = TypeVar("T")


class Dealt(Entropy):
    """Chance that a seed deals: two runs with one seed make the same ids, hashed into the same ranges."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(f"ids {seed}")
        self._milliseconds = 1_800_000_000_000

    def uuid7(self) -> uuid.UUID:
        self._milliseconds += 1
        high = self._milliseconds << 16 | 0x7000 | self._chance.getrandbits(12)
        return uuid.UUID(int=high << 64 | 0b10 << 62 | self._chance.getrandbits(62))

    def token_bytes(self, count: int) -> bytes:
        return self._chance.randbytes(count)

    def random(self) -> float:
        return self._chance.random()


class Host(Process):
    """A server process in one of its lives."""

    def __init__(self, name: str, fate: Fate, world: World, clock: Hand) -> None:
        super().__init__(name, fate)
        self._pg = Reached(world.pg.url, self)
        self.server = Server(world, self._pg, clock, coordinates=False, writers=1)
        self.server.coordinator = world.coordinator(pg=self._pg, clock=clock, tuning=TUNING)
        self.leases = self.server.coordinator.leases
        self._keeper = Keeper(self._pg, clock, self.server.engine, self.leases, self.server.bells)
        self._drives: dict[uuid.UUID, Drive] = {}

    async def start(self) -> None:
        await self._pg.open_pool()
        await self.server.start()

    async def end(self) -> None:
        """Its lines are cut; it is gone when PostgreSQL has heard of that."""
        await self._pg.end()
        await self.server.stop()

    async def look(self) -> None:
        """What a coordinator does: keep its ranges, look at what time says, and take every rollback as far as it goes."""
        await self.leases.keep()
        while await self._keeper.round():
            pass
        held = self.leases.held()
        async with self._pg.connection() as connection:
            rows = await connection.fetch(QUERIES.open, held, OPEN_MAX)
        for row in sorted(rows, key=lambda row: row["id"]):
            await self._drive(row["id"], row["range"])
        while await self._keeper.round():
            pass

    async def _drive(self, rollback_id: uuid.UUID, number: int) -> None:
        drive = self._drives.setdefault(rollback_id, Drive(self.server.coordinator.tools, rollback_id, number))
        try:
            for _ in range(ROUNDS_MAX):
                if await drive.round() != 0.0:
                    return
        except LeaseLost:
            del self._drives[rollback_id]


class Run:
    """A run of one seed, and of one crash, or of one mutant."""

    def __init__(
        self, world: World, seed: int, at: int = 0, side: Side = "before", twist: tuple[str, str] | None = None
    ) -> None:
        self.fate = Fate(at, side, twist)
        self._world = world
        self._chance = random.Random(f"turns {seed}")
        self._clock = Hand()
        self._provider = Provider()
        self._hosts: list[Host] = []
        self._workers = [Worker(f"worker{number}", self.fate, self._provider, self._clock) for number in range(WORKERS)]
        self._started: dict[str, None] = {}
        self._reported: list[Reported] = []
        self._epoch, self._is_killed, self._lives = 1, False, 0

    async def live(self) -> dict[str, list[str]]:
        """Take the turns, let all of it heal, and judge. Returns what broke each promise."""
        self._hosts = [await self._begin(number) for number in range(SERVERS)]
        try:
            for _ in range(TURNS):
                await self._turn()
            await self._heal()
            return violations(await self._history())
        finally:
            for host in self._hosts:
                await host.end()
                await self._gone(host)

    async def _begin(self, number: int) -> Host:
        self._lives += 1
        host = Host(f"server{number}-{self._lives}", self.fate, self._world, self._clock)
        await host.start()
        return host

    async def _turn(self) -> None:
        turns: tuple[tuple[int, Callable[[], Awaitable[None]]], ...] = (
            (4, self._start), (6, self._claim), (10, self._act), (10, self._tell), (6, self._look), (2, self._time),
            (2, self._kill_or_lift), (1, self._lose),
        )  # fmt: skip
        weights = [weight for weight, _ in turns]
        [(_, turn)] = self._chance.choices(turns, weights)
        await turn()

    async def _ask(self, number: int, work: Callable[[Host], Awaitable[T]]) -> T | None:
        """Ask a server; null where it ended before it answered, and another life of it has begun."""
        host = self._hosts[number]
        try:
            return await work(host)
        except (RuntimeFault, asyncpg.PostgresError, asyncpg.InterfaceError):
            if not host.is_dead:
                raise
            return None
        finally:
            if host.is_dead:
                await host.end()
                await self._gone(host)
                self._hosts[number] = await self._begin(number)

    async def _gone(self, host: Host) -> None:
        """Its transactions, of which nobody hears any more, have ended."""

        async def is_gone() -> bool:
            return not await self._world.value(LEFT, host.name)

        await until(is_gone)

    # --- turns -------------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        number, name = self._chance.randrange(SERVERS), f"o{self._chance.randrange(NAMES)}"
        one = await self._ask(number, lambda host: host.server.begin(name))
        if one is not None and one.outcome == "started":
            assert name not in self._started, "begun twice"
            self._started[name] = None

    async def _claim(self) -> None:
        number, worker = self._chance.randrange(SERVERS), self._chance.choice(self._workers)
        worker.take(await self._ask(number, lambda host: host.server.take(wait_seconds=0, limit=2, lease_seconds=3600)) or [])

    async def _act(self) -> None:
        choices = [(worker, held) for worker in self._workers for held in worker.hands if held.outcome is None]
        if choices:
            worker, held = self._chance.choice(choices)
            luck = self._chance.random()
            worker.act(held, doubts=luck < 0.15, declines=luck > 0.92)

    async def _tell(self) -> None:
        choices = [(worker, held) for worker in self._workers for held in worker.hands if held.outcome is not None]
        if choices:
            worker, held = self._chance.choice(choices)
            await self._report(worker, held, self._chance.randrange(SERVERS), goes_on=self._chance.random() < 0.5)

    async def _report(self, worker: Worker, held: Held, number: int, *, goes_on: bool) -> None:
        then = claim(wait_seconds=0, limit=1, lease_seconds=3600) if goes_on else None
        outcome = str(held.outcome)
        final = {"final": True} if held.is_final else {}
        answer = await self._ask(number, lambda host: host.server.tell(held.task, outcome, then=then, **final))
        if answer is None:
            return  # it is told again
        worker.hands.remove(held)
        worker.take(answer.tasks)
        if answer.results == ["recorded"]:
            self._reported.append(Reported(id=held.task.id, verb=held.task.verb or "undo", outcome=outcome))

    async def _look(self) -> None:
        await self._ask(self._chance.randrange(SERVERS), lambda host: host.look())

    async def _time(self) -> None:
        """Both servers look, so that each has seen the other's leases; then more time passes than any of them lasts."""
        for number in range(SERVERS):
            await self._ask(number, lambda host: host.leases.keep())
        self._clock.at += LEASE_SECONDS
        for statement in PASSES:
            await self._world.run(statement)

    async def _kill_or_lift(self) -> None:
        if self._is_killed:
            await self._world.run(LIFT)
        else:
            await self._world.kill(closes_epoch=self._epoch)
        self._is_killed, self._epoch = not self._is_killed, self._epoch + 1

    async def _lose(self) -> None:
        self._chance.choice(self._workers).end()

    # --- the end -----------------------------------------------------------------------------------------------------

    async def _heal(self) -> None:
        """Everybody works on, without doubts; until nothing moves by itself."""
        if self._is_killed:
            await self._kill_or_lift()
        for _ in range(ROUNDS_MAX):
            await self._time()
            for number in range(SERVERS):
                await self._ask(number, lambda host: host.look())
            for _ in range(2):
                await self._work()
            if not await self._world.value(MOVING) and not any(worker.hands for worker in self._workers):
                return

    async def _work(self) -> None:
        for worker in self._workers:
            worker.take(await self._ask(0, lambda host: host.server.take(wait_seconds=0, limit=10, lease_seconds=3600)) or [])
            for held in list(worker.hands):
                if held.outcome is None:
                    worker.act(held, doubts=False)
                if held in worker.hands:
                    await self._report(worker, held, 1, goes_on=False)

    async def _history(self) -> History:
        async with self._world.pg.connection() as connection:
            found = await read(connection)
        return msgspec.structs.replace(
            found,
            sagas={"order": TERMS},
            entries=self._provider.entries,
            started=[Started(saga="order", id=name) for name in self._started],
            reported=self._reported,
        )

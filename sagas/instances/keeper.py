"""What only time can say, in the ranges that this process's coordinator leases (P18): steps whose leases ran out, processes
that fell silent, waits that have passed, undoings that have ended, lifts of flags whose kills had stopped instances. It is read
from rows: whoever holds a range goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from uuid import UUID

from asyncpg import Record

from runtime.clock import Clock
from runtime.listening import keep_listening
from runtime.postgres import Connection, Postgres
from runtime.queries import Queries
from runtime.telemetry import counter
from sagas import lines
from sagas.conclusions import conclude_locked
from sagas.instances.bells import Bells
from sagas.instances.engine import Engine
from sagas.instances.rows import QUERIES
from sagas.instances.turns import Turn
from sagas.leases import LeaseLost, Leases
from sagas.ledger.groups import AGAIN

READY, ROLLBACK = "rescind_ready", "rescind_rollback"
DISPATCH = Queries.load("sagas", "dispatch")
POLL_SECONDS = 0.5
PAGE = 256

log = logging.getLogger("rescind.instances")
survived = counter("rescind.instances.errors")


class Keeper:
    """One per process, beside its coordinator."""

    def __init__(
        self, pg: Postgres, clock: Clock, engine: Engine, leases: Leases, bells: Bells, *, poll_seconds: float = POLL_SECONDS
    ) -> None:
        self._pg = pg
        self._clock = clock
        self._engine = engine
        self._leases = leases
        self._bells = bells
        self._poll_seconds = poll_seconds
        self._bell = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to look."""
        self._tasks = [asyncio.create_task(self._watch()), asyncio.create_task(self._listen())]

    async def stop(self) -> None:
        """Look no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            try:
                moved = await self.round()
            except Exception as error:
                survived.add(1, {"loop": "watch"})
                log.warning("instances could not be looked at: %s: %s", type(error).__name__, error)
                moved = False
            if not moved:
                try:
                    async with asyncio.timeout(self._poll_seconds):
                        await self._bell.wait()
                except TimeoutError:
                    pass
            self._bell.clear()

    async def round(self) -> bool:
        """Look once at every range that is held. Returns whether there may be more to do at once."""
        held = self._leases.held()
        if not held:
            return False
        async with self._pg.transaction() as connection:
            await connection.execute(DISPATCH.prefer_indexes)
            overdue = await connection.fetch(QUERIES.overdue, held, PAGE)
            passed = await connection.fetch(QUERIES.passed, held, PAGE)
            ended = await connection.fetch(QUERIES.being_undone, held, PAGE)
            forgotten = await connection.fetch(lines.QUERIES.forgotten, held, PAGE)
            lifted = await connection.fetch(QUERIES.lifted, held, PAGE)
            decided = await connection.fetch(lines.QUERIES.decided, held, PAGE)
        going = {row["uid"] for row in lifted}
        for number in sorted({row["range"] for row in [*overdue, *passed, *forgotten, *lifted, *decided]}):
            with contextlib.suppress(LeaseLost, *AGAIN):
                await self._go_on(
                    number, _of(overdue, number), _of(passed, number), _of(forgotten, number), _of(lifted, number)
                )
                await self._leave(number, [row for row in _of(decided, number) if row["uid"] not in going])
        with contextlib.suppress(LeaseLost, *AGAIN):
            await self._conclude(ended)
        return max(map(len, (overdue, passed, ended, forgotten, lifted, decided))) == PAGE

    async def _go_on(
        self,
        number: int,
        overdue: Sequence[Record],
        passed: Sequence[Record],
        forgotten: Sequence[Record],
        lifted: Sequence[Record],
    ) -> None:
        if not (overdue or passed or forgotten or lifted):
            return
        turn = Turn(
            uids=[row["uid"] for row in overdue if row["is_out"]] + [row["uid"] for row in forgotten],
            silent=[row["uid"] for row in overdue if row["is_silent"]],
            passed=[(row["uid"], row["name"]) for row in passed],
        )
        by_flag: dict[str, list[UUID]] = {}
        for row in lifted:
            by_flag.setdefault(row["flag"], []).append(row["uid"])
        turns = [turn, *(Turn(uids=uids) for uids in by_flag.values())]

        async def fence(connection: Connection) -> None:
            await self._leases.fence(connection, number)

        async with self._pg.connection() as connection:
            await self._engine.flush(connection, turns, lock=fence)

    async def _conclude(self, ended: Sequence[Record]) -> None:
        """Say how undoings stand: ended, waiting for a person, or going on again, as it is once they are locked. Whoever ended
        the last part of one has mostly said so already."""
        if not ended:
            return
        async with self._pg.transaction() as connection:
            await lines.hold(connection, [row["uid"] for row in ended])
            held = await self._leases.fence_all(connection, {row["range"] for row in ended})
            uids: list[UUID] = sorted(row["uid"] for row in ended if row["range"] in held)
            await connection.fetch(QUERIES.lock, uids)
            done = await conclude_locked(connection, uids)
            freed = await lines.leave(connection, done) if done else []
        self._bells.ring_ended()
        self._engine.follow(freed)

    async def _leave(self, number: int, decided: Sequence[Record]) -> None:
        """Killed ones whose effects are all decided hold nobody of their subject back any more."""
        if not decided:
            return
        uids: list[UUID] = [row["uid"] for row in decided]
        async with self._pg.transaction() as connection:
            await lines.hold(connection, uids)
            await self._leases.fence(connection, number)
            freed = await lines.leave(connection, uids)
            await connection.execute(QUERIES.unwatch, uids)
        self._engine.follow(freed)

    async def _listen(self) -> None:
        """Hear the bells of other processes."""
        bells = {READY: lambda _: self._bells.ring_ready(), ROLLBACK: lambda _: self._bell.set()}
        await keep_listening(self._pg, self._clock, bells, _not_listening)


def _not_listening(error: Exception) -> None:
    survived.add(1, {"loop": "listen"})
    log.warning("not listening: %s: %s", type(error).__name__, error)


def _of(rows: Sequence[Record], number: int) -> list[Record]:
    return [row for row in rows if row["range"] == number]

"""From *fenced* to *drained* (P8, hazards 1 and 10): the barrier per flag, then the start windows.

*Closed*: every flag's lock was once granted exclusively, each in a transaction of its own, so whatever was being admitted or
reported under the old epoch has ended. *Drained*: besides, no body of the set can begin any more, because its permission was
given back, used or reported, or because the window has run out on this process's monotonic clock, from zero for a successor.
"""

from __future__ import annotations

from uuid import UUID

from runtime.clock import Clock
from runtime.postgres import Postgres
from runtime.queries import Queries
from sagas.leases import Leases

QUERIES = Queries.load("sagas", "coordinator")
START_WINDOW_SECONDS = 2.0
WINDOW_MARGIN_PART = 0.01
WINDOW_MARGIN_SECONDS = 0.05
STEP_SECONDS = 0.01
BARRIER_WAIT_MS = 10_000


class Drain:
    """Closes and drains the rollbacks of one coordinator."""

    def __init__(
        self, pg: Postgres, clock: Clock, leases: Leases, *, start_window_seconds: float = START_WINDOW_SECONDS
    ) -> None:
        self._pg = pg
        self._clock = clock
        self._leases = leases
        self._window_seconds = start_window_seconds * (1 + WINDOW_MARGIN_PART) + WINDOW_MARGIN_SECONDS

    async def close(self, rollback_id: UUID, version: int, shards: int) -> None:
        """Pass the barrier of each flag that has not been closed, then say that the set is complete."""
        async with self._pg.connection() as connection:
            flags = [(row["flag"], row["lock_key"]) for row in await connection.fetch(QUERIES.unclosed, rollback_id)]
        for flag, lock_key in flags:
            async with self._pg.transaction() as connection:
                await self._leases.fence(connection, shards)
                await connection.execute(QUERIES.limit_wait, str(BARRIER_WAIT_MS))
                await connection.execute(QUERIES.barrier, lock_key)
                await connection.execute(QUERIES.close_flag, rollback_id, flag)
        async with self._pg.transaction() as connection:
            await self._leases.fence(connection, shards)
            await connection.execute(QUERIES.close, rollback_id, version)

    async def drain(self, rollback_id: UUID, version: int, shards: int) -> None:
        """Wait until no body of the set can begin any more, and write it down. Ends without a word if the lease is lost."""
        begun = self._clock.monotonic()
        async with self._pg.connection() as connection:
            permitted = [row["id"] for row in await connection.fetch(QUERIES.permissions, rollback_id)]
        while permitted and self._clock.monotonic() - begun < self._window_seconds:
            async with self._pg.connection() as connection:
                if not await connection.fetchval(QUERIES.still_permitted, permitted):
                    break
            if not self._leases.trusted(shards):
                return
            await self._clock.sleep(STEP_SECONDS)
        async with self._pg.transaction() as connection:
            await self._leases.fence(connection, shards)
            await connection.execute(QUERIES.drain, rollback_id, version)

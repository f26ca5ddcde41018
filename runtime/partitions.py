"""The audit log's months: partitions made ahead, and dropped whole when the last of their entries is older than is kept.

Every server looks now and then; whoever is first does it. Attaching keeps no entry waiting. Dropping needs the log for
itself, for an instant: it waits no longer than `LOCK_WAIT_MS` for that, so nobody waits longer behind it, and is tried again.
"""

from __future__ import annotations

import logging

import asyncpg

from runtime.audit import QUERIES
from runtime.postgres import Postgres
from runtime.telemetry import Gauge, counter

MONTHS_AHEAD = 3
LOCK_WAIT_MS = 200
ROUND_MAX = 24
"""So many partitions are made, or dropped, at once at most."""

log = logging.getLogger("rescind.partitions")
dropped_count = counter("rescind.audit.partitions_dropped")
put_off = counter("rescind.audit.partitions_put_off")
unplaced = Gauge("rescind.audit.unplaced")


class AuditPartitions:
    """Tends to them. `keep_days`: null keeps all."""

    def __init__(self, pg: Postgres, keep_days: int | None) -> None:
        self._pg = pg
        self._keep_days = keep_days

    async def tend(self) -> None:
        """Make what is missing ahead, drop what is over (`runtime.forgetting` calls it); what is in use, the next time."""
        try:
            for _ in range(ROUND_MAX):
                if await self._one(QUERIES.make_partition, MONTHS_AHEAD) is None:
                    break
            await self._drop()
        except asyncpg.LockNotAvailableError:
            put_off.add(1)
            log.info("the audit log is in use: its partitions are tended to later")
        async with self._pg.connection() as connection:
            unplaced.set({(): float(await connection.fetchval(QUERIES.rest_holds))})

    async def _drop(self) -> None:
        for _ in range(ROUND_MAX if self._keep_days is not None else 0):
            name = await self._one(QUERIES.drop_partition, self._keep_days)
            if name is None:
                return
            dropped_count.add(1)
            log.info("partition %s of the audit log was dropped: all of it is older than %s days", name, self._keep_days)

    async def _one(self, query: str, argument: int | None) -> str | None:
        async with self._pg.transaction() as connection:
            await connection.execute(QUERIES.limit_lock_wait, str(LOCK_WAIT_MS))
            name: str | None = await connection.fetchval(query, argument)
            return name

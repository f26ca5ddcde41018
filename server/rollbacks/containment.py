"""Writes down when a kill was contained: every instance alive at it acknowledged, signed off, or ran stale.

Any server may write it, once: the instant is computed from PostgreSQL's rows, so it is the same whoever does.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable

from runtime.clock import Clock
from runtime.errors import RuntimeFault
from runtime.postgres import Postgres
from server.rollbacks import holders
from server.rollbacks.record import QUERIES, containment_of, instances

RECENT_SECONDS = 7 * 86_400.0
"""Older rollbacks are no longer looked at: an instance that silent for so long will not come back to acknowledge."""
FRESH_SECONDS = 60.0
POLL_FRESH_SECONDS = 0.1
POLL_SECONDS = 1.0
REST_SECONDS = 0.02
"""Between two looks: a thousand instances that acknowledge at once are looked at together."""
LOOKS_PER_WHOLE_LOOK = 10
"""Only every so many looks go over the rollbacks that are no longer fresh."""

log = logging.getLogger("rescind.containment")


class ContainmentWatch:
    """A loop over the rollbacks that are not contained, or wait for records. `bell()` makes it look at once."""

    def __init__(self, pg: Postgres, clock: Clock) -> None:
        self._pg = pg
        self._clock = clock
        self._rung = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to watch."""
        self._task = asyncio.create_task(self._run(), name="containment")

    async def stop(self) -> None:
        """Stop; nothing is lost, another server or the next start goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def bell(self) -> None:
        """An instance acknowledged, or a flag was killed."""
        self._rung.set()

    async def look(self, since_seconds: float = RECENT_SECONDS) -> bool:
        """Write `contained_at` where it is due, of kills that young. Answers whether a fresh one is still uncontained."""
        fresh = False
        async with self._pg.connection() as connection:
            now = self._clock.now()
            for row in await connection.fetch(QUERIES.uncontained, since_seconds):
                begun = max(row["killed_at"] or row["fenced_at"], row["fenced_at"])
                known = containment_of(begun, await instances(connection, row["id"]))
                if known.contained_at is not None:
                    await connection.execute(QUERIES.contain, row["id"], known.contained_at, row["generation"], row["revision"])
                else:
                    fresh = fresh or (now - row["fenced_at"]).total_seconds() < FRESH_SECONDS
        return fresh

    async def _run(self) -> None:
        for look in itertools.count():
            wait_seconds = POLL_SECONDS
            self._rung.clear()
            try:
                if await self.look(FRESH_SECONDS if look % LOOKS_PER_WHOLE_LOOK else RECENT_SECONDS):
                    wait_seconds = POLL_FRESH_SECONDS
                await holders.look(self._pg)
            except RuntimeFault as error:
                log.info("containment is not watched: %s", error)
            except Exception:
                log.exception("containment could not be judged")
            await self._clock.sleep(REST_SECONDS)
            await first_of(self._rung.wait(), self._clock.sleep(wait_seconds - REST_SECONDS))


async def first_of(*waits: Awaitable[object]) -> None:
    """Return when the first of them ends; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

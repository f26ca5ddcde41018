"""Looks through history from its oldest row, a page at a time, and drops what is over (P9, P12, docs/decisions/0031).

Whoever leases the first range does so. A page is one transaction: what goes, what stays of it, and how far this sweep has come.
So a crash leaves all of a page or nothing, and of two coordinators one moves on. It holds the flags' locks shared, as an
admission does, and rows of ended history: it keeps no insert waiting, and a kill's drain barrier for one page at most.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from uuid import UUID

from asyncpg import Record
from msgspec import Struct

from runtime.background import Background
from runtime.clock import Clock
from runtime.postgres import Connection, Postgres
from runtime.queries import Queries
from runtime.telemetry import Gauge, counter
from sagas import store
from sagas.leases import LeaseLost, Leases
from sagas.ledger.admission import FLAGS_MAX
from sagas.ledger.groups import AGAIN
from sagas.retention import answers, history
from sagas.retention.history import QUERIES, Page
from sagas.retention.policy import Retention

DISPATCH = Queries.load("sagas", "dispatch")
SWEPT_RANGE = 0
PAGE_MAX = 256
PAUSE_SECONDS = 0.05
"""Between two pages: a sweep takes its turn among everything else."""
POLL_SECONDS = 60.0
REST_SECONDS = 6 * 3_600.0
"""From the end of one sweep to the begin of the next."""

log = logging.getLogger("rescind.retention")
survived = counter("rescind.retention.errors")
dropped_count = counter("rescind.retention.dropped")
sweep_age = Gauge("rescind.retention.sweep_age", "s")

Drop = Callable[[Connection, Sequence[UUID]], Awaitable[int]]


class Found(Struct, frozen=True, kw_only=True):
    """A page, and how what is over on it goes."""

    page: Page
    drop: Drop
    locks: dict[UUID, frozenset[int]] = {}


class Sweeper(Background):
    """One per process, beside its coordinator."""

    def __init__(
        self,
        pg: Postgres,
        clock: Clock,
        leases: Leases,
        retention: Retention,
        *,
        page_max: int = PAGE_MAX,
        rest_seconds: float = REST_SECONDS,
    ) -> None:
        self._pg = pg
        self._clock = clock
        self._leases = leases
        self._retention = retention
        self._page_max = page_max
        self._rest_seconds = rest_seconds

    async def run(self) -> None:
        """Sweep until cancelled; a page that is cut off has left nothing."""
        while True:
            more = False
            try:
                more = await self.round()
            except Exception as error:
                survived.add(1)
                log.warning("history could not be looked through: %s: %s", type(error).__name__, error)
            await self._clock.sleep(PAUSE_SECONDS if more else POLL_SECONDS)

    async def round(self) -> bool:
        """One page of every sweep that is due. Returns whether there is more to do at once."""
        if not self._leases.trusted(SWEPT_RANGE):
            sweep_age.set({})
            return False
        async with self._pg.connection() as connection:
            standing = await connection.fetch(QUERIES.standing, self._rest_seconds)
            shortest = await connection.fetchval(QUERIES.shortest, self._retention.history_days)
        _show(standing)
        more = False
        for row in standing:
            if row["is_due"]:
                try:
                    more |= await self._page(row["what"], row["cursor"], shortest)
                except (LeaseLost, *AGAIN):
                    continue
        return more

    async def _page(self, what: str, cursor: UUID, shortest: int | None) -> bool:
        """Look, then drop in one transaction. Returns whether another page follows."""
        async with self._pg.transaction() as connection:
            await connection.execute(DISPATCH.prefer_indexes)
            found = await self._look(connection, what, cursor, shortest)
        if found is None:
            return False
        chosen, locks, after = _chosen(found)
        async with self._pg.transaction() as connection:
            await self._leases.fence(connection, SWEPT_RANGE)
            if locks:
                await connection.execute(store.locking(locks))
            if await connection.fetchrow(QUERIES.hold_sweep, what, cursor) is None:
                return True
            dropped = await found.drop(connection, chosen) if chosen else 0
            await connection.execute(QUERIES.move_sweep, what, after, found.page.looked, dropped)
        if dropped:
            dropped_count.add(dropped, {"what": what})
        return after is not None

    async def _look(self, connection: Connection, what: str, cursor: UUID, shortest: int | None) -> Found | None:
        """The next page of a sweep; null where all of it is kept for ever."""
        days, keys_days, limit = self._retention.history_days, self._retention.keys_days, self._page_max
        match what:
            case "effects" if shortest is not None:
                page = await history.old_effects(connection, cursor, shortest, days, limit)
                locks = await history.locks_of_effects(connection, page.over)
                return Found(page=page, drop=partial(history.drop_effects, days=days), locks=locks)
            case "instances" if shortest is not None:
                page = await history.old_instances(connection, cursor, shortest, days, limit)
                locks = await history.locks_of_instances(connection, page.over)
                return Found(page=page, drop=partial(history.drop_instances, days=days), locks=locks)
            case "operations" if days is not None:
                return Found(page=await answers.old_operations(connection, cursor, days, limit), drop=answers.drop_operations)
            case "keys" if keys_days is not None:
                return Found(page=await answers.old_keys(connection, cursor, keys_days, limit), drop=answers.drop_keys)
            case "instance_ids" if keys_days is not None:
                page = await answers.old_instance_ids(connection, cursor, keys_days, limit)
                return Found(page=page, drop=answers.drop_instance_ids)
        return None


def _chosen(found: Found) -> tuple[list[UUID], set[int], UUID | None]:
    """What goes, under which locks, and where the next page begins: behind what did not fit under these locks."""
    over = found.page.over
    chosen, locks = history.within_locks([(one, found.locks.get(one, frozenset())) for one in over], FLAGS_MAX)
    return chosen, locks, found.page.after if len(chosen) == len(over) else chosen[-1]


def _show(standing: Sequence[Record]) -> None:
    """Seconds since each sweep last came to its end."""
    sweep_age.set({(("what", row["what"]),): row["since_ended_seconds"] for row in standing if row["ended_at"] is not None})

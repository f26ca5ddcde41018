"""Goes over what is due, latest completion first, and begins what may begin (P14, P17).

A pass looks at one window of due compensations after the other. Where a window lets something begin, the next pass starts at
the front again, for what is unblocked stands there. A pass that saw everything and could begin nothing asks why: a pace lets
one begin soon, a worker may claim, a circle of merged compensations is opened, or it all stands behind questions to people.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from asyncpg import Record

from runtime.queries import Queries
from sagas.claims import Claimed, Cursor
from sagas.enumeration import Rollback
from sagas.tools import Tools

QUERIES = Queries.load("sagas", "coordinator")
DISPATCH = Queries.load("sagas", "dispatch")
WINDOWS_MAX = 8
LOOKS = 8


class Passes:
    """Those of one rollback. `ring_in` asks for another pass after so many seconds."""

    def __init__(self, tools: Tools, rollback_id: UUID, shards: int, ring_in: Callable[[float], None]) -> None:
        self._tools = tools
        self._id = rollback_id
        self._shards = shards
        self._ring_in = ring_in
        self._cursor: Cursor | None = None
        self._orderly = self._free = 0
        self._missed_at: float | None = None

    async def claim(self, row: Record, rollback: Rollback) -> bool:
        """Begin what may begin, window by window. Returns whether to go on at once."""
        if self._cursor is None:
            self._orderly = self._free = 0
        for _ in range(1 if row["is_unenumerated"] else WINDOWS_MAX):
            free = self._tools.dispatcher.free
            if free == 0:
                return False
            claimed = await self._claim_window(rollback, free, relax=False)
            if claimed is None:
                return False
            self._cursor = claimed.cursor
            self._orderly += claimed.orderly
            self._free += claimed.free
            if claimed.attempts:
                self._cursor = None
                if row["state"] == "waiting":
                    await self._write(QUERIES["pass"], self._id, row["version"], "waiting", "compensating")
                return True
            if claimed.next_in_seconds is not None:
                self._ring_in(claimed.next_in_seconds)
            if self._cursor is None:
                return not self._free and await self.unblock(row, rollback)
        return True

    async def _claim_window(self, rollback: Rollback, limit: int, *, relax: bool) -> Claimed | None:
        tools = self._tools
        async with tools.pg.transaction() as connection:
            await tools.leases.fence(connection, self._shards)
            claimed = await tools.claims.claim(
                connection, self._id, actor=tools.actor, limit=limit, after=self._cursor, relax=relax
            )
        for attempt in claimed.attempts if claimed else ():
            tools.dispatcher.carry_out(attempt, rollback, self._shards)
        return claimed

    async def unblock(self, row: Record, rollback: Rollback) -> bool:
        """Something is due and nothing may begin here. It all stands behind questions (docs/decisions/0033), or others go on
        with it, or, if it stays so, a circle is opened."""
        async with self._tools.pg.transaction() as connection:
            await connection.execute(DISPATCH.prefer_indexes)
            standing = await connection.fetchrow(DISPATCH.standing, rollback.environment, self._id)
            is_calm = standing["is_calm"] and not await connection.fetchval(DISPATCH.moves_elsewhere, self._id)
        before, after = ("compensating", "waiting") if standing["is_asked"] else ("waiting", "compensating")
        if row["state"] == before:
            await self._write(QUERIES["pass"], self._id, row["version"], before, after)
        return is_calm and not standing["is_asked"] and not self._orderly and await self._open_circle(rollback)

    async def _open_circle(self, rollback: Rollback) -> bool:
        """Merged compensations that wait for each other: one of them begins out of order (docs/decisions/0004)."""
        for _ in range(WINDOWS_MAX):
            claimed = await self._claim_window(rollback, 1, relax=True)
            if claimed is None:
                return False
            self._cursor = claimed.cursor
            if claimed.attempts or self._cursor is None:
                self._cursor = None
                return bool(claimed.attempts)
        return False

    async def miss_workers(self) -> None:
        """What waits for a worker and has none is a person's. It is looked for a few times in the while that it may wait."""
        now, wait_seconds = self._tools.clock.monotonic(), self._tools.no_worker_seconds
        if self._missed_at is not None and now - self._missed_at < wait_seconds / LOOKS:
            return
        self._missed_at = now
        async with self._tools.pg.transaction() as connection:
            await self._tools.leases.fence(connection, self._shards)
            rows = await connection.fetch(DISPATCH.no_worker, self._id, wait_seconds)
            if rows:
                await connection.execute(DISPATCH.follow, [row["id"] for row in rows])

    async def _write(self, query: str, *arguments: Any) -> None:
        async with self._tools.pg.transaction() as connection:
            await self._tools.leases.fence(connection, self._shards)
            await connection.execute(query, *arguments)

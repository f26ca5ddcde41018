"""Who may still hold records of effects that were begun without the server: a rollback is not settled before they have spoken.

A flag that declares `on_unreachable: proceed` is exempt from durable admission (P10). What was begun under it stands in the
journals of instances until they reach a server; so its rollback waits for each instance to say that it knows of the kill and
holds nothing, or for a named person to write it off (P11, P12).
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import asyncpg
from msgspec import Struct

from runtime.postgres import Postgres
from runtime.queries import Queries

QUERIES = Queries.load("server.rollbacks", "holders")
LOOKED_MAX = 1_000
NAMED_MAX = 100


class Holder(Struct, frozen=True, kw_only=True):
    """One instance that may hold records, or was written off. `has_open`: it said that it does."""

    instance: str
    service: str
    seen_at: datetime
    has_open: bool
    cleared_at: datetime | None = None
    how: str | None = None
    by_whom: str | None = None
    reason: str | None = None


class Proceeding(Struct, frozen=True, kw_only=True):
    """What of a rollback was begun without the server. `holders`: the first of them, by name, those not cleared before."""

    flags: list[str]
    effects: int
    holders: list[Holder]

    @property
    def missing(self) -> list[Holder]:
        """Those for whom the rollback waits."""
        return [holder for holder in self.holders if holder.cleared_at is None]


async def load(connection: asyncpg.Connection, rollback_id: UUID) -> Proceeding | None:
    """What the rollback knows of it, or null where none of its flags ever declared it."""
    row = await connection.fetchrow(QUERIES.proceeding, rollback_id)
    if row is None or not row["flags"]:
        return None
    rows = await connection.fetch(QUERIES.of, rollback_id, NAMED_MAX)
    return Proceeding(flags=row["flags"], effects=row["effects"], holders=[Holder(**dict(each)) for each in rows])


async def look(pg: Postgres) -> None:
    """Note and clear the holders of every rollback that is not settled. Any server may, as often as it likes."""
    async with pg.connection() as connection:
        open_ones = await connection.fetch(QUERIES.open, LOOKED_MAX)
    for row in open_ones:
        async with pg.transaction() as connection:
            if await connection.fetchval(QUERIES.locked, row["id"]) is None:
                continue
            await connection.execute(QUERIES.note, row["id"])
            cleared = await connection.fetch(QUERIES.clear, row["id"])
            await connection.execute(QUERIES.looked, row["id"])
            if cleared:
                await connection.execute(QUERIES.cleared, row["id"])

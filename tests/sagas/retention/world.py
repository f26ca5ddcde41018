"""A ledger and instances whose history is a hundred days old, and the sweeps that drop it."""

from __future__ import annotations

import uuid
from typing import Any

from runtime.clock import Clock, Entropy
from runtime.postgres import Postgres
from sagas.leases import Leases
from sagas.retention import history
from sagas.retention.policy import Retention
from sagas.retention.sweeper import Sweeper

DAYS = 100
MOMENTS = {
    "sagas.effects": ("admitted_at", "completed_at", "start_until", "lease_until"),
    "sagas.dispositions": ("changed_at",),
    "sagas.instances": ("started_at", "changed_at", "ended_at"),
    "sagas.operations": ("created_at", "ended_at"),
    "sagas.remains": ("gone_at",),
    "sagas.instance_remains": ("gone_at",),
}
COUNTED = (
    "effects", "keys", "remains", "dispositions", "compensations", "attempts", "members", "instances", "instance_remains",
    "facts", "strays", "gone",
)  # fmt: skip


class LongAgo(Entropy):
    """Names as they were given so many days ago."""

    def __init__(self, days: int = DAYS) -> None:
        self._before = days * 86_400_000

    def uuid7(self) -> uuid.UUID:
        """A name of that day."""
        now = super().uuid7().int
        return uuid.UUID(int=now - (self._before << 80))


class History:
    """What is on record in a database, made old, and swept."""

    def __init__(self, pg: Postgres, leases: Leases | None = None) -> None:
        self.pg = pg
        self.clock = Clock()
        self._keeps = leases is None
        self.leases = leases or Leases(pg, self.clock, f"tests/{uuid.uuid4()}")

    async def age(self, days: int = DAYS) -> None:
        """Everything that is on record happened so many days earlier."""
        async with self.pg.transaction() as connection:
            for table, columns in MOMENTS.items():
                moved = ", ".join(f"{column} = {column} - {days} * interval '1 day'" for column in columns)
                await connection.execute(f"UPDATE {table} SET {moved}")

    def sweeper(self, *, history_days: int | None = 30, keys_days: int | None = None, **options: Any) -> Sweeper:
        """One, not started, on this history's lease."""
        retention = Retention(history_days=history_days, keys_days=keys_days)
        return Sweeper(self.pg, self.clock, self.leases, retention, rest_seconds=0.0, **options)

    async def sweep(self, **options: Any) -> None:
        """All of it, once."""
        sweeper, more = self.sweeper(**options), True
        while more:
            if self._keeps:
                await self.leases.keep()
            more = await sweeper.round()

    async def drop(self, days: int | None = 30) -> None:
        """All effects that are over, whatever their names say of their age."""
        async with self.pg.transaction() as connection:
            ids = [row["id"] for row in await connection.fetch("SELECT id FROM sagas.effects")]
            await history.drop_effects(connection, ids, days)

    async def counts(self, *tables: str) -> dict[str, int]:
        """Rows by table."""
        async with self.pg.connection() as connection:
            return {name: await connection.fetchval(f"SELECT count(*) FROM sagas.{name}") for name in tables or COUNTED}

    async def value(self, query: str, *arguments: Any) -> Any:
        """One value."""
        async with self.pg.connection() as connection:
            return await connection.fetchval(query, *arguments)

"""Leases: the time-limited right of one coordinator to act on a range of rollbacks (P18, hazard 14).

Every write of a coordinator begins with `fence`: no row, no write. Whoever takes over has first seen the same token unchanged
for the lease's full length on its own monotonic clock; the holder counts from before its renewal and stops at two thirds. A
lease that was given back is free at once. PostgreSQL's clock alone judges; two clocks are never compared.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from asyncpg import Record
from msgspec import Struct

from runtime.clock import Clock
from runtime.postgres import Connection, Postgres
from runtime.queries import Queries

QUERIES = Queries.load("sagas", "leases")
RANGES = 16
LEASE_SECONDS = 5.0
RENEW_SECONDS = 1.5
LOOK_SECONDS = 0.25
TRUSTED_PART = 2 / 3
WRITE_LEASES = 6
"""A fenced write that has not ended after so many lengths of a lease is cut off, whatever it is doing."""


class LeaseLost(Exception):  # noqa: N818 - what happened, not what went wrong
    """The range is not ours any more: nothing was written, and nothing may be."""


class Lease(Struct, frozen=True):
    """A range that this coordinator holds. `trusted_until` is on its own monotonic clock."""

    range: int
    token: int
    trusted_until: float


class Leases:
    """The ranges of one coordinator, whose `identity` no other process ever bore."""

    def __init__(self, pg: Postgres, clock: Clock, identity: str, *, lease_seconds: float = LEASE_SECONDS) -> None:
        self._pg = pg
        self._clock = clock
        self._identity = identity
        self.lease_seconds = lease_seconds
        self._held: dict[int, Lease] = {}
        self._seen: dict[int, tuple[tuple[int, datetime], float]] = {}

    def held(self) -> list[int]:
        """The ranges on which this process may act now."""
        return [number for number in self._held if self.trusted(number)]

    def trusted(self, number: int) -> bool:
        """Whether this process may still begin an act that needs the range: to be asked just before each outside call."""
        lease = self._held.get(number)
        return lease is not None and self._clock.monotonic() < lease.trusted_until

    async def fence(self, connection: Connection, number: int) -> None:
        """The first statement of a write. Raises `LeaseLost` when the range is not ours any more."""
        lease = self._held.get(number)
        stall_ms = max(1, round(self.lease_seconds * 1000))
        limits = (str(stall_ms), str(stall_ms * WRITE_LEASES))
        row = lease and await connection.fetchrow(QUERIES.fence, number, lease.token, self._identity, *limits)
        if row is None:
            raise LeaseLost(number)

    async def fence_all(self, connection: Connection, numbers: Collection[int]) -> set[int]:
        """The first statement of a write over several ranges: those that are still ours, of which alone may be written.
        Raises `LeaseLost` when none is."""
        leases = [self._held[number] for number in sorted(numbers) if number in self._held]
        stall_ms = max(1, round(self.lease_seconds * 1000))
        limits = (str(stall_ms), str(stall_ms * WRITE_LEASES))
        named = ([lease.range for lease in leases], [lease.token for lease in leases])
        rows = leases and await connection.fetch(QUERIES.fence_all, self._identity, *named, *limits)
        if not rows:
            raise LeaseLost(*numbers)
        return {row["range"] for row in rows}

    async def keep(self) -> None:
        """Renew what is held, and take what is free or was seen unchanged for a lease's length. Raises `Unavailable`."""
        await self._renew()
        await self.look()

    async def look(self) -> None:
        """Take what is free or was seen unchanged for a lease's length. The oftener one looks, the sooner one knows; where
        everything is held here there is nothing to look for. Raises `Unavailable`."""
        if len(self._held) == RANGES:
            return
        begun = self._clock.monotonic()
        async with self._pg.connection() as connection:
            rows = await connection.fetch(QUERIES.observe)
            wanted = [(row["range"], row["token"]) for row in rows if self._may_take(row, begun)]
            if not wanted:
                return
            begun = self._clock.monotonic()
            taken = await connection.fetch(
                QUERIES.take, self._identity, [r for r, _ in wanted], [t for _, t in wanted], self.lease_seconds
            )
        for row in taken:
            self._held[row["range"]] = self._lease(row["range"], row["token"], begun)

    async def give_back(self) -> None:
        """Free every range for the others at once. Nothing of ours may act any more."""
        held, self._held = list(self._held.values()), {}
        async with self._pg.connection() as connection:
            await connection.execute(
                QUERIES.give_back, self._identity, [lease.range for lease in held], [lease.token for lease in held]
            )

    async def _renew(self) -> None:
        if not self._held:
            return
        held = list(self._held.values())
        begun = self._clock.monotonic()
        async with self._pg.connection() as connection:
            rows = await connection.fetch(
                QUERIES.renew,
                self._identity,
                [lease.range for lease in held],
                [lease.token for lease in held],
                self.lease_seconds,
            )
        renewed = {row["range"] for row in rows}
        for lease in held:
            if lease.range in renewed:
                self._held[lease.range] = self._lease(lease.range, lease.token, begun)
            else:
                del self._held[lease.range]

    def _lease(self, number: int, token: int, begun: float) -> Lease:
        return Lease(number, token, begun + self.lease_seconds * TRUSTED_PART)

    def _may_take(self, row: Record, now: float) -> bool:
        if row["range"] in self._held:
            return False
        mark = (row["token"], row["renewed_at"])
        last = self._seen.get(row["range"])
        if last is None or last[0] != mark:
            last = self._seen[row["range"]] = (mark, now)
        return bool(row["is_free"] or (row["is_expired"] and now - last[1] >= self.lease_seconds))

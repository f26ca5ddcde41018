"""Carries bulk operations out, chunk by chunk, in the ranges that this process's coordinator leases (P18, P20).

A chunk is one turn of the engine: what is said to its instances, the operation's counts and where it stands are one
transaction, fenced by the range's lease and the operation's row. Whoever takes over goes on after the last chunk; a cancel
waits for the chunk under way, and none follows. What is being undone already is decided on by itself, as with one instance:
said twice, it stood.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from asyncpg import Record
from msgspec import Struct

from runtime.background import Background
from runtime.clock import Clock
from runtime.postgres import Connection, Postgres
from runtime.telemetry import counter
from sagas.instances import rows, search
from sagas.instances.engine import Engine
from sagas.instances.operations import QUERIES
from sagas.instances.search import HIGHEST, Filter
from sagas.instances.service import Instances
from sagas.instances.turns import Heard, Turn, Word
from sagas.leases import LeaseLost, Leases
from sagas.ledger.admission import FLAGS_MAX
from sagas.ledger.groups import AGAIN

CHUNK_MAX = 64
CHUNK_SECONDS = 0.25
LOOKED_MAX = 5_000
OPEN_MAX = 100
POLL_SECONDS = 0.5

log = logging.getLogger("rescind.operations")
survived = counter("rescind.operations.errors")
heard_count = counter("rescind.operations.instances")


class Ended(Exception):  # noqa: N818 - what happened, not what went wrong
    """The operation was cancelled, or another goes on with it: nothing was written."""


class Chunk(Struct, frozen=True, kw_only=True):
    """The next instances of an operation. `below`: where the one after it begins; null: there is none."""

    rows: list[Record]
    below: UUID | None


class Bulk(Background):
    """One per process, beside its coordinator."""

    def __init__(self, pg: Postgres, clock: Clock, engine: Engine, instances: Instances, leases: Leases) -> None:
        self._pg = pg
        self._clock = clock
        self._engine = engine
        self._instances = instances
        self._leases = leases

    async def run(self) -> None:
        """Look until cancelled; a chunk that is cut off has left nothing."""
        while True:
            wait_seconds = POLL_SECONDS
            try:
                wait_seconds = await self.round()
            except Exception as error:
                survived.add(1, {"loop": "watch"})
                log.warning("operations could not be looked at: %s: %s", type(error).__name__, error)
            await self._clock.sleep(wait_seconds)

    async def round(self) -> float:
        """One chunk of every operation that is due. Returns in how many seconds to look again."""
        held = self._leases.held()
        if not held:
            return POLL_SECONDS
        async with self._pg.connection() as connection:
            standing = await connection.fetch(QUERIES.standing, held, OPEN_MAX)
        for row in standing:
            if row["in_seconds"] <= 0:
                try:
                    await self._chunk(row)
                except (Ended, LeaseLost, *AGAIN):
                    continue
                except Exception as error:
                    survived.add(1, {"loop": "chunk"})
                    log.warning("operation %s: %s: %s", row["id"], type(error).__name__, error)
                    return POLL_SECONDS
        waits = [row["in_seconds"] if row["in_seconds"] > 0 else size_of(row) / row["per_second"] for row in standing]
        return float(min([*waits, POLL_SECONDS]))

    async def _chunk(self, operation: Record) -> None:
        chunk = await self._next(operation)
        laid = [row for row in chunk.rows if row["laid"] and operation["verb"] in ("retry", "skip")]
        reasons: Counter[str | None] = Counter()
        for row in laid:
            reasons[await self._decided(operation, row)] += 1
        words = [_word(operation, row) for row in chunk.rows if row not in laid]

        async def fence(connection: Connection) -> None:
            await self._fence(connection, operation)

        async def seal(connection: Connection, heard: Sequence[Heard]) -> None:
            await self._advance(connection, operation, chunk, reasons + Counter(reason_of(operation, one) for one in heard))

        if words:
            async with self._pg.connection() as connection:
                await self._engine.flush(connection, [Turn(words=words)], lock=fence, seal=seal)
        else:
            async with self._pg.transaction() as connection:
                await fence(connection)
                await seal(connection, [])
        heard_count.add(len(chunk.rows), {"verb": operation["verb"]})

    async def _next(self, operation: Record) -> Chunk:
        """As many as the pace allows and as a turn can lock the flags of."""
        wanted = msgspec.convert(operation["filter"], Filter)
        below = None if operation["cursor"] == HIGHEST else operation["cursor"]
        async with self._pg.transaction() as connection:
            page = await search.page(
                connection, operation["environment"], operation["saga"], wanted, below=below, limit=size_of(operation),
                looked_max=LOOKED_MAX,
            )  # fmt: skip
            found = await rows.locks(connection, [row["uid"] for row in page.rows]) if page.rows else {}
        locks: set[Any] = set()
        for number, row in enumerate(page.rows):
            locks |= found[row["uid"]].flags.keys() if row["uid"] in found else set()
            if number and len(locks) > FLAGS_MAX:
                return Chunk(rows=page.rows[:number], below=page.rows[number - 1]["uid"])
        return Chunk(rows=page.rows, below=page.next)

    async def _decided(self, operation: Record, row: Record) -> str | None:
        """Of one that is being undone. Null where it changed something, else where it stands."""
        if not self._leases.trusted(operation["range"]):
            raise LeaseLost(operation["range"])
        async with self._pg.transaction() as connection:
            await self._fence(connection, operation)
        heard = await self._instances.decide_undoing(
            row, operation["verb"], operation["step"], operation["actor"], operation["reason"], operation["id"]
        )
        return reason_of(operation, heard)

    async def _fence(self, connection: Connection, operation: Record) -> None:
        await self._leases.fence(connection, operation["range"])
        if await connection.fetchrow(QUERIES.lock, operation["id"], operation["cursor"]) is None:
            raise Ended(operation["id"])

    async def _advance(self, connection: Connection, operation: Record, chunk: Chunk, reasons: Counter[str | None]) -> None:
        done = reasons.pop(None, 0)
        refused = Counter(operation["refused"]) + Counter({str(reason): count for reason, count in reasons.items()})
        await connection.execute(
            QUERIES.advance, operation["id"], chunk.below or operation["cursor"], operation["done"] + done, dict(refused),
            len(chunk.rows) / operation["per_second"], chunk.below is None,
        )  # fmt: skip


def size_of(operation: Record) -> int:
    """How many instances a chunk has: what `CHUNK_SECONDS` allow, at least one."""
    return min(CHUNK_MAX, max(1, int(operation["per_second"] * CHUNK_SECONDS)))


def reason_of(operation: Record, heard: Heard) -> str | None:
    """Why it was left as it stands: `past_pivot`, or how it stands; null where it was done."""
    if heard.changed:
        return None
    return heard.why or ("paused" if heard.paused and operation["verb"] == "pause" else heard.state or "unknown")


def _word(operation: Record, row: Record) -> Word:
    return Word(
        uid=row["uid"],
        environment=operation["environment"],
        fact=operation["verb"],
        name=operation["step"],
        by_whom=operation["actor"],
        reason=operation["reason"],
        operation=operation["id"],
    )

"""Whether the synchronous standby has a kill: it stands without, and people are told (hazard 6).

A kill commits with `synchronous_commit=local`, so that a standby that is away keeps nobody from being protected. What it cannot
promise then is that it outlives the primary. So whoever killed waits a bounded while for the standby and says what came of it:
a kill that only the primary has is lost with it for PostgreSQL; replicas and Redis that have seen it lay it again (hazard 5).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from uuid import UUID

import asyncpg
from msgspec import Struct

from runtime.errors import OutcomeUnknown, Unavailable
from runtime.postgres import BEGIN, UNUSABLE, Connection, drop, transaction_on
from runtime.queries import Queries

QUERIES = Queries.load("server.rollbacks", "standby")
CONFIRM_SECONDS = 1.0
"""How long the answer to a kill waits for the standby. The kill itself has long been told to everyone."""
NOTE_SECONDS = 5.0
PATIENCE_SECONDS = 0.2
"""How long a kill waits for locks before it looks who holds them."""


class Standby(Struct, frozen=True, kw_only=True):
    """`confirmed`: the synchronous standby has the kill. `names`: which ones, where this role may see them."""

    confirmed: bool
    names: list[str]
    waited_ms: float
    at: datetime


async def confirm(connection: Connection, rollback_id: UUID) -> Standby | None:
    """Wait for the standby, after the kill's commit, and write down what came of it. Null: PostgreSQL has no synchronous one.

    Raises `Unavailable` and `OutcomeUnknown`; the kill stands all the same.
    """
    if not await connection.fetchval(QUERIES.is_synchronous):
        return None
    begun = time.monotonic()
    lsn = await _follow(connection)
    waited_ms = (time.monotonic() - begun) * 1000
    async with transaction_on(connection):
        row = await connection.fetchrow(QUERIES.note, rollback_id, lsn, waited_ms, timeout=NOTE_SECONDS)
    return _of(row)


@contextlib.asynccontextmanager
async def unhindered(connect: Callable[[], Awaitable[Connection]]) -> AsyncIterator[None]:
    """While the body kills: whoever waits for the standby, and holds what the kill waits for, is told to wait no longer (P5).

    A COMMIT that waits for a standby keeps its locks, for as long as the standby is away. `connect`: a connection of its own.
    """
    task = asyncio.create_task(_release(connect), name="release for a kill")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _release(connect: Callable[[], Awaitable[Connection]]) -> None:
    await asyncio.sleep(PATIENCE_SECONDS)
    with contextlib.suppress(Unavailable):
        connection = await connect()
        try:
            while True:
                await connection.execute(QUERIES.release)
                await asyncio.sleep(PATIENCE_SECONDS)
        finally:
            drop(connection)


async def load(connection: asyncpg.Connection, rollback_id: UUID) -> Standby | None:
    """What was written down at the last kill of the rollback."""
    row = await connection.fetchrow(QUERIES.of, rollback_id)
    return None if row is None else _of(row)


async def _follow(connection: Connection) -> str | None:
    """A record after the kill's, committed synchronously: its place once the standby has it, null if not in time.

    At the bound PostgreSQL is asked to wait no longer, and the COMMIT ends with a warning: no backend is left waiting.
    """
    warnings: list[str] = []

    def note(_: object, message: asyncpg.PostgresLogMessage) -> None:
        warnings.append(str(message))

    await connection.execute(BEGIN)
    lsn: str = await connection.fetchval(QUERIES.follow)
    connection.add_log_listener(note)
    try:
        await connection.execute("COMMIT", timeout=CONFIRM_SECONDS)
    except TimeoutError:
        return None
    except (asyncpg.PostgresError, *UNUSABLE) as error:
        drop(connection)
        raise OutcomeUnknown(f"the answer to COMMIT was lost: {error}") from error
    finally:
        connection.remove_log_listener(note)
    return None if warnings else lsn


def _of(row: asyncpg.Record) -> Standby:
    return Standby(confirmed=row["confirmed"], names=row["names"], waited_ms=row["waited_ms"], at=row["at"])

"""Reads from the database how everything stands, and every value that its fences had."""

from __future__ import annotations

from pathlib import Path

import msgspec
from asyncpg import Record

from load.chaos.history import Effect, History, Instance, Rollback, Write
from runtime.postgres import Connection
from runtime.queries import parse

SQL = Path(__file__).parent / "sql"
QUERIES = parse((SQL / "chaos.sql").read_text(), "load/chaos/sql/chaos.sql")


async def watch(connection: Connection) -> None:
    """From here on every value of a fence is written down."""
    await connection.execute((SQL / "watch.sql").read_text())


async def read(connection: Connection) -> History:
    """What the database knows; the rest of the history is for others to add."""
    names = ("instances", "effects", "rollbacks")
    instances, effects, rollbacks = [await connection.fetch(QUERIES[name]) for name in names]
    leases, attempts = [await connection.fetch(QUERIES["writes"], what) for what in ("lease", "attempt")]
    left = await connection.fetchrow(QUERIES["left_over"])
    return History(
        sagas={},
        instances=[msgspec.convert(dict(row), Instance) for row in instances],
        effects=[_effect(row) for row in effects],
        rollbacks=[msgspec.convert(dict(row), Rollback) for row in rollbacks],
        leases=[_write(row) for row in leases],
        attempts=[_write(row) for row in attempts],
        left=dict(left),
    )


def _effect(row: Record) -> Effect:
    values = dict(row)
    return msgspec.convert({**values, "order": values.pop("order_id")}, Effect)


def _write(row: Record) -> Write:
    return Write(row=row["row_id"], fence=row["fence"], holder=row["holder"], at=row["at"])

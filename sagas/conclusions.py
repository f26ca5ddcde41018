"""Says of saga instances how their undoing stands, in the transaction that ended a part of it (docs/decisions/0030).

Only where nobody else is at an instance in this moment; what is passed over is said by whoever is at it, or by the next look of
the coordinator that leases its range.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from asyncpg import Record

from runtime.postgres import Connection
from runtime.queries import Queries

QUERIES = Queries.load("sagas", "instances")


async def conclude(connection: Connection, compensations: Iterable[UUID]) -> bool:
    """After the ends of these compensations were written, in the same transaction. Returns whether an instance ended or waits.

    The statement that looks comes after the locks: of two transactions that end the last parts of one instance, the later one
    sees what the earlier one wrote (READ COMMITTED).
    """
    ids = sorted(set(compensations))
    return await conclude_held(
        connection, [row["uid"] for row in await connection.fetch(QUERIES.lock_undone, ids)] if ids else []
    )


async def conclude_held(connection: Connection, uids: Sequence[UUID]) -> bool:
    """The same of instances whose rows the caller holds."""
    return bool(await _say(connection, uids))


async def conclude_locked(connection: Connection, uids: Sequence[UUID]) -> list[UUID]:
    """The same where the caller holds the locks of their lines as well. Returns those that have ended."""
    rows = await _say(connection, uids, in_lines=True)
    return [row["uid"] for row in rows if _is_final(row)]


async def _say(connection: Connection, uids: Sequence[UUID], *, in_lines: bool = False) -> list[Record]:
    rows = await connection.fetch(QUERIES.undone_now, list(uids), in_lines) if uids else []
    if not rows:
        return []
    finals = list(map(_is_final, rows))
    told = [row["uid"] for row in rows]
    await connection.execute(QUERIES.conclude, told, finals, [row["reason"] for row in rows])
    ended = [uid for uid, is_final in zip(told, finals, strict=True) if is_final]
    if ended:
        await connection.execute(QUERIES.unwatch, ended)
    return rows


def _is_final(row: Record) -> bool:
    """Without an effect there is nothing to undo."""
    return row["is_final"] is not False

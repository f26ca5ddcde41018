"""Lines: instances of one subject run one after another, in the order in which they were started (docs/decisions/0032).

An instance stands in its line from the transaction that starts it to the one that ends it, in which the lead goes on: there is
no moment at which nobody leads. Every change is made under the lock of the line's stripe, taken before anything is read. Rows:
one typed function per query of `sql/lines.sql`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from uuid import UUID

from asyncpg import Record
from msgspec import Struct

from runtime.postgres import Connection
from runtime.queries import Queries

QUERIES = Queries.load("sagas", "lines")
STRIPES = 256
"""Locks that lines share: a transaction takes no more, however many lines it touches."""
LOCKS = 1_818_848_879
"""The class of these locks, apart from those of flags, which are one number."""
AHEAD_MAX = 10


class Place(Struct, frozen=True, kw_only=True):
    """A line: whose instances of which subject."""

    environment: str
    line: str
    subject: str

    @property
    def stripe(self) -> int:
        """Which lock it is under."""
        name = "\0".join((self.environment, self.line, self.subject)).encode()
        return int.from_bytes(hashlib.blake2b(name, digest_size=4).digest()) % STRIPES


def locking(stripes: Iterable[int]) -> str:
    """Statements that take the stripes' locks in ascending order, until the transaction ends: what follows reads what was
    committed before they were granted."""
    return "; ".join(f"SELECT pg_advisory_xact_lock({LOCKS}, {int(stripe)})" for stripe in sorted(set(stripes)))


async def enter(connection: Connection, entering: Sequence[tuple[UUID, Place]]) -> dict[UUID, bool]:
    """Stand at the end of the lines, in this order. Returns for each whether it leads at once."""
    rows = await connection.fetch(
        QUERIES.enter,
        [place.environment for _, place in entering],
        [place.line for _, place in entering],
        [place.subject for _, place in entering],
        [uid for uid, _ in entering],
        [place.stripe for _, place in entering],
    )
    found = {row["uid"]: row["leads"] for row in rows}
    if following := [uid for uid, leads in found.items() if not leads]:
        await connection.execute(QUERIES.stand_in_line, following)
    return found


async def leave(connection: Connection, uids: Sequence[UUID]) -> list[UUID]:
    """Stand in no line any more. Returns who leads by it."""
    got = [row["uid"] for row in await connection.fetch(QUERIES.leave, list(uids))]
    await connection.execute(QUERIES.stand_free, [*uids, *got])
    return got


async def overtake(connection: Connection, uid: UUID) -> bool:
    """Lead beside whoever leads. Whether it did not."""
    changed = await connection.fetchval(QUERIES.overtake, uid) is not None
    if changed:
        await connection.execute(QUERIES.stand_free, [uid])
    return changed


async def hold(connection: Connection, uids: Sequence[UUID]) -> None:
    """Take the locks of these instances' lines."""
    stripes = [row["stripe"] for row in await connection.fetch(QUERIES.stripes, list(uids))]
    if stripes:
        await connection.execute(locking(stripes))


async def ahead(connection: Connection, uid: UUID) -> list[Record]:
    """Whom this one waits for: at most `AHEAD_MAX`, each with the `number` of all."""
    return list(await connection.fetch(QUERIES.ahead, uid, AHEAD_MAX))

"""Rows of history that is over: looked for without a lock, held and deleted with all that hangs on them (P9, P12).

Whatever is deleted leaves, in the same transaction, what its key answers from now on, what a later kill has to be told of, and
the sums of rollbacks that had named it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from msgspec import Struct

from runtime.postgres import Connection
from runtime.queries import Queries
from sagas import store_reports
from sagas.instances import rows

QUERIES = Queries.load("sagas", "retention")


class Page(Struct, frozen=True, kw_only=True):
    """What one look found. `after`: the last row looked at; null: there are no more."""

    after: UUID | None
    looked: int
    over: list[UUID]


async def old_effects(connection: Connection, after: UUID, shortest: int, days: int | None, limit: int) -> Page:
    """The next effects that belong to no instance, and which of them are over."""
    found = await connection.fetch(QUERIES.old_effects, after, shortest, days, limit)
    return page_of([(row["id"], row["is_over"]) for row in found], limit)


async def old_instances(connection: Connection, after: UUID, shortest: int, days: int | None, limit: int) -> Page:
    """The next instances, and which of them ended long enough ago."""
    found = await connection.fetch(QUERIES.old_instances, after, shortest, days, limit)
    return page_of([(row["uid"], row["is_over"]) for row in found], limit)


def page_of(found: Sequence[tuple[UUID, bool]], limit: int) -> Page:
    """A page of rows in the order of their ids."""
    after = found[-1][0] if len(found) == limit else None
    return Page(after=after, looked=len(found), over=[identity for identity, is_over in found if is_over])


async def locks_of_effects(connection: Connection, effect_ids: Sequence[UUID]) -> dict[UUID, frozenset[int]]:
    """The flags' locks that each effect needs: its own, and its saga instance's."""
    places = await store_reports.places(connection, effect_ids)
    return {effect_id: place.lock_keys for effect_id, place in places.items()}


async def locks_of_instances(connection: Connection, uids: Sequence[UUID]) -> dict[UUID, frozenset[int]]:
    """The flags' locks that each instance needs: its own, and those of what was done under it."""
    return {uid: frozenset(one.flags.values()) for uid, one in (await rows.locks(connection, uids)).items()}


def within_locks(wanted: Iterable[tuple[UUID, frozenset[int]]], limit: int) -> tuple[list[UUID], set[int]]:
    """As many, in their order, as share at most so many locks (hazard 10), at least one; and the locks.

    >>> within_locks([(UUID(int=1), frozenset({1, 2})), (UUID(int=2), frozenset({3}))], 2)[1]
    {1, 2}
    """
    chosen: list[UUID] = []
    locks: set[int] = set()
    for identity, needed in wanted:
        if chosen and len(locks | needed) > limit:
            break
        chosen.append(identity)
        locks |= needed
    return chosen, locks


async def drop_effects(connection: Connection, asked: Sequence[UUID], days: int | None) -> int:
    """Under the locks: those of them that are over, and that nobody holds. Returns how many went."""
    held = [row["id"] for row in await connection.fetch(QUERIES.hold_effects, asked, days)]
    await _drop(connection, held)
    return len(held)


async def drop_instances(connection: Connection, asked: Sequence[UUID], days: int | None) -> int:
    """Under the locks: those that are over with everything they did, and everything that was said of them."""
    uids = [row["uid"] for row in await connection.fetch(QUERIES.hold_instances, asked, days)]
    held = await connection.fetch(QUERIES.hold_effects_of, uids, days)
    whole = {row["uid"] for row in await connection.fetch(QUERIES.whole, uids, [row["id"] for row in held])}
    await _drop(connection, [row["id"] for row in held if row["uid"] in whole])
    for query in (QUERIES.remember_instances, QUERIES.drop_strays, QUERIES.drop_facts, QUERIES.drop_instances):
        await connection.execute(query, list(whole))
    return len(whole)


async def _drop(connection: Connection, effect_ids: Sequence[UUID]) -> None:
    """These effects, whose rows are held; what stays of them first."""
    if not effect_ids:
        return
    for query in (QUERIES.remember, QUERIES.say_gone, QUERIES.keep_sums, QUERIES.drop_members):
        await connection.execute(query, effect_ids)
    compensations = [row["id"] for row in await connection.fetch(QUERIES.drop_dispositions, effect_ids)]
    await connection.execute(QUERIES.drop_attempts, compensations)
    await connection.execute(QUERIES.drop_compensations, compensations)
    await connection.execute(QUERIES.drop_effects, effect_ids)

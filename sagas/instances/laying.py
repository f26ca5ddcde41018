"""Hands the undoing of instances that turned back to a standing rollback, in the flush that turned them (P12, P14).

Dispositions and compensations come into being under the lock of the instance's row, as a report arms under its flags' locks:
whoever drives the rollback finds them whole or not at all. Which standing rollback is free to choose; a server takes that of a
range it leases itself: all it turns back lies in one place, and is carried on in whole batches (docs/decisions/0030).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from msgspec import Struct

from runtime.clock import Clock, Entropy
from runtime.postgres import Connection
from sagas.catalogue import Catalogue, effect_of
from sagas.conclusions import conclude_held
from sagas.enumeration import Enumeration
from sagas.instances.rows import QUERIES, columns
from sagas.leases import RANGES

Row = Mapping[str, Any]
Place = tuple[str, int]
"""Environment and lease range."""
Ranges = Callable[[], Sequence[int]]
"""The ranges that this process leases now."""


class Laid(Struct, frozen=True, kw_only=True):
    """Whether workers have something to undo, and whether an instance came to its end, or to a person, at once."""

    asks_workers: bool
    has_ended: bool


class Laying:
    """One per engine."""

    def __init__(self, clock: Clock, entropy: Entropy, ranges: Ranges) -> None:
        self._enumeration = Enumeration(Catalogue(clock), entropy)
        self._ranges = ranges

    async def lay(self, connection: Connection, rows: Sequence[Row]) -> Laid:
        """In the caller's transaction, which holds the instances' rows and has written that they are being undone."""
        held = sorted(self._ranges())
        places = [place_of(row, held) for row in rows]
        standing = await _standing(connection, sorted(set(places)))
        names = [(row["environment"], row["saga"], row["id"]) for row in rows]
        found = await connection.fetch(QUERIES.to_undo, *columns(names, 3))
        effects = [(standing[places[one["number"] - 1]], effect_of(connection, one)) for one in found]
        written = await self._enumeration.lay(connection, effects)
        if written.asks_coordinator:
            await connection.execute(QUERIES.ring_drives, sorted(written.asks_coordinator))
        open_ = {one["number"] for one in found if one["id"] in written.pending or one["disposition"] == "pending"}
        at_rest = [row["uid"] for number, row in enumerate(rows, 1) if number not in open_]
        return Laid(asks_workers=written.asks_workers, has_ended=await conclude_held(connection, at_rest))


def place_of(row: Row, held: Sequence[int]) -> Place:
    """Where an instance is undone: in a range of this process, else by chance of its id."""
    return row["environment"], held[0] if held else int(row["uid"].int % RANGES)


async def _standing(connection: Connection, places: Sequence[Place]) -> dict[Place, UUID]:
    """The standing rollbacks, made where there is none yet."""
    found = await _find(connection, places)
    missing = [place for place in places if place not in found]
    for environment, number in missing:
        await connection.execute(QUERIES.raise_standing, environment, number)
    return found | (await _find(connection, missing) if missing else {})


async def _find(connection: Connection, places: Sequence[Place]) -> dict[Place, UUID]:
    rows = await connection.fetch(QUERIES.standing, *columns(places, 2))
    settled = [row["id"] for row in rows if row["state"] == "settled"]
    if settled:
        await connection.execute(QUERIES.reopen_standing, settled)
    return {(row["environment"], row["range"]): row["id"] for row in rows}

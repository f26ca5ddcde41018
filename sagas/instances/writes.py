"""What one flush changes of instances beside their effects, gathered and written at once, in one order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from runtime.postgres import Connection
from sagas.instances.rows import QUERIES, columns
from sagas.instances.turns import plain
from sagas.leases import RANGES

ENGINE = "rescind"
"""Who says what no person and no service said."""


class Writes:
    """Gathered instance by instance; `write` writes."""

    def __init__(self) -> None:
        self.rings = False
        self.ended = False
        self._queue: list[tuple[Any, ...]] = []
        self._waits: list[tuple[Any, ...]] = []
        self._facts: list[tuple[Any, ...]] = []
        self._changes: list[tuple[Any, ...]] = []
        self._lays: list[Mapping[str, Any]] = []
        self._cleared: list[UUID] = []
        self._kept: list[tuple[UUID, str]] = []
        self._stops: dict[UUID, Sequence[tuple[str, str, int]]] = {}
        self._adopted: list[UUID] = []
        self._watched: list[UUID] = []
        self._unwatched: list[UUID] = []

    def queue(self, row: Mapping[str, Any], step: str, in_seconds: float) -> None:
        """Lay a step ready, for whoever can act it."""
        place = (row["environment"], row["saga"], row["version"], in_seconds, row["uid"], step, row["run_by"])
        self._queue.append(place)
        self.rings |= in_seconds <= 0

    def stand(self, uid: UUID, name: str, in_seconds: float | None) -> None:
        """Set a wait up; without a deadline where `in_seconds` is null."""
        self._waits.append((uid, name, in_seconds))

    def say(
        self,
        uid: UUID,
        fact: str,
        name: str = "",
        detail: Any = None,
        by_whom: str = ENGINE,
        reason: str | None = None,
    ) -> None:
        """Append a fact."""
        self._facts.append((uid, fact, name, plain(detail), by_whom, reason))

    def stop(self, uid: UUID, places: Sequence[tuple[str, str, int]]) -> None:
        """A kill stopped it: found once one of these (environment, flag, epoch) is open later; empty: never more."""
        self._stops[uid] = places

    def change(
        self, row: Mapping[str, Any], *, is_watched: bool, watch: bool, clear: bool, keep: Sequence[str] = (), **new: Any
    ) -> None:
        """Write where the instance stands now, as far as it differs from its row. `keep`: waits that are not cleared."""
        uid = row["uid"]
        taken_over = new.pop("taken_over", False)
        result = new.pop("result", None)
        if taken_over or any(row[name] != value for name, value in new.items()):
            self._changes.append(
                (
                    uid, new["state"], new["reason"], plain(new["error"]), plain(result), new["turned_back"], new["laid"],
                    taken_over,
                )
            )  # fmt: skip
            self.ended |= new["state"] not in ("running", "undoing")
        if new["laid"] and not row["laid"]:
            self._lays.append(row)
        if clear:
            self._cleared.append(uid)
            self._kept += [(uid, name) for name in keep]
        if taken_over:
            self._adopted.append(uid)
        if watch != is_watched:
            (self._watched if watch else self._unwatched).append(uid)

    def unwatch(self, uid: UUID) -> None:
        """A coordinator need not look at it any more."""
        self._unwatched.append(uid)

    async def said(self, connection: Connection) -> None:
        """Write the facts that were said so far, so that they are read with all the others."""
        if self._facts:
            await connection.execute(QUERIES.say, *columns(self._facts, 6))
            self._facts = []

    async def write(self, connection: Connection) -> None:
        """Everything, in the caller's transaction."""
        await self.said(connection)
        if self._adopted:
            await connection.execute(QUERIES.adopt, self._adopted)
        if self._cleared:
            await connection.execute(QUERIES.clear, self._cleared, *columns(self._kept, 2))
        if self._queue:
            await connection.execute(QUERIES.queue, *columns(self._queue, 7))
        if self._waits:
            await connection.execute(QUERIES.stand, *columns(self._waits, 3))
        if self._watched:
            await connection.execute(QUERIES.watch, self._watched)
        if self._unwatched:
            await connection.execute(QUERIES.unwatch, self._unwatched)
        if self._changes:
            await connection.execute(QUERIES.change, *columns(self._changes, 8))
        if self._stops:
            await self._stop(connection)
        if self._lays:
            await self._lay(connection)
        if self.rings:
            await connection.execute(QUERIES.ring)

    async def _stop(self, connection: Connection) -> None:
        await connection.execute(QUERIES.let_go, list(self._stops))
        rows = [(uid, *place) for uid, places in self._stops.items() for place in places]
        if rows:
            await connection.execute(QUERIES.stop, *columns(rows, 4))

    async def _lay(self, connection: Connection) -> None:
        """Hand the undoing to the standing rollbacks, one per environment and range."""
        rollbacks: dict[tuple[str, int], UUID] = {}
        for environment, number in sorted({(row["environment"], range_of(row)) for row in self._lays}):
            rollbacks[environment, number] = await standing(connection, environment, number)
        rows = [
            (rollbacks[row["environment"], range_of(row)], row["environment"], row["saga"], row["id"]) for row in self._lays
        ]
        await connection.execute(QUERIES.lay, *columns(rows, 4))


def range_of(row: Mapping[str, Any]) -> int:
    """Which standing rollback of its environment undoes an instance: spread by chance of its id, wherever it is leased."""
    return int(row["uid"].int % RANGES)


async def standing(connection: Connection, environment: str, number: int) -> UUID:
    """The standing rollback of an environment and range, made where there is none yet."""
    found: UUID | None = await connection.fetchval(QUERIES.standing, environment, number)
    if found is None:
        await connection.execute(QUERIES.raise_standing, environment, number)
        found = await connection.fetchval(QUERIES.standing, environment, number)
    assert found is not None, "it was just made"
    return found

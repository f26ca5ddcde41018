"""What one flush changes of instances beside their effects, gathered and written at once, in one order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from runtime.postgres import Connection
from runtime.sealing import Ring
from sagas import lines, look_ups, sealing
from sagas.instances.laying import Laying
from sagas.instances.rows import QUERIES, columns
from sagas.instances.turns import Hands, plain

ENGINE = "rescind"
"""Who says what no person and no service said."""


class Writes:
    """Gathered instance by instance; `write` writes."""

    def __init__(self, laying: Laying) -> None:
        self._laying = laying
        self.rings = False
        self.laid = False
        self.ended = False
        self.freed: list[UUID] = []
        """who leads their line by what was written"""
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
        self._asked: list[tuple[UUID, float]] = []
        self._leaving: list[UUID] = []

    def queue(self, row: Mapping[str, Any], step: str, in_seconds: float) -> None:
        """Lay a step ready, for whoever can act it."""
        place = (row["environment"], row["saga"], row["version"], in_seconds, row["uid"], step, row["run_by"])
        self._queue.append(place)
        self.rings |= in_seconds <= 0

    def stand(self, uid: UUID, name: str, in_seconds: float | None) -> None:
        """Set a wait up; without a deadline where `in_seconds` is null."""
        self._waits.append((uid, name, in_seconds))

    def look_up(self, effect: UUID, settle_seconds: float) -> None:
        """Have the team's look-up say what became of an effect in doubt."""
        self._asked.append((effect, settle_seconds))

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
                    uid, new["state"], new["reason"], plain(new["error"]), (plain(result), row), new["turned_back"],
                    new["laid"], taken_over,
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

    def leave(self, uid: UUID) -> None:
        """It has ended: whoever is next of its subject may begin."""
        self._leaving.append(uid)

    def unwatch(self, uid: UUID) -> None:
        """A coordinator need not look at it any more."""
        self._unwatched.append(uid)

    async def said(self, connection: Connection) -> None:
        """Write the facts that were said so far, so that they are read with all the others."""
        if self._facts:
            await connection.execute(QUERIES.say, *columns(self._facts, 6))
            self._facts = []

    async def write(self, connection: Connection, hands: Sequence[Hands]) -> None:
        """Everything, in the caller's transaction. `hands`: those that look for what is to be undone after it."""
        await self.said(connection)
        if self._adopted:
            await connection.execute(QUERIES.adopt, self._adopted)
        if self._cleared:
            await connection.execute(QUERIES.clear, self._cleared, *columns(self._kept, 2))
        if self._queue:
            await connection.execute(QUERIES.queue, *columns(self._queue, 7))
        if self._asked:
            await look_ups.lay(connection, self._asked)
        if self._waits:
            await connection.execute(QUERIES.stand, *columns(self._waits, 3))
        if self._watched:
            await connection.execute(QUERIES.watch, self._watched)
        if self._unwatched:
            await connection.execute(QUERIES.unwatch, self._unwatched)
        if self._changes:
            await connection.execute(QUERIES.change, *columns([_sealed(connection, one) for one in self._changes], 8))
        if self._stops:
            await self._stop(connection)
        if self._lays:
            laid = await self._laying.lay(connection, self._lays)
            self.laid, self.ended = laid.asks_workers, self.ended or laid.has_ended
            self.rings |= self.laid and not all(any(one.undoes(row) for one in hands) for row in self._lays)
        if self._leaving:
            self.freed = await lines.leave(connection, self._leaving)
        if self.rings:
            await connection.execute(QUERIES.ring)

    async def _stop(self, connection: Connection) -> None:
        await connection.execute(QUERIES.let_go, list(self._stops))
        rows = [(uid, *place) for uid, places in self._stops.items() for place in places]
        if rows:
            await connection.execute(QUERIES.stop, *columns(rows, 4))


def _sealed(connection: Connection, change: tuple[Any, ...]) -> tuple[Any, ...]:
    ring: Ring = connection.ring
    text, row = change[4]
    sealed = ring.seal(text, sealing.instance_name(row["environment"], row["saga"], row["id"]))
    return (*change[:4], sealed, *change[5:])

"""Settled means that it adds up: a second, independent query over the ledger equals what was written down (P12, hazard 12).

The query goes straight over the effects: by flag, epoch, scope and since, not served the off variant, and what was completed
after them in their saga instances. It shares no view and no function with the enumeration. *Settled* is written by
compare-and-set on the rollback's version, which every late outcome and every decision raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from asyncpg import Record
from msgspec import Struct

from runtime.postgres import Connection
from runtime.queries import Queries

QUERIES = Queries.load("sagas", "settlement")
ELSEWHERE_MAX = 1_000
Elsewhere = dict[UUID, str]
"""State by effect."""
STATES = ("compensated", "never_happened", "irreversible", "skipped", "waiting", "pending")


class KindCounts(Struct, frozen=True, kw_only=True):
    """What became of the effects of one kind. `money`: minor units by state and currency."""

    kind: str
    admitted: int
    compensated: int = 0
    never_happened: int = 0
    irreversible: int = 0
    skipped: int = 0
    waiting: int = 0
    pending: int = 0
    money: dict[str, dict[str, int]] = {}


class Sums(Struct, frozen=True, kw_only=True):
    """The independent query's answer. `missing`: effects of the set with no disposition, at most a few thousand of them."""

    kinds: list[KindCounts]
    missing: list[UUID]
    missing_count: int
    extra_count: int
    changed_at: datetime | None

    def total(self, state: str) -> int:
        """How many effects of the set stand there."""
        return sum(getattr(kind, state) for kind in self.kinds)

    @property
    def adds_up(self) -> bool:
        """Whether every effect of the set has ended as exactly one thing, and nothing else was undone."""
        return not (self.missing_count or self.extra_count or self.total("pending") or self.total("waiting"))

    def document(self) -> dict[str, Any]:
        """What is kept of it on the rollback."""
        kinds = [msgspec.to_builtins(kind) for kind in self.kinds]
        return {"kinds": kinds, "missing": self.missing_count, "extra": self.extra_count, "adds_up": self.adds_up}


async def counts(connection: Connection, rollback_id: UUID) -> list[KindCounts]:
    """What became of each effect found so far, by kind."""
    return _kinds(await connection.fetch(QUERIES.counts, rollback_id))


async def sums(connection: Connection, rollback_id: UUID) -> Sums:
    """The set by the independent query, in one snapshot."""
    rows = await connection.fetch(QUERIES.sums, rollback_id)
    missing = [identity for row in rows for identity in row["missing"] or ()]
    return Sums(
        kinds=_kinds(rows),
        missing=missing,
        missing_count=len(missing),
        extra_count=sum(row["extra"] for row in rows),
        changed_at=max((row["changed_at"] for row in rows if row["changed_at"] is not None), default=None),
    )


async def moves(connection: Connection, rollback_id: UUID) -> bool:
    """Whether something of the set still ends by itself; else all that is left waits for a person, or stands behind that."""
    return bool(await connection.fetchval(QUERIES.moves, rollback_id))


async def elsewhere(connection: Connection, rollback_id: UUID) -> Elsewhere:
    """How that stands which another rollback undoes and has not ended yet, as far as it is looked after."""
    rows = await connection.fetch(QUERIES.undone_elsewhere, rollback_id, ELSEWHERE_MAX)
    return {row["effect_id"]: row["state"] for row in rows}


async def has_changed(connection: Connection, seen: Elsewhere) -> bool:
    """Whether something of it stands otherwise than it was seen."""
    rows = await connection.fetch(QUERIES.stand, list(seen)) if seen else []
    return {row["effect_id"]: row["state"] for row in rows} != seen


async def settle(connection: Connection, rollback_id: UUID, version: int, found: Sums) -> bool:
    """Write `settled` if the rollback is still what it was at `version`. Returns whether it was."""
    assert found.adds_up
    return await connection.fetchval(QUERIES.settle, rollback_id, version, found.document(), found.changed_at) is not None


async def look_again(connection: Connection, rollback_id: UUID, missing: Sequence[UUID]) -> None:
    """Have effects that the enumeration missed taken up."""
    await connection.execute(QUERIES.look_again, rollback_id, list(missing))


def _kinds(rows: Sequence[Record]) -> list[KindCounts]:
    numbers: dict[str, dict[str, int]] = {}
    money: dict[str, dict[str, dict[str, int]]] = {}
    for row in rows:
        kind, state = row["kind"], row["state"] if row["state"] in STATES else "pending"
        of_kind = numbers.setdefault(kind, {})
        of_kind[state] = of_kind.get(state, 0) + row["number"]
        if row["amount_minor"] is not None and row["currency"] is not None:
            of_state = money.setdefault(kind, {}).setdefault(state, {})
            of_state[row["currency"]] = of_state.get(row["currency"], 0) + int(row["amount_minor"])
    return [
        KindCounts(kind=kind, admitted=sum(by_state.values()), money=money.get(kind, {}), **by_state)
        for kind, by_state in sorted(numbers.items())
    ]

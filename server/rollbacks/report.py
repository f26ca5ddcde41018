"""The report of a rollback: when what happened, what became of every effect, and that it adds up (P12).

JSON for programs, pages of effects; CSV for people who must hand it on, whole and streamed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
from msgspec import Struct

from runtime.postgres import Postgres
from runtime.queries import Queries
from sagas import settlement
from server.rollbacks import record
from server.rollbacks.errors import unknown_rollback
from server.rollbacks.record import NOT_VERIFIED, STATES, KindCounts, RollbackRecord

QUERIES = Queries.load("server.rollbacks", "report")
EFFECTS_MAX = 10_000
CSV_CHUNK = 2_000
TIMES = (
    ("fault", "fault_at"), ("detected", "detected_at"), ("decided", "decided_at"), ("fenced", "fenced_at"),
    ("contained", "contained_at"), ("drained", "drained_at"), ("verified", "verified_at"), ("whole", "whole_at"),
    ("lifted", "lifted_at"),
)  # fmt: skip

ABSENT = {
    "fault": "not given", "detected": "not given", "decided": "not given", "fenced": None, "contained": "not yet",
    "drained": "not yet", "verified": NOT_VERIFIED, "whole": "not yet", "lifted": "not lifted",
}  # fmt: skip
"""What is said in place of a time that there is not."""


class Moment(Struct, frozen=True, kw_only=True):
    """One time of the rollback; `at` null: not yet, or not known, as `reason` says."""

    name: str
    at: datetime | None
    after_fence_seconds: float | None
    reason: str | None = None


class EffectLine(Struct, frozen=True, kw_only=True):
    """One effect of the set and its disposition. `undone_by`: the rollback that undoes it, which may be another one."""

    effect_id: str
    kind: str
    key: str
    flag: str
    variant: str | None
    subject: str | None
    saga: str | None
    saga_version: str | None
    saga_instance: str | None
    step: str | None
    status: str
    epoch: int
    admitted_at: datetime
    proceeded_at: datetime | None
    """Of one that was begun without the server: when."""
    completed_at: datetime | None
    amount_minor: int | None
    currency: str | None
    disposition: str
    reason: str | None
    cause: Any
    """Of one that waits or is to be tried again: what its last attempt was told."""
    by_whom: str | None
    action: str | None
    action_key: str | None
    connection: str | None
    attempts: int | None
    next_try_at: datetime | None
    proof: Any
    undone_by: str | None
    acknowledged_by: str | None
    acknowledged_at: datetime | None
    can_no_longer_act_at: datetime | None
    """Of one that waits: from then on its last attempt, if nobody heard of its end, does nothing any more (hazard 17)."""


class Sum(Struct, frozen=True, kw_only=True):
    """set = compensated + never happened + irreversible + skipped + waiting + pending + open.

    `set` is the independent query's, straight over the ledger; the right side is what was written down for each effect.
    `missing` are effects of the set with nothing written down, `extra` what was undone and is not in the set.
    """

    set: int
    compensated: int
    never_happened: int
    irreversible: int
    skipped: int
    waiting: int
    pending: int
    open: int
    """Left for a later kill: this one was lifted in grace, or asked for no compensation."""
    missing: int
    extra: int
    adds_up: bool
    line: str
    settled: Any
    """What the independent query found when the rollback settled, with its `as_of`."""


class Report(Struct, frozen=True, kw_only=True):
    """`GET /v1/rollbacks/{id}/report`. `next`: ask for the following effects with `?after=`."""

    rollback: RollbackRecord
    timeline: list[Moment]
    sum: Sum
    effects: list[EffectLine]
    next: str | None


class Reports:
    """Writes reports. Raises `Problem` 404 for an unknown rollback."""

    def __init__(self, pg: Postgres) -> None:
        self._pg = pg

    async def report(self, rollback_id: UUID, *, after: UUID | None = None, limit: int = EFFECTS_MAX) -> Report:
        """The report with one page of effects, read from one snapshot."""
        async with self._pg.transaction() as connection:
            await connection.execute(QUERIES.one_snapshot)
            found = await record.load(connection, rollback_id)
            if found is None:
                raise unknown_rollback(str(rollback_id))
            ledger = await settlement.sums(connection, rollback_id)
            lines = await effects(connection, rollback_id, after, min(limit, EFFECTS_MAX) + 1)
        page = lines[: min(limit, EFFECTS_MAX)]
        return Report(
            rollback=found,
            timeline=timeline_of(found),
            sum=sum_of(found, ledger),
            effects=page,
            next=page[-1].effect_id if len(lines) > len(page) else None,
        )

    async def csv(self, rollback_id: UUID) -> AsyncIterator[bytes]:
        """Every effect as a line of CSV (RFC 4180), a header first, in chunks."""
        yield line_of(EffectLine.__struct_fields__)
        after: UUID | None = None
        while True:
            async with self._pg.connection() as connection:
                lines = await effects(connection, rollback_id, after, CSV_CHUNK)
            if lines:
                yield b"".join(line_of([getattr(line, name) for name in EffectLine.__struct_fields__]) for line in lines)
            if len(lines) < CSV_CHUNK:
                return
            after = UUID(lines[-1].effect_id)


async def effects(connection: asyncpg.Connection, rollback_id: UUID, after: UUID | None, limit: int) -> list[EffectLine]:
    """The effects of the set in the order of their ids, after one of them."""
    rows = await connection.fetch(QUERIES.effects, rollback_id, after, limit)
    return [effect_of(row) for row in rows]


def effect_of(row: asyncpg.Record) -> EffectLine:
    """The row as a line. What a waiting compensation says wins over nothing said at the effect itself."""
    values = {name: row[name] for name in EffectLine.__struct_fields__ if name in row}
    waits = row["disposition"] in ("waiting", "pending")
    return EffectLine(
        **{
            **values,
            "effect_id": str(row["id"]),
            "reason": row["reason"] or (row["compensation_reason"] if waits else None),
            "undone_by": str(row["undone_by"]) if row["undone_by"] else None,
        }
    )


def timeline_of(found: RollbackRecord) -> list[Moment]:
    """The times of semantics.md in their order, each in seconds after the fence."""
    moments = []
    for name, field in TIMES:
        at: datetime | None = getattr(found, field)
        reason = ABSENT[name] if at is None else None
        after = (at - found.fenced_at).total_seconds() if at else None
        moments.append(Moment(name=name, at=at, after_fence_seconds=after, reason=reason))
    return moments


def sum_of(found: RollbackRecord, ledger: settlement.Sums) -> Sum:
    """The equation over all kinds. It adds up when both sides are equal and nothing is missing or extra. What has gone since
    by retention stands on both sides as it ended."""
    kinds: Sequence[KindCounts] = list((found.counts or {}).values())
    parts = {state: sum(getattr(kind, state) for kind in kinds) for state in STATES}
    total = sum(kind.admitted for kind in ledger.kinds) + found.gone
    unwritten = total - sum(parts.values())
    is_open = found.outcome is not None
    missing = 0 if is_open else ledger.missing_count
    parts["open"] = unwritten if is_open else 0
    if found.enumerated_at is None and not is_open:
        adds_up = unwritten >= 0
    else:
        adds_up = total == sum(parts.values()) and missing == 0 and ledger.extra_count == 0
    right = " + ".join(f"{number} {state.replace('_', ' ')}" for state, number in parts.items() if number)
    return Sum(
        set=total,
        **parts,
        missing=missing,
        extra=ledger.extra_count,
        adds_up=adds_up,
        line=f"{total} {'effect' if total == 1 else 'effects'} = {right or '0'}"
        + (f" ({missing} not written down yet)" if missing else ""),
        settled=found.settled_sums,
    )


def line_of(values: Sequence[object]) -> bytes:
    """One line of CSV; what spreadsheets would run as a formula is quoted as text."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow([cell(value) for value in values])
    return out.getvalue().encode()


def cell(value: object) -> str:
    """A value as text.

    >>> cell({"id": "re_1"}), cell(None), cell("=1+1")
    ('{"id":"re_1"}', '', "'=1+1")
    """
    match value:
        case None:
            return ""
        case datetime():
            return value.isoformat()
        case str():
            return "'" + value if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
        case int() | float():
            return str(value)
        case _:
            return msgspec.json.encode(value).decode()

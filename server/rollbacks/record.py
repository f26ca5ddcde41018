"""A rollback as people see it: state, times, who knows of the kill, and sums per kind that add up (P12).

Read from PostgreSQL alone, so that every server answers the same, whichever of them carries the rollback on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
from msgspec import Struct, field
from rescind.wire import Revision

from runtime.queries import Queries
from server.rollbacks import continuing, holders, retries, standby
from server.rollbacks.continuing import Continuing
from server.rollbacks.holders import Proceeding
from server.rollbacks.retries import Retry
from server.rollbacks.standby import Standby

QUERIES = Queries.load("server.rollbacks", "record")

LIVE_SECONDS = 900.0
"""An instance silent for longer than this before a kill counts as gone; younger ones stay `unconfirmed`, by name."""
LATE_SECONDS = 14.0
"""How late an instance may hear what a server says: a stream that was silent for longer is dead to it (two heartbeats and a
second), and a replica's look at PostgreSQL counts for 2.5 s. Shorter staleness limits than this count as this."""
INSTANCES_MAX = 20_000
NAMED_MAX = 100
LATEST_MAX = 100
LISTED_MAX = 200

STATES = ("compensated", "never_happened", "irreversible", "skipped", "waiting", "pending")
NOT_VERIFIED = "nothing measures health in this environment"


class KindCounts(Struct, kw_only=True):
    """How many effects of one kind a rollback took, and what became of them: `admitted` is the sum of all the others."""

    admitted: int = 0
    compensated: int = 0
    never_happened: int = 0
    irreversible: int = 0
    skipped: int = 0
    waiting: int = 0
    pending: int = 0
    amounts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Per currency, the same names, in minor units."""
    without_amount: int = 0
    """Effects of which no amount is known: they are in no sum of money."""
    waiting_for: dict[str, int] = field(default_factory=dict)
    """Why those that wait do so, and how many for each reason."""


class RollbackFlag(Struct, frozen=True, kw_only=True):
    """One flag (in one scope) of a rollback: what it closed, and from when on effects are taken."""

    flag: str
    scope: dict[str, Any]
    closes_epoch: int
    since_at: datetime | None
    since_revision: str | None
    closed_at: datetime | None
    lifted_at: datetime | None
    history_gone_until: datetime | None = None
    """Effects admitted up to then had gone by retention, of those it asked for: they are in no set, and are not undone."""
    history_gone_count: int = 0
    """How many at most."""


class InstanceState(Struct, frozen=True, kw_only=True):
    """What one instance is known to have done about a kill: acknowledged, signed_off, stale or unconfirmed."""

    instance: str
    service: str
    state: str
    how: str
    revision: str
    seen_at: datetime
    done_at: datetime | None
    ms: float | None = None
    """From the fence to `done_at`."""
    applied_at: datetime | None = None
    """When it had applied what it acknowledged; null where it does not say."""


class Containment(Struct, frozen=True, kw_only=True):
    """Who knows of the kill. *Contained* when none is unconfirmed (semantics.md, "A rollback's states and times")."""

    instances: int
    acknowledged: int
    signed_off: int
    stale: int
    unconfirmed_count: int
    unconfirmed: list[InstanceState]
    """The first of them, by name."""
    services: dict[str, float | None]
    """Per service, the milliseconds from the fence to its last instance; null while one is unconfirmed."""
    contained_at: datetime | None = None
    learned: list[InstanceState] = []
    """Those that do not act on the release any more, the first of them in the order in which they learned, with `how`."""


class Durations(Struct, frozen=True, kw_only=True):
    """Seconds between a rollback's times; null where an end is unknown."""

    detect_seconds: float | None
    decide_seconds: float | None
    act_seconds: float | None
    fenced_to_contained_seconds: float | None
    verify_seconds: float | None
    mttr_seconds: float | None
    time_to_whole_seconds: float | None


class RollbackRecord(Struct, frozen=True, kw_only=True):
    """`GET /v1/rollbacks/{id}`."""

    id: str
    environment: str
    state: str
    outcome: str | None
    flags: list[RollbackFlag]
    revision: str
    compensate: str
    grace_seconds: float
    kill_count: int
    paused: bool
    reason: str
    incident: str | None
    actor: str
    fault_at: datetime | None
    detected_at: datetime | None
    decided_at: datetime | None
    fenced_at: datetime
    closed_at: datetime | None
    contained_at: datetime | None
    drained_at: datetime | None
    grace_until: datetime | None
    enumerated_at: datetime | None
    verified_at: datetime | None
    verified_reason: str | None
    whole_at: datetime | None
    settled_at: datetime | None
    settled_sums: Any
    lifted_at: datetime | None
    reopened_count: int
    version: int
    durations: Durations
    as_of: datetime
    containment: Containment | None = None
    counts: dict[str, KindCounts] | None = None
    retrying: list[Retry] = []
    proceeding: Proceeding | None = None
    """Where a flag of it lets effects go on without the server."""
    continuing: Continuing | None = None
    """Instances that the kill lets go on first, by name, and the steps that they have begun since."""
    standby: Standby | None = None
    """Whether the synchronous standby had its last kill when that was answered; null where there is none."""
    gone: int = 0
    """Of its effects, those of which only the sums in `counts` are left: their history has gone by retention since."""


async def load(connection: asyncpg.Connection, rollback_id: UUID) -> RollbackRecord | None:
    """The rollback with its instances and counts, or null."""
    row = await connection.fetchrow(QUERIES.one, rollback_id)
    if row is None:
        return None
    flags = await connection.fetch(QUERIES.flags, [rollback_id])
    known = containment_of(row["fenced_at"], await instances(connection, rollback_id))
    known = msgspec.structs.replace(known, contained_at=contained_at_of(row))
    found = record_of(row, flags, containment=known, counts=await counts(connection, rollback_id))
    proceeding = await holders.load(connection, rollback_id)
    return msgspec.structs.replace(
        found,
        retrying=await retries.load(connection, rollback_id),
        proceeding=proceeding,
        continuing=await continuing.load(connection, rollback_id),
        standby=await standby.load(connection, rollback_id),
        gone=await connection.fetchval(QUERIES.gone, rollback_id),
    )


async def latest(connection: asyncpg.Connection, environment: str | None) -> list[str]:
    """The ids of the youngest rollbacks of an environment, or of all."""
    return [row["id"] for row in await connection.fetch(QUERIES.latest, environment, LATEST_MAX)]


async def listing(
    connection: asyncpg.Connection,
    *,
    environment: str | None,
    after: UUID | None,
    state: str | None,
    flag: str | None,
    limit: int,
) -> list[RollbackRecord]:
    """Rollbacks, the youngest first, without counts."""
    rows = await connection.fetch(QUERIES.listing, environment, after, state, flag, min(limit, LISTED_MAX))
    flags = await connection.fetch(QUERIES.flags, [row["id"] for row in rows])
    return [record_of(row, [f for f in flags if f["rollback_id"] == row["id"]]) for row in rows]


async def instances(connection: asyncpg.Connection, rollback_id: UUID) -> list[InstanceState]:
    """Every instance that was alive at the kill."""
    rows = await connection.fetch(QUERIES.containment, rollback_id, LIVE_SECONDS, LATE_SECONDS, INSTANCES_MAX)
    return [
        InstanceState(
            instance=row["id"], service=row["service"], state=row["state"], how=row["how"],
            revision=str(Revision(row["generation"], row["revision"])), seen_at=row["seen_at"], done_at=row["done_at"],
            applied_at=row["applied_at"],
        )
        for row in rows
    ]  # fmt: skip


async def counts(connection: asyncpg.Connection, rollback_id: UUID) -> dict[str, KindCounts]:
    """The sums per kind, over the members of the rollback, whichever rollback undid them (hazard 11)."""
    kinds: dict[str, KindCounts] = {}
    for row in await connection.fetch(QUERIES.counts, rollback_id):
        kind = kinds.setdefault(row["kind"], KindCounts())
        add(kind, row["state"], row["number"], row["currency"], row["amount_minor"])
        kind.without_amount += row["without_amount"]
        if row["reason"] is not None:
            kind.waiting_for[row["reason"]] = kind.waiting_for.get(row["reason"], 0) + row["number"]
    return dict(sorted(kinds.items()))


def add(kind: KindCounts, state: str, number: int, currency: str | None, amount_minor: int | None) -> None:
    """Count `number` effects of one state, and their money."""
    kind.admitted += number
    setattr(kind, state, getattr(kind, state) + number)
    if currency is not None and amount_minor is not None:
        amounts = kind.amounts.setdefault(currency, {})
        for name in ("admitted", state):
            amounts[name] = amounts.get(name, 0) + amount_minor


def containment_of(fenced_at: datetime, states: Sequence[InstanceState]) -> Containment:
    """Sum up what the instances have done; `contained_at` is the last one's instant, or the fence's where there are none."""
    silent = [state for state in states if state.state == "unconfirmed"]
    services: dict[str, float | None] = {}
    for state in states:
        before = services.get(state.service, 0.0)
        if state.done_at is None or before is None:
            services[state.service] = None
        else:
            services[state.service] = max(before, (state.done_at - fenced_at).total_seconds() * 1000)
    done = [state.done_at for state in states if state.done_at is not None]
    return Containment(
        instances=len(states),
        acknowledged=sum(state.state == "acknowledged" for state in states),
        signed_off=sum(state.state == "signed_off" for state in states),
        stale=sum(state.state == "stale" for state in states),
        unconfirmed_count=len(silent),
        unconfirmed=silent[:NAMED_MAX],
        services=services,
        contained_at=None if silent else max([fenced_at, *done]),
        learned=_learned(fenced_at, states),
    )


def _learned(fenced_at: datetime, states: Sequence[InstanceState]) -> list[InstanceState]:
    timed = [
        msgspec.structs.replace(state, ms=max(0.0, (state.done_at - fenced_at).total_seconds() * 1000))
        for state in states
        if state.done_at is not None
    ]
    return sorted(timed, key=lambda state: state.ms or 0.0)[:NAMED_MAX]


def contained_at_of(row: Mapping[str, Any]) -> datetime | None:
    """When it was written down to be contained; never before the fence, which is stamped after the commit."""
    return max(row["contained_at"], row["fenced_at"]) if row["contained_at"] else None


def record_of(
    row: asyncpg.Record,
    flags: Sequence[asyncpg.Record],
    *,
    containment: Containment | None = None,
    counts: dict[str, KindCounts] | None = None,
) -> RollbackRecord:
    """The rollback's row as a record."""
    values = {name: row[name] for name in RollbackRecord.__struct_fields__ if name in row}
    return RollbackRecord(
        **{
            **values,
            "id": str(row["id"]),
            "revision": str(Revision(row["generation"], row["revision"])),
            "flags": [_flag(flag) for flag in flags],
            "contained_at": contained_at_of(row),
            "verified_reason": None if row["verified_at"] else NOT_VERIFIED,
            "durations": durations_of({**row, "contained_at": contained_at_of(row)}),
            "containment": containment,
            "counts": counts,
        }
    )


def _flag(row: asyncpg.Record) -> RollbackFlag:
    revision = row["since_revision"]
    return RollbackFlag(
        flag=row["flag"],
        scope=row["scope"],
        closes_epoch=row["closes_epoch"],
        since_at=row["since_at"],
        since_revision=None if revision is None else str(Revision(row["since_generation"] or 0, revision)),
        closed_at=row["closed_at"],
        lifted_at=row["lifted_at"],
        history_gone_until=row["history_gone_until"],
        history_gone_count=row["history_gone_count"],
    )


def durations_of(row: Mapping[str, Any]) -> Durations:
    """detect, decide, act, verify, MTTR and time to whole, as semantics.md defines them."""

    def between(start: str, end: str) -> float | None:
        return (row[end] - row[start]).total_seconds() if row[start] and row[end] else None

    return Durations(
        detect_seconds=between("fault_at", "detected_at"),
        decide_seconds=between("detected_at", "decided_at"),
        act_seconds=between("decided_at", "contained_at"),
        fenced_to_contained_seconds=between("fenced_at", "contained_at"),
        verify_seconds=between("contained_at", "verified_at"),
        mttr_seconds=between("fault_at", "verified_at"),
        time_to_whole_seconds=between("fault_at", "whole_at"),
    )

"""Scheduled changes and rollouts as PostgreSQL keeps them. One typed function per query."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from asyncpg import Record
from msgspec import Struct
from rescind import wire

from runtime.postgres import Connection
from runtime.queries import Queries

_SCHEDULES = Queries.load("flagd", "schedules")
_ROLLOUTS = Queries.load("flagd", "rollouts")


class Schedule(Struct, frozen=True, kw_only=True):
    """A change list that waits for its instant, or what became of it: applied, refused (`faults`), cancelled."""

    id: UUID
    environment: str
    at: datetime
    operations: list[dict[str, Any]]
    keys: list[str]
    bases: dict[str, list[str]]
    """What is overwritten, to the digests of what may stand there by then (`core.planned`)."""
    leaves: dict[str, str]
    """The same, to the digest of what stands there afterwards."""
    reason: str | None
    actor: str
    token_id: str
    state: str
    revision: wire.Revision | None
    faults: list[wire.Fault]
    created_at: datetime
    ended_at: datetime | None
    ended_by: str | None
    ended_reason: str | None


class Rollout(Struct, frozen=True, kw_only=True):
    """A variant on its way to more and more subjects. `seen` is the flag's revision as the last step left it."""

    id: UUID
    environment: str
    flag: str
    variant: str
    rest: str
    steps: list[float]
    every_seconds: float
    done: list[dict[str, Any]]
    epoch: int
    seen: wire.Revision
    reason: str | None
    actor: str
    token_id: str
    state: str
    stopped: str | None
    faults: list[wire.Fault]
    next_at: datetime | None
    created_at: datetime
    ended_at: datetime | None
    ended_by: str | None
    ended_reason: str | None


async def create_schedule(
    connection: Connection,
    identity: UUID,
    environment: str,
    at: datetime,
    operations: Sequence[dict[str, Any]],
    keys: Sequence[str],
    bases: dict[str, list[str]],
    leaves: dict[str, str],
    *,
    reason: str | None,
    actor: str,
    token_id: str,
) -> None:
    """One that waits."""
    await connection.execute(
        _SCHEDULES.create_schedule, identity, environment, at, operations, keys, bases, leaves, reason, actor, token_id
    )


async def instant(connection: Connection, at: datetime | None, in_seconds: float | None) -> tuple[datetime, float]:
    """The instant asked for, and how many seconds away it is by PostgreSQL's clock."""
    row = await connection.fetchrow(_SCHEDULES.instant, at, in_seconds)
    return row["at"], row["seconds"]


async def waiting(connection: Connection, environment: str, keys: Sequence[str] | None, limit: int) -> list[Schedule]:
    """Those to come, of these flags or of all, the next first."""
    return [_schedule(row) for row in await connection.fetch(_SCHEDULES.waiting, environment, keys, limit)]


async def list_schedules(
    connection: Connection, environment: str, flag: str | None, state: str | None, before: UUID | None, limit: int
) -> list[Schedule]:
    """The newest first."""
    rows = await connection.fetch(_SCHEDULES.list_schedules, environment, flag, state, before, limit)
    return [_schedule(row) for row in rows]


async def get_schedule(connection: Connection, environment: str, identity: UUID) -> Schedule | None:
    """One of them."""
    row = await connection.fetchrow(_SCHEDULES.get_schedule, environment, identity)
    return None if row is None else _schedule(row)


async def due_schedule(connection: Connection, without: Sequence[str]) -> Schedule | None:
    """One that is due now and that nobody else has, locked; none of the environments `without`."""
    row = await connection.fetchrow(_SCHEDULES.due_schedule, without)
    return None if row is None else _schedule(row)


async def end_schedule(
    connection: Connection,
    identity: UUID,
    state: str,
    *,
    revision: wire.Revision | None = None,
    faults: Sequence[wire.Fault] = (),
    by: str | None = None,
    reason: str | None = None,
) -> Schedule | None:
    """What became of it; None if that was decided before."""
    generation, n = (None, None) if revision is None else (revision.generation, revision.n)
    row = await connection.fetchrow(_SCHEDULES.end_schedule, identity, state, generation, n, list(faults), by, reason)
    return None if row is None else _schedule(row)


async def create_rollout(connection: Connection, rollout: Rollout) -> None:
    """One whose first step was taken in this transaction."""
    await connection.execute(
        _ROLLOUTS.create_rollout, rollout.id, rollout.environment, rollout.flag, rollout.variant, rollout.rest, rollout.steps,
        rollout.every_seconds, rollout.done, rollout.epoch, rollout.seen.generation, rollout.seen.n, rollout.reason,
        rollout.actor, rollout.token_id, rollout.state == "finished",
    )  # fmt: skip


async def latest_rollouts(connection: Connection, environment: str, flags: Sequence[str]) -> dict[str, Rollout]:
    """The last one of each flag."""
    rows = await connection.fetch(_ROLLOUTS.latest_rollouts, environment, flags)
    return {row["flag"]: _rollout(row) for row in rows}


async def running(connection: Connection, environment: str, flag: str) -> Rollout | None:
    """The flag's running one, locked."""
    row = await connection.fetchrow(_ROLLOUTS.running, environment, flag)
    return None if row is None else _rollout(row)


async def due_rollout(connection: Connection, without: Sequence[UUID]) -> Rollout | None:
    """One to be looked at now that nobody else has, locked; none of those `without`."""
    row = await connection.fetchrow(_ROLLOUTS.due_rollout, without)
    return None if row is None else _rollout(row)


async def take_step(
    connection: Connection, identity: UUID, done: Sequence[dict[str, Any]], seen: wire.Revision, *, is_last: bool
) -> None:
    """A step was taken in this transaction."""
    await connection.execute(_ROLLOUTS.take_step, identity, list(done), seen.generation, seen.n, is_last)


async def stop_rollout(
    connection: Connection,
    identity: UUID,
    why: str,
    *,
    faults: Sequence[wire.Fault] = (),
    by: str | None = None,
    reason: str | None = None,
) -> Rollout | None:
    """The flag stays where it is. None if it had ended before."""
    row = await connection.fetchrow(_ROLLOUTS.stop_rollout, identity, why, list(faults), by, reason)
    return None if row is None else _rollout(row)


async def now(connection: Connection) -> datetime:
    """By PostgreSQL's clock."""
    instant: datetime = await connection.fetchval(_ROLLOUTS.now)
    return instant


def _schedule(row: Record) -> Schedule:
    held = dict(row)
    generation, n = held.pop("generation"), held.pop("revision")
    revision = None if n is None else wire.Revision(generation, n)
    faults = msgspec.convert(held.pop("faults"), list[wire.Fault])
    return Schedule(**held, revision=revision, faults=faults)


def _rollout(row: Record) -> Rollout:
    held = dict(row)
    seen = wire.Revision(held.pop("seen_generation"), held.pop("seen_revision"))
    faults = msgspec.convert(held.pop("faults"), list[wire.Fault])
    return Rollout(**held, seen=seen, faults=faults)

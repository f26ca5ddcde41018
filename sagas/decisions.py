"""What named persons decide about a rollback: pause, resume, cancel, retry, skip, acknowledge (P16, P17, P20).

Each decision stands in the audit log, in the transaction of the act, and may be repeated: the second time changes nothing. None
of them acts by itself: the coordinator reads what was decided and goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import asyncpg
from asyncpg import Record
from msgspec import Struct

from runtime import audit
from runtime.postgres import Connection, Postgres
from runtime.problem import Problem, suggest
from runtime.queries import Queries
from sagas import look_ups

QUERIES = Queries.load("sagas", "decisions")
DISPATCH = Queries.load("sagas", "dispatch")
ENUMERATION = Queries.load("sagas", "enumeration")
COORDINATOR = Queries.load("sagas", "coordinator")
TARGETS_MAX = 10_000
PAGE = 1_000
TRIES_MAX = 3
WORK_WAIT_MS = 2_000

log = logging.getLogger("rescind.decisions")


class Decision(Struct, frozen=True, kw_only=True):
    """What a decision changed: the number of effects, or 1 for the rollback as a whole; 0 when it stood already."""

    rollback_id: UUID
    verb: str
    changed: int


class Decisions:
    """The verbs. Each raises `Problem` 404 for an unknown rollback and `Unavailable` when PostgreSQL is away."""

    def __init__(self, pg: Postgres) -> None:
        self._pg = pg

    async def pause(self, rollback_id: UUID, *, actor: str, reason: str) -> Decision:
        """Begin no more attempts. The state says `paused` when none is running."""
        return await self._on_rollback(rollback_id, "pause", QUERIES.pause, actor, reason)

    async def resume(self, rollback_id: UUID, *, actor: str, reason: str) -> Decision:
        """Go on after a pause, or begin what was held."""
        return await self._on_rollback(rollback_id, "resume", QUERIES.resume, actor, reason)

    async def cancel(self, rollback_id: UUID, *, actor: str, reason: str) -> Decision:
        """Skip everything that has not ended, in this person's name. What is running ends first."""
        return await self._on_rollback(rollback_id, "cancel", QUERIES.cancel, actor, reason, actor, reason)

    async def retry(self, rollback_id: UUID, ids: Sequence[UUID] | None = None, *, actor: str, reason: str) -> Decision:
        """Try again what waits for a person: these effects or compensations, or all of them.

        Whoever retries answers for the doubt, and approves a notice that waited for approval.
        """
        return await self._on_effects(rollback_id, "retry", ids, actor, reason, _retry)

    async def skip(self, rollback_id: UUID, ids: Sequence[UUID], *, actor: str, reason: str) -> Decision:
        """Leave these effects as they are, for ever and by name. One whose compensation is running is not skipped."""
        return await self._on_effects(rollback_id, "skip", ids, actor, reason, _skip)

    async def write_off(self, rollback_id: UUID, instances: Sequence[str], *, actor: str, reason: str) -> Decision:
        """Wait no longer for records that these instances may hold: they are lost with their disks. Late news still counts."""
        async with self._pg.transaction() as connection:
            row = await _rollback(connection, rollback_id)
            await connection.execute(QUERIES.lock_rollback, rollback_id)
            gone = await connection.fetch(QUERIES.write_off, rollback_id, list(instances), actor, reason)
            if gone:
                await connection.execute(QUERIES.touched, rollback_id)
            named = [each["instance_id"] for each in gone]
            await _conclude(connection, row, "skip", actor, reason, len(named), None, instances=named)
        return Decision(rollback_id=rollback_id, verb="skip", changed=len(named))

    async def acknowledge(self, rollback_id: UUID, ids: Sequence[UUID] | None = None, *, actor: str, reason: str) -> Decision:
        """Say that a person knows of these irreversible effects, or of all of them. A notice nobody approved is not sent."""
        return await self._on_effects(rollback_id, "acknowledge", ids, actor, reason, _acknowledge)

    async def _on_rollback(
        self, rollback_id: UUID, verb: str, query: str, actor: str, reason: str, *arguments: str
    ) -> Decision:
        async with self._pg.transaction() as connection:
            row = await _rollback(connection, rollback_id)
            changed = int(await connection.fetchval(query, rollback_id, *arguments) is not None)
            await _conclude(connection, row, verb, actor, reason, changed, None)
        if verb in ("pause", "cancel"):
            await self._wait_for_work(rollback_id)
        return Decision(rollback_id=rollback_id, verb=verb, changed=changed)

    async def _wait_for_work(self, rollback_id: UUID) -> None:
        """Until whoever had not heard of the decision has ended: when it is answered, nothing begins any more (hazard 15).

        Not for long: the decision stands, and the rollback's state says when it has taken effect.
        """
        try:
            async with self._pg.transaction() as connection:
                await connection.execute(COORDINATOR.limit_wait, str(WORK_WAIT_MS))
                await connection.execute(COORDINATOR.work_is_over, rollback_id)
        except asyncpg.LockNotAvailableError:
            log.warning("rollback %s: work that began before the decision is still under way", rollback_id)

    async def _on_effects(
        self,
        rollback_id: UUID,
        verb: str,
        ids: Sequence[UUID] | None,
        actor: str,
        reason: str,
        act: Callable[[Connection, UUID, Sequence[Record], str, str], Awaitable[int]],
    ) -> Decision:
        if ids is not None and len(ids) > TARGETS_MAX:
            raise Problem(422, "invalid", "Too many", f"at most {TARGETS_MAX} ids in one decision")
        for attempt in range(1, TRIES_MAX + 1):
            try:
                async with self._pg.transaction() as connection:
                    row = await _rollback(connection, rollback_id)
                    chosen = await connection.fetch(QUERIES.chosen, rollback_id, _list(ids), TARGETS_MAX)
                    if verb == "acknowledge":
                        changed = await _acknowledge_told(connection, rollback_id, ids, actor)
                    else:
                        changed = 0
                    changed += await act(connection, rollback_id, chosen, actor, reason)
                    if changed:
                        await connection.execute(QUERIES.touched, rollback_id)
                    await _conclude(connection, row, verb, actor, reason, changed, ids)
                return Decision(rollback_id=rollback_id, verb=verb, changed=changed)
            except asyncpg.DeadlockDetectedError:
                if attempt == TRIES_MAX:
                    raise
        raise AssertionError("unreachable")


async def skip_page(connection: Connection, rollback_id: UUID, after: UUID | None) -> tuple[UUID | None, int]:
    """Skip the next page of what has not ended, in the canceller's name. Returns where the page ended, null at the end, and
    how many it skipped. Nothing is skipped once a kill that widened the set has taken the cancelling back."""
    page = await connection.fetch(QUERIES.page, rollback_id, after, PAGE)
    cancelled = await connection.fetchrow(QUERIES.cancelled, rollback_id)
    if cancelled is None:
        return None, 0
    changed = await _skip(connection, rollback_id, page, cancelled["cancelled_by"], cancelled["cancelled_reason"] or "")
    if changed:
        await connection.execute(QUERIES.touched, rollback_id)
    return (page[-1]["effect_id"] if len(page) == PAGE else None), changed


async def _retry(connection: Connection, rollback_id: UUID, chosen: Sequence[Record], actor: str, reason: str) -> int:
    waiting = [row for row in chosen if row["state"] == "waiting"]
    compensations = sorted({row["compensation_id"] for row in waiting if row["compensation_id"] is not None})
    await connection.execute(QUERIES.lock, compensations)
    retried = {row["id"] for row in await connection.fetch(QUERIES.retry, compensations)}
    await connection.execute(QUERIES.follow_retry, list(retried))
    bare = [row["effect_id"] for row in waiting if row["compensation_id"] is None]
    judged = [row["effect_id"] for row in await connection.fetch(QUERIES.judge_again, rollback_id, bare, actor)]
    await look_ups.anew(connection, judged)
    await connection.execute(QUERIES.look_again, rollback_id, judged)
    noted = {row["compensation_id"]: row["effect_id"] for row in waiting if row["compensation_id"] in retried}
    await connection.execute(
        QUERIES.note, [*noted.values(), *judged], [*noted, *([None] * len(judged))], "retry", actor, reason
    )
    return len(judged) + sum(row["compensation_id"] in retried for row in waiting)


async def _skip(connection: Connection, rollback_id: UUID, chosen: Sequence[Record], actor: str, reason: str) -> int:
    compensations = sorted({row["compensation_id"] for row in chosen if row["compensation_id"] is not None})
    await connection.execute(QUERIES.lock, compensations)
    rows = await connection.fetch(QUERIES.skip, [row["effect_id"] for row in chosen], actor, reason, rollback_id)
    if not rows:
        return 0
    touched = sorted({row["compensation_id"] for row in rows if row["compensation_id"] is not None})
    retired = [row["id"] for row in await connection.fetch(QUERIES.retire, touched)]
    await connection.execute(ENUMERATION.undone, [row["effect_id"] for row in rows])
    noted: dict[object, UUID] = {row["compensation_id"] or row["effect_id"]: row["effect_id"] for row in rows}
    of = {row["effect_id"]: row["compensation_id"] for row in rows}
    effects = list(noted.values())
    await connection.execute(QUERIES.note, effects, [of[identity] for identity in effects], "skip", actor, reason)
    await connection.execute(DISPATCH.release_subjects, retired)
    return len(rows)


async def _acknowledge(connection: Connection, rollback_id: UUID, chosen: Sequence[Record], actor: str, reason: str) -> int:
    untold = [row["effect_id"] for row in chosen if row["state"] == "waiting"]
    rows = await connection.fetch(QUERIES.acknowledge_untold, rollback_id, untold, actor)
    await connection.execute(ENUMERATION.undone, [row["effect_id"] for row in rows])
    return len(rows)


async def _acknowledge_told(connection: Connection, rollback_id: UUID, ids: Sequence[UUID] | None, actor: str) -> int:
    return len(await connection.fetch(QUERIES.acknowledge, rollback_id, _list(ids), actor))


async def _rollback(connection: Connection, rollback_id: UUID) -> Record:
    row = await connection.fetchrow(QUERIES.rollback, rollback_id)
    if row is None:
        known = [near["id"] for near in await connection.fetch(QUERIES.near)]
        suggestion = suggest(str(rollback_id), known)
        raise Problem(404, "unknown_rollback", "Unknown rollback", f"no rollback {rollback_id}", suggestion=suggestion)
    return row


async def _conclude(
    connection: Connection,
    row: Record,
    verb: str,
    actor: str,
    reason: str,
    changed: int,
    ids: Sequence[UUID] | None,
    **more: object,
) -> None:
    if not changed:
        return
    detail = {"changed": changed, "ids": None if ids is None else [str(identity) for identity in ids], **more}
    await audit.append(
        connection,
        actor=actor,
        action=f"rollback.{verb}",
        environment=row["environment"],
        object=str(row["id"]),
        reason=reason,
        detail=detail,
    )
    await connection.execute(QUERIES.ring, str(row["id"]))


def _list(ids: Sequence[UUID] | None) -> list[UUID] | None:
    return None if ids is None else list(ids)

"""Scheduled changes: ordinary revisions at their time, each once, in the name of who scheduled them (P4, P18, P20).

A schedule's row and its change are written in one transaction, so that of any number of servers one applies it and a crash
applies all of it or nothing. PostgreSQL's clock alone says what is due. Nothing about it is stronger than a change made by
hand: a kill stays over what it writes. Refused ones say why, and are not tried again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from rescind import wire

from flagd import store, store_schedules, surroundings
from flagd.core import changes, planned
from flagd.errors import Code, already_ended, refused, unknown_environment, unknown_schedule
from flagd.replica import Replicas
from flagd.service import FlagService
from flagd.store_schedules import Schedule
from runtime import audit, tokens
from runtime.clock import Entropy
from runtime.errors import OutcomeUnknown, Unavailable
from runtime.postgres import Connection, Postgres, savepoint
from runtime.principal import Principal
from runtime.problem import Problem
from runtime.telemetry import counter

log = logging.getLogger("rescind.flagd.schedules")
survived = counter("rescind.flagd.schedules.errors")


class Schedules:
    """Keeps changes until they are due, and applies them."""

    def __init__(self, pg: Postgres, replicas: Replicas, flags: FlagService, entropy: Entropy) -> None:
        self._pg = pg
        self._replicas = replicas
        self._flags = flags
        self._entropy = entropy

    async def create(
        self,
        environment: str,
        operations: Sequence[changes.Operation],
        *,
        at: datetime | None,
        in_seconds: float | None,
        principal: Principal,
        reason: str | None,
    ) -> Schedule:
        """One that waits for `at`, or for so many seconds from now. Raises `Problem` 404, 422."""
        async with self._pg.transaction() as connection:
            head = await store.environment_document(connection, environment)
            if head is None:
                raise unknown_environment(environment, await store.heads(connection))
            instant, seconds = await store_schedules.instant(connection, at, in_seconds)
            waiting = await store_schedules.waiting(connection, environment, None, planned.WAITING_MAX)
            await _refuse(connection, principal, seconds, len(waiting))
            keys, identity = changes.keys_of(operations), self._entropy.uuid7()
            flags = await surroundings.in_service(connection, environment, keys)
            bases = planned.bases_of(operations, flags, head.evaluators, [one.leaves for one in waiting])
            await store_schedules.create_schedule(
                connection, identity, environment, instant, planned.documents_of(operations), keys, bases,
                planned.written(operations), reason=reason, actor=principal.name, token_id=principal.id,
            )  # fmt: skip
            made = await store_schedules.get_schedule(connection, environment, identity)
            assert made is not None, "it was written a moment ago"
            await _note(connection, made, "schedule.create", principal.name, reason, {"at": made.at, "keys": made.keys})
        return made

    async def listing(
        self, environment: str, *, flag: str | None, state: str | None, before: UUID | None, limit: int
    ) -> list[Schedule]:
        """The newest first."""
        async with self._pg.connection() as connection:
            return await store_schedules.list_schedules(connection, environment, flag, state, before, limit)

    async def get(self, environment: str, identity: UUID) -> Schedule:
        """One of them. Raises `Problem` 404."""
        async with self._pg.connection() as connection:
            found = await store_schedules.get_schedule(connection, environment, identity)
        if found is None:
            raise unknown_schedule(str(identity))
        return found

    async def cancel(self, environment: str, identity: UUID, *, actor: str, reason: str | None) -> Schedule:
        """It will not be applied. Raises `Problem` 404, or 409 where it was applied, refused or cancelled before."""
        held = await self.get(environment, identity)
        async with self._pg.transaction() as connection:
            ended = await store_schedules.end_schedule(connection, identity, "cancelled", by=actor, reason=reason)
            if ended is not None:
                await _note(connection, ended, "schedule.cancel", actor, reason, {})
        if ended is None:
            raise already_ended("schedule", (await self.get(environment, held.id)).state)
        return ended

    async def apply_due(self, without: Sequence[str] = ()) -> Schedule | None:
        """Apply one that is due, or refuse it with its faults, unless an environment is among `without`.

        None where nothing is due. One still `waiting` in the answer cannot be judged now, and is for a later pass.
        """
        async with self._pg.transaction() as connection:
            due = await store_schedules.due_schedule(connection, without)
            if due is None:
                return None
            try:
                async with savepoint(connection):
                    revision = await self._carry_out(connection, due)
            except Problem as problem:
                if problem.code == Code.IN_RECOVERY:
                    return due
                return await _refused(connection, due, problem)
            except (Unavailable, OutcomeUnknown):
                raise
            except Exception:  # the others do not wait for what is broken here
                survived.add(1)
                log.exception("schedule %s of %s waits for the next look", due.id, due.environment)
                return due
            ended = await store_schedules.end_schedule(connection, due.id, "applied", revision=revision)
        await self._flags.tell(due.environment, revision)
        return ended

    async def _carry_out(self, connection: Connection, due: Schedule) -> wire.Revision:
        if not await tokens.seconds_left(connection, due.token_id):
            raise revoked(due.actor)
        checker = await self._flags.checker(due.environment, due.operations)
        operations, faults = changes.read_operations(due.operations, checker)
        if faults:
            raise refused(faults)
        places = surroundings.places_of(operations, changes.pointers_of(operations))
        return await self._flags.write(
            connection,
            due.environment,
            operations,
            actor=due.actor,
            reason=due.reason,
            because={"schedule": str(due.id), "scheduled_at": due.created_at.isoformat()},
            seen=await self._replicas.seen(due.environment),
            objections=lambda held, evaluators: planned.objections(due.bases, places, held, evaluators),
        )


def revoked(actor: str) -> Problem:
    """What was asked for is not done in the name of one who may not ask any more."""
    detail = f"the token of `{actor}` who asked for it was revoked or has expired"
    return refused([wire.Fault(pointer="", code="revoked", detail=detail)])


def faults_of(problem: Problem) -> list[wire.Fault]:
    """The problem as faults: its own, or itself as one."""
    if problem.errors:
        return [wire.Fault(pointer=one.pointer, code=one.code, detail=one.detail) for one in problem.errors]
    return [wire.Fault(pointer="", code=problem.code, detail=problem.detail)]


async def _refuse(connection: Connection, principal: Principal, seconds: float, waiting_count: int) -> None:
    """Raise `Problem` 422 for an instant that cannot be, or that the token does not live to see."""
    faults = planned.at_faults(seconds)
    if not faults and await tokens.seconds_left(connection, principal.id) <= seconds:
        detail = "your token expires before: what it schedules would be refused by then"
        faults = [wire.Fault(pointer="/at", code="token_expires", detail=detail)]
    if waiting_count >= planned.WAITING_MAX:
        detail = f"at most {planned.WAITING_MAX} changes wait in an environment"
        faults.append(wire.Fault(pointer="", code="too_many", detail=detail))
    if faults:
        raise refused(faults)


async def _refused(connection: Connection, due: Schedule, problem: Problem) -> Schedule | None:
    faults = faults_of(problem)
    told = [f"{fault.pointer or '/'}: {fault.detail}" for fault in faults]
    await _note(connection, due, "schedule.refuse", due.actor, due.reason, {"faults": told})
    return await store_schedules.end_schedule(connection, due.id, "refused", faults=faults)


async def _note(
    connection: Connection, schedule: Schedule, action: str, actor: str, reason: str | None, detail: dict[str, Any]
) -> None:
    await audit.append(
        connection, actor=actor, action=action, environment=schedule.environment, object=str(schedule.id), reason=reason,
        detail={"scheduled_by": schedule.actor, **detail},
    )  # fmt: skip

"""Stepwise rollouts: each step an ordinary revision, in the name of who began it (P4, P18, P20).

A rollout goes on only while the flag is as its last step left it. Killed, archived, or written by anyone else, it stops where
it is, and is not taken up again: whoever acted knows more. A lift does not resume it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from rescind import wire

from flagd import store, store_schedules
from flagd.core import changes, rollout
from flagd.errors import Code, already_ended, no_rollout, refused, rollout_running, unknown_flag
from flagd.replica import Replicas
from flagd.schedules import faults_of, revoked
from flagd.service import FlagService
from flagd.store_schedules import Rollout
from runtime import audit, tokens
from runtime.clock import Entropy
from runtime.errors import OutcomeUnknown, Unavailable
from runtime.postgres import Connection, Postgres, savepoint
from runtime.principal import Principal
from runtime.problem import Problem
from runtime.telemetry import counter

log = logging.getLogger("rescind.flagd.rollouts")
survived = counter("rescind.flagd.rollouts.errors")


class Rollouts:
    """Begins, carries on and stops rollouts."""

    def __init__(self, pg: Postgres, replicas: Replicas, flags: FlagService, entropy: Entropy) -> None:
        self._pg = pg
        self._replicas = replicas
        self._flags = flags
        self._entropy = entropy

    async def start(
        self,
        environment: str,
        key: str,
        variant: str,
        steps: Sequence[float],
        every_seconds: float,
        *,
        principal: Principal,
        reason: str | None,
    ) -> Rollout:
        """Take the first step now, the others each `every_seconds` later. Raises `Problem` 404, 409, 422."""
        await self._checked(environment, key)
        seen = await self._replicas.seen(environment)
        async with self._flags.transaction() as connection:
            held = await self._free(connection, environment, key)
            begun = Rollout(
                id=self._entropy.uuid7(), environment=environment, flag=key, variant=variant, rest="", steps=list(steps),
                every_seconds=every_seconds, done=[], epoch=held.epoch, seen=held.changed, reason=reason,
                actor=principal.name, token_id=principal.id, state="running" if len(steps) > 1 else "finished", stopped=None,
                faults=[], next_at=None, created_at=await store_schedules.now(connection), ended_at=None, ended_by=None,
                ended_reason=None,
            )  # fmt: skip
            rest, done, revision = await self._step(connection, begun, held, seen)
            await store_schedules.create_rollout(
                connection, msgspec.structs.replace(begun, rest=rest, done=done, seen=revision)
            )
            await _note(connection, begun, "rollout.start", principal.name, reason, {"variant": variant, "steps": list(steps)})
        await self._flags.tell(environment, revision)
        return await self.get(environment, key)

    async def get(self, environment: str, key: str) -> Rollout:
        """The flag's last one. Raises `Problem` 404."""
        async with self._pg.connection() as connection:
            found = (await store_schedules.latest_rollouts(connection, environment, [key])).get(key)
        if found is None:
            await self._checked(environment, key)
            raise no_rollout(key)
        return found

    async def stop(self, environment: str, key: str, *, actor: str, reason: str | None) -> Rollout:
        """No further step; the flag stays as it is. Raises `Problem` 404, or 409 where it has ended."""
        last = await self.get(environment, key)
        async with self._pg.transaction() as connection:
            stopped = await store_schedules.stop_rollout(connection, last.id, "asked", by=actor, reason=reason)
            if stopped is not None:
                await _note(connection, stopped, "rollout.stop", actor, reason, {"why": "asked"})
        if stopped is None:
            raise already_ended("rollout", (await self.get(environment, key)).state)
        return stopped

    async def carry_on(self, without: Sequence[UUID] = ()) -> UUID | None:
        """Look at one whose step is due, or whose flag has changed, but none of `without`: take the step, or stop it.

        The id of the one that was looked at; None where there is nothing to do.
        """
        async with self._pg.transaction() as connection:
            due = await store_schedules.due_rollout(connection, without)
            if due is None:
                return None
            row = await store.get_flag(connection, due.environment, due.flag)
            assert row is not None, "a rollout's flag exists, archived or not"
            why = _why_not(due, row)
            if why is not None:
                await self._stop(connection, due, why, [])
                return due.id
            try:
                async with savepoint(connection):
                    revision = await self._due(connection, due, row)
            except Problem as problem:
                if problem.code not in (
                    Code.IN_RECOVERY,
                    Code.FLAG_CHANGED,
                    Code.OVERTAKEN,
                ):  # those look different in a later pass
                    await self._stop(connection, due, "refused", faults_of(problem))
                return due.id
            except (Unavailable, OutcomeUnknown):
                raise
            except Exception:  # the others do not wait for what is broken here
                survived.add(1)
                log.exception("the rollout of %s in %s waits for the next look", due.flag, due.environment)
                return due.id
        await self._flags.tell(due.environment, revision)
        return due.id

    async def _due(self, connection: Connection, due: Rollout, row: store.StoredFlag) -> wire.Revision:
        if not await tokens.seconds_left(connection, due.token_id):
            raise revoked(due.actor)
        _, done, revision = await self._step(connection, due, row, await self._replicas.seen(due.environment))
        is_last = len(done) == len(due.steps)
        await store_schedules.take_step(connection, due.id, done, revision, is_last=is_last)
        return revision

    async def _step(
        self, connection: Connection, due: Rollout, row: store.StoredFlag, seen: wire.Revision
    ) -> tuple[str, list[dict[str, Any]], wire.Revision]:
        """Write the next step. The variant of the rest, all that is done, and the revision."""
        percent = due.steps[len(due.done)]
        try:
            rest = rollout.rest_of(row.flag.definition, due.variant)
            definition = rollout.step(row.flag.definition, due.variant, percent)
        except rollout.NotRollable as error:
            raise refused([error.fault]) from None
        revision = await self._flags.write(
            connection,
            due.environment,
            [changes.Put(flag=msgspec.structs.replace(row.flag, definition=definition))],
            actor=due.actor,
            reason=due.reason,
            because={"rollout": str(due.id), "step": len(due.done) + 1, "percent": percent},
            expected_flags={due.flag: row.changed},
            pointers=["/flag"],
            seen=seen,
        )
        at = (await store_schedules.now(connection)).isoformat()
        return rest, [*due.done, {"percent": percent, "revision": str(revision), "at": at}], revision

    async def _free(self, connection: Connection, environment: str, key: str) -> store.StoredFlag:
        """The flag, with nothing running on it: what may not go on is stopped here, and not when the scheduler looks."""
        before = await store_schedules.running(connection, environment, key)
        held = await _held(connection, environment, key)  # read last: no step is taken while the running one is locked
        if before is not None:
            why = _why_not(before, held)
            if why is None:
                raise rollout_running(key)
            await self._stop(connection, before, why, [])
        return held

    async def _stop(self, connection: Connection, due: Rollout, why: str, faults: list[wire.Fault]) -> None:
        await store_schedules.stop_rollout(connection, due.id, why, faults=faults)
        told = [fault.detail for fault in faults]
        await _note(connection, due, "rollout.stop", due.actor, due.reason, {"why": why, "faults": told})

    async def _checked(self, environment: str, key: str) -> None:
        """Raise `Problem` 404 for an unknown environment or flag."""
        await self._flags.flag(environment, key)


async def _held(connection: Connection, environment: str, key: str) -> store.StoredFlag:
    """The flag, which no kill stands over."""
    row = await store.get_flag(connection, environment, key)
    if row is None or row.archived_at is not None:
        raise unknown_flag(key, ())
    if await store.standing_kills(connection, environment, [key]):
        detail = f"flag `{key}` is killed: nothing is rolled out under a kill"
        raise refused([wire.Fault(pointer="", code="killed", detail=detail)])
    return row


def _why_not(due: Rollout, row: store.StoredFlag) -> str | None:
    """Why it may not go on; None if the flag is as its last step left it."""
    if row.archived_at is not None:
        return "archived"
    if row.epoch != due.epoch:
        return "killed"
    return None if row.changed == due.seen else "edited"


async def _note(
    connection: Connection, one: Rollout, action: str, actor: str, reason: str | None, detail: dict[str, Any]
) -> None:
    await audit.append(
        connection, actor=actor, action=action, environment=one.environment, object=one.flag, reason=reason,
        detail={"rollout": str(one.id), "begun_by": one.actor, **detail},
    )  # fmt: skip

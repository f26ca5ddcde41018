"""Changes: judged whole, written in one transaction, and told to every replica (P1, P2, P4)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from msgspec import Struct
from rescind import wire
from rescind.evaluation import check

from flagd import judging, store, store_schedules, surroundings, writing
from flagd.core import changes, documents, flagset, planned
from flagd.errors import refused, unknown_environment, unknown_flag
from flagd.replica import Replicas
from runtime import audit
from runtime.errors import Unavailable
from runtime.postgres import Connection, Postgres

EDITS_MAX = 4
"""At once in this process."""

log = logging.getLogger("rescind.flagd.service")


class FlagView(Struct, frozen=True, kw_only=True):
    """A flag as people read it: what was written, what has become of it, and what is to come."""

    stored: store.StoredFlag
    kills: list[store.StandingKill]
    schedules: list[store_schedules.Schedule]
    """Changes of it that wait, the next first."""
    rollout: store_schedules.Rollout | None
    """The last one, running or not."""


class Segments(Struct, frozen=True, kw_only=True):
    """The environment's shared rules, and for each the flags that refer to it."""

    revision: wire.Revision
    rules: dict[str, Any]
    flags: dict[str, list[str]]


class FlagService:
    """Everything that changes flags, and what people read of them."""

    def __init__(
        self,
        pg: Postgres,
        replicas: Replicas,
        on_created: writing.OnCreated,
        on_proceeding: writing.OnProceeding | None = None,
    ) -> None:
        self._pg = pg
        self._replicas = replicas
        self._on_created = on_created
        self._on_proceeding = on_proceeding
        self._edits = asyncio.Semaphore(EDITS_MAX)

    async def environments(self) -> list[store.Environment]:
        """Every environment, by name."""
        async with self._pg.connection() as connection:
            return await store.list_environments(connection)

    async def create_environment(self, name: str, *, actor: str, reason: str | None = None) -> bool:
        """Whether it is new. Its first change will be revision 1.1."""
        async with self._pg.transaction() as connection:
            is_new = await store.create_environment(connection, name)
            if is_new:
                await audit.append(
                    connection,
                    actor=actor,
                    action="environment.create",
                    environment=name,
                    object=name,
                    reason=reason,
                    detail={},
                )
        return is_new

    async def apply(
        self,
        environment: str,
        operations: Sequence[changes.Operation],
        *,
        actor: str,
        reason: str | None = None,
        expected_revision: wire.Revision | None = None,
        expected_flags: Mapping[str, wire.Revision] | None = None,
        pointers: Sequence[str] | None = None,
        document: flagset.FlagSet | None = None,
        past_gate: bool = False,
    ) -> wire.Revision:
        """Carry out a change: all of it under one new revision, or a `Problem` and nothing of it (P1).

        `expected_flags` are the revisions at which flags must be; `pointers[i]` is where operation i was written, for the
        faults, by default `/operations/<i>`; `document` is the flagd document that the operations come from; `past_gate` turns
        flags on that live instances have not declared.
        """
        pointers = pointers or changes.pointers_of(operations)
        checked = document.evaluators if document is not None else await self._check(environment, operations, pointers)
        seen = await self._replicas.seen(environment)
        async with self.transaction() as connection:
            revision = await self.write(
                connection,
                environment,
                operations,
                actor=actor,
                reason=reason,
                expected_revision=expected_revision,
                expected_flags=expected_flags or {},
                pointers=pointers,
                seen=seen,
                document=document,
                checked=checked,
                past_gate=past_gate,
            )
        await self.tell(environment, revision)
        return revision

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """For an edit that was asked for: few at a time, since who waits for a turn keeps a connection that a kill may need."""
        async with self._edits, self._pg.transaction() as connection:
            yield connection

    async def judge(
        self,
        connection: Connection,
        environment: str,
        operations: Sequence[changes.Operation],
        *,
        pointers: Sequence[str] | None = None,
        **given: Any,
    ) -> judging.Judged:
        """What a change would write, for whoever shows it first; `given` is for `judging.Asked`. Writes nothing."""
        places = pointers or changes.pointers_of(operations)
        asked = judging.Asked(environment=environment, operations=operations, pointers=places, **given)
        return await judging.judge(connection, asked)

    async def write(
        self,
        connection: Connection,
        environment: str,
        operations: Sequence[changes.Operation],
        *,
        actor: str,
        reason: str | None = None,
        beside: Sequence[dict[str, Any]] = (),
        because: Mapping[str, Any] | None = None,
        **given: Any,
    ) -> wire.Revision:
        """A change inside the caller's transaction, for whoever does more under the same revision: `beside` are the
        operations (`{"op", "key"}`) that the caller carries out itself, `because` is what else the audit entries say, `given`
        is for `judge`. The caller refreshes the replicas afterwards."""
        judged = await self.judge(connection, environment, operations, **given)
        return await writing.write(
            connection,
            environment,
            judged,
            actor=actor,
            reason=reason,
            beside=beside,
            because=because or {},
            on_created=self._on_created,
            on_proceeding=self._on_proceeding,
        )

    async def export_document(self, environment: str) -> dict[str, Any]:
        """The flags as they were written, prerequisites as rules, as one flagd document. Kills are overlays: not in it."""
        async with self._pg.connection() as connection:
            head = await store.environment_document(connection, environment)
            if head is None:
                raise unknown_environment(environment, await store.heads(connection))
            flags = await store.all_flags(connection, environment)
        return flagset.document_of(flags, head.evaluators, head.metadata, head.bucketing)

    async def segments(self, environment: str) -> Segments:
        """The rules that flags share. Raises `Problem` 404 for an unknown environment."""
        async with self._pg.connection() as connection:
            head = await store.environment_document(connection, environment)
            if head is None:
                raise unknown_environment(environment, await store.heads(connection))
            referring = await surroundings.referring_keys(connection, environment)
        return Segments(revision=head.revision, rules=head.evaluators, flags=referring)

    async def flags(self, environment: str, after: str, limit: int) -> list[FlagView]:
        """Flags in service, by key, `after` excluded."""
        async with self._pg.connection() as connection:
            rows = await store.list_flags(connection, environment, after, limit)
            if not rows:
                await writing.expect_environment(connection, environment)
            return await _views(connection, environment, rows)

    async def flag(self, environment: str, key: str) -> FlagView:
        """One flag. Raises `Problem` 404 with a suggestion; an archived one is not there."""
        async with self._pg.connection() as connection:
            row = await store.get_flag(connection, environment, key)
            if row is None or row.archived_at is not None:
                await writing.expect_environment(connection, environment)
                raise unknown_flag(key, await store.flag_keys(connection, environment))
            (view,) = await _views(connection, environment, [row])
            return view

    async def has(self, environment: str, key: str) -> bool:
        """Whether there is such a flag, archived or not."""
        async with self._pg.connection() as connection:
            return await store.get_flag(connection, environment, key) is not None

    async def expect(self, environment: str) -> None:
        """Raise `Problem` 404 where there is no such environment."""
        async with self._pg.connection() as connection:
            await writing.expect_environment(connection, environment)

    async def checker(self, environment: str, operations: object = None) -> documents.Check:
        """The check of a definition, which may refer to the environment's segments, and to those that `operations`, a change
        list as it was written, brings along."""
        known = {**(await self._replicas.get(environment)).snapshot.evaluators, **changes.shared_in(operations)}
        return lambda definition: _faults_of(definition, known)

    async def _check(
        self, environment: str, operations: Sequence[changes.Operation], pointers: Sequence[str]
    ) -> dict[str, Any]:
        """Look at every definition once more, for those who call from within. Raises 422 with all faults.

        Answers the segments that they were checked with.
        """
        known = dict((await self._replicas.get(environment)).snapshot.evaluators)
        known.update({one.name: one.rule for one in operations if isinstance(one, changes.PutSegment)})
        faults = await asyncio.to_thread(_unsound, operations, pointers, known)
        if faults:
            raise refused(faults)
        return known

    async def tell(self, environment: str, revision: wire.Revision) -> None:
        """Bring this process's replica up to what was committed; the others hear of it by themselves."""
        try:
            await self._replicas.refresh(environment, revision)
        except Unavailable as error:
            log.warning(
                "revision %s of %s is committed; replicas will learn of it by themselves: %s", revision, environment, error
            )


async def _views(connection: Connection, environment: str, rows: Sequence[store.StoredFlag]) -> list[FlagView]:
    keys = [row.flag.key for row in rows]
    kills = await store.standing_kills(connection, environment, keys)
    waiting = await store_schedules.waiting(connection, environment, keys, planned.WAITING_MAX)
    rollouts = await store_schedules.latest_rollouts(connection, environment, keys)
    return [
        FlagView(
            stored=row,
            kills=[kill for kill in kills if kill.flag == row.flag.key],
            schedules=[schedule for schedule in waiting if row.flag.key in schedule.keys],
            rollout=rollouts.get(row.flag.key),
        )
        for row in rows
    ]


def _unsound(operations: Sequence[changes.Operation], pointers: Sequence[str], known: dict[str, Any]) -> list[wire.Fault]:
    return [
        fault
        for operation, at in zip(operations, pointers, strict=True)
        if isinstance(operation, changes.Put)
        for fault in documents.flag_faults(operation.flag, at, lambda definition: _faults_of(definition, known))
    ]


def _faults_of(definition: dict[str, Any], evaluators: dict[str, Any]) -> list[wire.Fault]:
    return [
        wire.Fault(pointer=fault.pointer, detail=fault.detail, code=str(fault.code))
        for fault in check(definition, evaluators=evaluators)
    ]

"""Changes: judged whole, written in one transaction, and told to every replica (P1, P2, P4)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct
from rescind import wire
from rescind.evaluation import check

from flagd import store
from flagd.core import changes, documents, flagset
from flagd.errors import flag_changed, in_recovery, refused, revision_mismatch, unknown_environment, unknown_flag
from flagd.replica import Replicas
from runtime import audit
from runtime.errors import Unavailable
from runtime.postgres import Connection, Postgres

OnCreated = Callable[[Connection, str, Sequence[tuple[str, str]]], Awaitable[None]]
"""Called in the change's own transaction with each (key, off variant) that is new."""

AUDIT_ENTRIES_MAX = 50

log = logging.getLogger("rescind.flagd.service")


class FlagView(Struct, frozen=True, kw_only=True):
    """A flag as people read it: what was written, and what has become of it."""

    stored: store.StoredFlag
    kills: list[store.StandingKill]


class Judged(Struct, frozen=True, kw_only=True):
    """A change that may be written: nobody else takes a revision, or any of its flags, before this transaction ends."""

    locked: store.Locked
    held: dict[str, changes.HeldFlag]
    plan: changes.Plan


class FlagService:
    """Everything that changes flags, and what people read of them."""

    def __init__(self, pg: Postgres, replicas: Replicas, on_created: OnCreated) -> None:
        self._pg = pg
        self._replicas = replicas
        self._on_created = on_created

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
    ) -> wire.Revision:
        """Carry out a change: all of it under one new revision, or a `Problem` and nothing of it (P1).

        `expected_flags` are the revisions at which flags must be; `pointers[i]` is where operation i was written, for the
        faults, by default `/operations/<i>`; `document` is the flagd document that the operations come from.
        """
        pointers = pointers or changes.pointers_of(operations)
        if document is None:
            await self._check(environment, operations, pointers)
        seen = await self._replicas.seen(environment)
        async with self._pg.transaction() as connection:
            revision = await self.write(
                connection,
                environment,
                operations,
                actor=actor,
                reason=reason,
                expected_revision=expected_revision,
                expected_flags=expected_flags,
                pointers=pointers,
                seen=seen,
                document=document,
            )
        await self._tell(environment, revision)
        return revision

    async def write(
        self,
        connection: Connection,
        environment: str,
        operations: Sequence[changes.Operation],
        *,
        actor: str,
        reason: str | None = None,
        expected_revision: wire.Revision | None = None,
        expected_flags: Mapping[str, wire.Revision] | None = None,
        pointers: Sequence[str] | None = None,
        seen: wire.Revision | None = None,
        beside: Sequence[dict[str, Any]] = (),
        document: flagset.FlagSet | None = None,
        because: Mapping[str, Any] | None = None,
    ) -> wire.Revision:
        """A change inside the caller's transaction, for whoever does more under the same revision: `beside` are the
        operations (`{"op", "key"}`) that the caller carries out itself, `because` is what else the audit entries say. The
        caller refreshes the replicas afterwards."""
        judged = await self.judge(
            connection,
            environment,
            operations,
            expected_revision=expected_revision,
            expected_flags=expected_flags,
            pointers=pointers,
            seen=seen,
            document=document,
        )
        locked, plan = judged.locked, judged.plan
        revision = await store.advance(connection, environment)
        await store.write_plan(connection, environment, revision, plan)
        if document is not None:
            await store.put_document(connection, environment, *flagset.beside(document, locked.evaluators, locked.metadata))
        if plan.fences:
            await self._on_created(connection, environment, plan.fences)
        recorded = [*plan.operations(), *beside]
        keys = [*plan.keys(), *(str(operation["key"]) for operation in beside)]
        await store.record_revision(
            connection, environment, revision, actor=actor, reason=reason, operations=recorded, keys=keys
        )
        await self._note(connection, environment, plan, revision, actor=actor, reason=reason, because=because or {})
        return revision

    async def judge(
        self,
        connection: Connection,
        environment: str,
        operations: Sequence[changes.Operation],
        *,
        expected_revision: wire.Revision | None = None,
        expected_flags: Mapping[str, wire.Revision] | None = None,
        pointers: Sequence[str] | None = None,
        seen: wire.Revision | None = None,
        document: flagset.FlagSet | None = None,
    ) -> Judged:
        """What `write` would write, with everything locked that it depends on. Raises the `Problem` of a change that may not
        be; writes nothing."""
        locked = await self._lock(connection, environment, expected_revision, seen)
        held = await store.lock_flags(connection, environment, [changes.key_of(operation) for operation in operations])
        for key, expected in (expected_flags or {}).items():
            if key not in held or held[key].changed != expected:
                raise flag_changed(key, expected, held[key].changed if key in held else None)
        plan, faults = changes.plan(
            operations if document is None else flagset.keep(operations, held),
            held,
            pointers or changes.pointers_of(operations),
        )
        await self._refuse(connection, environment, operations, faults if document is None else flagset.relocated(faults))
        return Judged(locked=locked, held=held, plan=plan if document is None else flagset.moving(plan, held))

    async def export_document(self, environment: str) -> dict[str, Any]:
        """The flags as they were written, as one flagd document. Kills are overlays: they are not in it."""
        async with self._pg.connection() as connection:
            head = await store.environment_document(connection, environment)
            if head is None:
                raise unknown_environment(environment, await store.heads(connection))
            flags = await store.all_flags(connection, environment)
        return flagset.document_of(flags, head.evaluators, head.metadata)

    async def flags(self, environment: str, after: str, limit: int) -> list[FlagView]:
        """Flags in service, by key, `after` excluded."""
        async with self._pg.connection() as connection:
            rows = await store.list_flags(connection, environment, after, limit)
            kills = await store.standing_kills(connection, environment, [row.flag.key for row in rows])
            if not rows:
                await self._expect(connection, environment)
        return [FlagView(stored=row, kills=[kill for kill in kills if kill.flag == row.flag.key]) for row in rows]

    async def flag(self, environment: str, key: str) -> FlagView:
        """One flag. Raises `Problem` 404 with a suggestion; an archived one is not there."""
        async with self._pg.connection() as connection:
            row = await store.get_flag(connection, environment, key)
            if row is None or row.archived_at is not None:
                await self._expect(connection, environment)
                raise unknown_flag(key, await store.flag_keys(connection, environment))
            return FlagView(stored=row, kills=await store.standing_kills(connection, environment, [key]))

    async def has(self, environment: str, key: str) -> bool:
        """Whether there is such a flag, archived or not."""
        async with self._pg.connection() as connection:
            return await store.get_flag(connection, environment, key) is not None

    async def checker(self, environment: str) -> documents.Check:
        """The check of a definition, which may refer to the environment's shared evaluators."""
        known = (await self._replicas.get(environment)).snapshot.evaluators
        return lambda definition: _faults_of(definition, known)

    async def _check(self, environment: str, operations: Sequence[changes.Operation], pointers: Sequence[str]) -> None:
        """Look at every definition once more, for those who call from within. Raises 422 with all faults."""
        checked = await self.checker(environment)
        faults = [
            fault
            for operation, at in zip(operations, pointers, strict=True)
            if isinstance(operation, changes.Put)
            for fault in documents.flag_faults(operation.flag, at, checked)
        ]
        if faults:
            raise refused(faults)

    async def _lock(
        self, connection: Connection, environment: str, expected: wire.Revision | None, seen: wire.Revision | None
    ) -> store.Locked:
        locked = await store.lock_environment(connection, environment)
        if locked is None:
            raise unknown_environment(environment, await store.heads(connection))
        newest = max(seen or locked.told, locked.told)
        if newest > locked.revision:
            raise in_recovery(environment, locked.revision, newest)
        if expected is not None and expected != locked.revision:
            raise revision_mismatch(expected, locked.revision)
        return locked

    async def _refuse(
        self,
        connection: Connection,
        environment: str,
        operations: Sequence[changes.Operation],
        faults: Sequence[wire.Fault],
    ) -> None:
        if not faults:
            return
        if len(operations) == 1 and faults[0].code == "unknown_flag":
            raise unknown_flag(changes.key_of(operations[0]), await store.flag_keys(connection, environment))
        raise refused(faults)

    async def _expect(self, connection: Connection, environment: str) -> None:
        heads = await store.heads(connection)
        if environment not in heads:
            raise unknown_environment(environment, heads)

    async def _note(
        self,
        connection: Connection,
        environment: str,
        plan: changes.Plan,
        revision: wire.Revision,
        *,
        actor: str,
        reason: str | None,
        because: Mapping[str, Any],
    ) -> None:
        """One entry per flag; one for all where there are many, for a kill waits while this transaction runs."""
        operations = plan.operations()
        entries: list[tuple[str, str, dict[str, Any]]] = [
            (f"flag.{operation['op']}", operation["key"], {}) for operation in operations
        ]
        if len(operations) > AUDIT_ENTRIES_MAX:
            entries = [("flags.change", environment, {"operations": operations})]
        for action, about, detail in entries:
            await audit.append(
                connection,
                actor=actor,
                action=action,
                environment=environment,
                object=about,
                reason=reason,
                detail={"revision": str(revision), **detail, **because},
            )

    async def _tell(self, environment: str, revision: wire.Revision) -> None:
        try:
            await self._replicas.refresh(environment, revision)
        except Unavailable as error:
            log.warning(
                "revision %s of %s is committed; replicas will learn of it by themselves: %s", revision, environment, error
            )


def _faults_of(definition: dict[str, Any], evaluators: dict[str, Any]) -> list[wire.Fault]:
    return [
        wire.Fault(pointer=fault.pointer, detail=fault.detail, code=str(fault.code))
        for fault in check(definition, evaluators=evaluators)
    ]

"""Imports of flagd documents: what one would change is shown first, and what was shown is what is applied (P1)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from rescind import wire

from flagd.core import changes, difference, flagset, plain
from flagd.judging import Judged
from flagd.replica import Replicas
from flagd.service import FlagService
from runtime.postgres import Postgres
from runtime.queries import Queries

QUERIES = Queries.load("flagd", "imports")


class Imports:
    """Judges and applies flagd documents. What flagd has no field for stays as it is held."""

    def __init__(self, pg: Postgres, replicas: Replicas, flags: FlagService) -> None:
        self._pg = pg
        self._replicas = replicas
        self._flags = flags

    async def difference(
        self,
        environment: str,
        document: flagset.FlagSet,
        expected: wire.Revision | None = None,
        *,
        past_gate: bool = False,
    ) -> difference.Difference:
        """What `apply` would change now. Judged as a change is: raises its `Problem`, and writes nothing."""
        seen = await self._replicas.seen(environment)
        operations = [changes.Put(flag=flag) for flag in document.flags]
        async with self._flags.transaction() as connection:
            judged = await self._flags.judge(
                connection,
                environment,
                operations,
                expected_revision=expected,
                pointers=document.pointers,
                seen=seen,
                document=document,
                past_gate=past_gate,
            )
            keys = [row["key"] for row in await connection.fetch(QUERIES.keys_in_service, environment)]
        return await asyncio.to_thread(_shown, operations, judged, keys)

    async def apply(
        self,
        environment: str,
        document: flagset.FlagSet,
        *,
        actor: str,
        reason: str | None = None,
        expected: wire.Revision | None = None,
        past_gate: bool = False,
    ) -> wire.Revision:
        """Write every flag of the document that changes under one revision, or a `Problem` and nothing of it."""
        operations = [changes.Put(flag=flag) for flag in document.flags]
        return await self._flags.apply(
            environment,
            operations,
            actor=actor,
            reason=reason,
            expected_revision=expected,
            pointers=document.pointers,
            document=document,
            past_gate=past_gate,
        )

    async def export(self, environment: str, *, effective: bool) -> dict[str, object]:
        """The flags as one flagd document: as they were written, or as they are served now, kills and all."""
        if not effective:
            return await self._flags.export_document(environment)
        await self._replicas.refresh(environment)
        return plain.plain_document((await self._replicas.get(environment)).snapshot)


def _shown(operations: Sequence[changes.Operation], judged: Judged, keys: Sequence[str]) -> difference.Difference:
    head, held = judged.head, {key: one.flag for key, one in judged.held.items()}
    kept = [operation.flag for operation in flagset.keep(operations, judged.held) if isinstance(operation, changes.Put)]
    return difference.difference(
        kept,
        held,
        keys,
        revision=str(head.revision),
        evaluators=(head.evaluators, judged.evaluators),
        metadata=(head.metadata, judged.metadata),
    )

"""The ledger's rows as reports and acknowledgements need them: one typed function per query of `sql/ledger.sql`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec
from asyncpg import Connection
from msgspec import Struct
from rescind.wire import Revision

from runtime.sealing import Ring
from sagas import sealing
from sagas.core.effects import Status
from sagas.core.keys import Recorded
from sagas.core.proceeded import Place as ProceededPlace
from sagas.core.proceeded import Proceeded
from sagas.store import QUERIES, FlagName, flag_of

EVIDENCE_MAX = 128


class Place(Struct, frozen=True, kw_only=True):
    """Where an effect belongs, and the locks that a report of it takes."""

    environment: str
    flags: frozenset[FlagName]
    lock_keys: frozenset[int]


class Definition(Struct, frozen=True, kw_only=True):
    """Where it is said how an effect is undone."""

    saga: str | None
    saga_version: str | None
    step: str | None
    kind: str
    kind_version: str | None


class Reported(Struct, frozen=True, kw_only=True):
    """An effect as a report finds it, its row locked."""

    recorded: Recorded
    environment: str
    error_code: str | None
    attempts: dict[str, int]
    """Earlier attempts by their tokens."""
    evidence: list[dict[str, Any]]
    definition: Definition
    result: Any


class Entry(Struct, frozen=True, kw_only=True):
    """What a report changes of an effect's row; null leaves a column as it is."""

    effect_id: UUID
    environment: str
    status: Status | None
    begun: bool
    tombstoned: bool
    result_json: str | None
    error_json: str | None
    evidence_json: str | None
    extend_seconds: float | None
    traceparent: str | None = None


class Second(Struct, frozen=True, kw_only=True):
    """What another attempt at `effect_id` did beside it."""

    id: UUID
    effect_id: UUID
    token: UUID
    attempt: int
    result_json: str | None
    evidence_json: str


class Permission(Struct, frozen=True, kw_only=True):
    """A start that an instance was allowed and has not reported."""

    effect_id: UUID
    instance: str
    token: UUID
    flag: str
    epoch: int
    attributes: dict[str, Any]
    begun: bool


async def places(connection: Connection, effect_ids: Sequence[UUID]) -> dict[UUID, Place]:
    """Where these effects belong; an unknown one is missing."""
    flags: dict[UUID, set[FlagName]] = {}
    locks: dict[UUID, set[int]] = {}
    environments: dict[UUID, str] = {}
    for row in await connection.fetch(QUERIES.places, effect_ids):
        effect_id = row["id"]
        environments[effect_id] = row["environment"]
        flags.setdefault(effect_id, set()).add(flag_of(row))
        locks.setdefault(effect_id, set()).add(row["lock_key"])
        if row["sibling_flag"] is not None:
            flags[effect_id].add((row["environment"], row["sibling_flag"]))
            locks[effect_id].add(row["sibling_lock_key"])
    return {
        effect_id: Place(environment=environment, flags=frozenset(flags[effect_id]), lock_keys=frozenset(locks[effect_id]))
        for effect_id, environment in environments.items()
    }


async def reported(connection: Connection, effect_ids: Sequence[UUID]) -> dict[UUID, Reported]:
    """The effects, their rows locked until the transaction ends."""
    rows = await connection.fetch(QUERIES.reported, effect_ids)
    return {row["id"]: _reported(sealing.opened(connection.ring, row)) for row in rows}


def _reported(row: Mapping[str, Any]) -> Reported:
    recorded = Recorded(
        effect_id=row["id"],
        generation=0,
        payload_hash=b"",
        flag=row["flag"],
        is_off=row["is_off"],
        epoch=row["epoch"],
        attributes=row["attributes"],
        status=Status(row["status"]),
        attempt=row["attempt"],
        token=row["token"],
        begun=row["begun"],
        tombstoned=row["tombstoned"],
        undone=False,
        saga=(None, row["saga_instance"], None),
        revision=(row["revision_generation"], row["revision"]),
        admitted_at=row["admitted_at"],
        disposition=row["disposition"],
    )
    attempts = {one["token"]: one["attempt"] for one in row["evidence"] if one.get("what") == "attempt"}
    return Reported(
        recorded=recorded,
        environment=row["environment"],
        error_code=row["error_code"],
        attempts=attempts,
        evidence=row["evidence"],
        definition=Definition(
            saga=row["saga"],
            saga_version=row["saga_version"],
            step=row["step"],
            kind=row["kind"],
            kind_version=row["kind_version"],
        ),
        result=row["result"],
    )


async def record(connection: Connection, entries: Sequence[Entry]) -> None:
    """Write what reports changed."""
    names = [sealing.effect_name(one.environment, one.effect_id) for one in entries]
    ring: Ring = connection.ring
    await connection.execute(
        QUERIES.record,
        [one.effect_id for one in entries],
        [one.status for one in entries],
        [one.begun for one in entries],
        [one.tombstoned for one in entries],
        [ring.seal(one.result_json, name) for one, name in zip(entries, names, strict=True)],
        [one.error_json for one in entries],
        [sealing.seal_evidence(ring, one.evidence_json, name) for one, name in zip(entries, names, strict=True)],
        [one.extend_seconds for one in entries],
        EVIDENCE_MAX,
        [one.traceparent for one in entries],
    )


async def record_seconds(connection: Connection, seconds: Sequence[Second]) -> None:
    """Write second effects beside the first ones; one that is on record already stays as it is."""
    ring: Ring = connection.ring
    rows = await connection.fetch(sealing.QUERIES.payloads, [one.effect_id for one in seconds])
    first = {row["id"]: (row["environment"], sealing.opened(ring, row)["payload"]) for row in rows}
    names = [sealing.effect_name(first[one.effect_id][0], one.id) for one in seconds]
    payloads = [msgspec.json.encode(first[one.effect_id][1]).decode() for one in seconds]
    await connection.execute(
        QUERIES.record_seconds,
        [one.id for one in seconds],
        [one.effect_id for one in seconds],
        [one.token for one in seconds],
        [one.attempt for one in seconds],
        [ring.seal(one.result_json, name) for one, name in zip(seconds, names, strict=True)],
        [one.evidence_json for one in seconds],
        [ring.seal(text, name, beside=sealing.MONEY) for text, name in zip(payloads, names, strict=True)],
    )


async def proceed(
    connection: Connection, told: Proceeded, at: ProceededPlace, *, is_off: bool, epoch: int, generation: int, takes_key: bool
) -> None:
    """Write an effect that was begun without the server, as begun and not reported."""
    ask = told.ask
    ring: Ring = connection.ring
    await connection.execute(
        QUERIES.proceed,
        at.effect_id,
        ask.environment,
        ask.kind,
        ask.key,
        ask.payload_hash,
        generation,
        takes_key,
        ask.flag,
        ask.variant,
        is_off,
        ask.revision[0],
        ask.revision[1],
        epoch,
        ask.attributes_json,
        ask.saga,
        ask.saga_version,
        ask.saga_instance,
        ask.step,
        ask.kind_version,
        ask.subject,
        ring.seal(ask.payload_json, sealing.effect_name(ask.environment, at.effect_id), beside=sealing.MONEY),
        ask.instance,
        told.report.token,
        told.ago_seconds,
    )


async def proceed_again(connection: Connection, effect_id: UUID, token: UUID, ago_seconds: float) -> None:
    """Note an attempt that was made without the server at an effect that is on record."""
    await connection.execute(QUERIES.proceed_again, effect_id, token, ago_seconds, EVIDENCE_MAX)


async def ended(connection: Connection, effect_id: UUID, token: UUID, ago_seconds: float) -> None:
    """Say when a body that succeeded without the server had ended."""
    await connection.execute(QUERIES.ended, effect_id, token, ago_seconds)


async def arm(connection: Connection, effect_ids: Sequence[UUID]) -> bool:
    """Have whoever undoes these effects look at them again, in this very transaction (P11, hazard 3). Whether anyone does."""
    return bool(await connection.fetchval(QUERIES.arm, effect_ids))


async def permissions(
    connection: Connection,
    environment: str,
    instances: Sequence[str],
    begun: Sequence[UUID],
    *,
    margin_seconds: float,
    tail_seconds: float,
    limit: int,
) -> list[Permission]:
    """What these instances were allowed to begin lately under flags that are killed, and have not reported."""
    rows = await connection.fetch(QUERIES.permissions, environment, instances, begun, margin_seconds, tail_seconds, limit)
    return [
        Permission(
            effect_id=row["id"],
            instance=row["instance_id"],
            token=row["token"],
            flag=row["flag"],
            epoch=row["epoch"],
            attributes=row["attributes"],
            begun=row["begun"],
        )
        for row in rows
    ]


async def kill_revisions(connection: Connection, rollback_ids: Collection[UUID]) -> dict[UUID, Revision]:
    """At which revision each rollback's kill stands."""
    if not rollback_ids:
        return {}
    rows = await connection.fetch(QUERIES.kill_revisions, sorted(rollback_ids))
    return {row["id"]: Revision(row["generation"], row["revision"]) for row in rows}

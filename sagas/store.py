"""The ledger's rows: what admission reads and writes, on a connection that the caller owns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from asyncpg import Connection
from msgspec import Struct

from runtime.queries import Queries
from runtime.sealing import Ring
from sagas import sealing
from sagas.core.admission import Fence, Scope, Sibling, Standing
from sagas.core.asks import Ask
from sagas.core.effects import Status
from sagas.core.keys import Recorded

QUERIES = Queries.load("sagas", "ledger")
EVIDENCE_MAX = 64

FlagName = tuple[str, str]
"""Environment and flag."""
KeyName = tuple[str, str, str]
"""Environment, kind and key; or environment, saga and saga instance."""


class NewEffect(Struct, frozen=True, kw_only=True, gc=False):
    """An effect about to be admitted: the first of its key, or the next generation."""

    id: UUID
    token: UUID
    ask: Ask
    is_off: bool
    epoch: int
    generation: int


class NextAttempt(Struct, frozen=True, kw_only=True):
    """The next attempt at an effect, or (same attempt) a new start window."""

    effect_id: UUID
    token: UUID
    attempt: int
    epoch: int
    instance: str
    lease_seconds: float
    variant: str | None
    revision: tuple[int, int]


async def prefer_indexes(connection: Connection) -> None:
    """Pin the plans of this session to indexes."""
    await connection.fetchrow(QUERIES.prefer_indexes)


def locking(lock_keys: Iterable[int]) -> str:
    """Statements that take the flags' locks, shared, in ascending order, until the transaction ends.

    Each is a statement of its own: what follows reads with a snapshot taken after every lock was granted (P8).
    """
    return "; ".join(f"SELECT pg_advisory_xact_lock_shared({int(key)})" for key in sorted(lock_keys))


async def fences(connection: Connection, flags: Iterable[FlagName]) -> dict[FlagName, Fence]:
    """The fences of these flags with their standing scopes; an unknown flag is missing."""
    wanted = list(flags)
    rows = await connection.fetch(QUERIES.fences, [name[0] for name in wanted], [name[1] for name in wanted])
    scopes: dict[FlagName, list[Scope]] = {}
    for row in rows:
        if row["scope_key"] and row["closed"]:
            scope = Scope(scope=row["scope"], epoch=row["epoch"], rollback_id=row["rollback_id"])
            scopes.setdefault((row["environment"], row["flag"]), []).append(scope)
    return {name: _fence(row, scopes.get(name, ())) for row in rows if not row["scope_key"] for name in (flag_of(row),)}


def flag_of(row: Any) -> FlagName:
    """The flag's name in a row."""
    return row["environment"], row["flag"]


def _fence(row: Any, scopes: Sequence[Scope]) -> Fence:
    return Fence(
        lock_key=row["lock_key"],
        off_variant=row["off_variant"],
        epoch=row["epoch"],
        closed=row["closed"],
        rollback_id=row["rollback_id"],
        opened=(row["opened_generation"], row["opened_revision"]),
        scopes=tuple(scopes),
    )


async def flags_of(connection: Connection, environment: str, limit: int) -> list[str]:
    """The flags of an environment, by name."""
    return [row["flag"] for row in await connection.fetch(QUERIES.flags_of, environment, limit)]


async def keys(connection: Connection, names: Iterable[KeyName]) -> dict[KeyName, Recorded]:
    """What is recorded of these keys; a key never used is missing."""
    rows = await connection.fetch(QUERIES.keys, *_columns(names))
    opened = [sealing.opened(connection.ring, row) for row in rows]
    return {(row["environment"], row["kind"], row["key"]): _recorded(row) for row in opened}


async def lock_keys(connection: Connection, names: Iterable[KeyName]) -> None:
    """Lock the rows of these keys and their effects, in one order."""
    await connection.fetch(QUERIES.lock_keys, *_columns(names))


def _columns(names: Iterable[KeyName]) -> tuple[list[str], list[str], list[str]]:
    wanted = list(names)
    return [name[0] for name in wanted], [name[1] for name in wanted], [name[2] for name in wanted]


def _recorded(row: Any) -> Recorded:
    return Recorded(
        effect_id=row["id"],
        generation=row["generation"],
        payload_hash=row["payload_hash"],
        flag=row["flag"],
        is_off=row["is_off"],
        epoch=row["epoch"],
        attributes=row["attributes"],
        status=Status(row["status"]),
        attempt=row["attempt"],
        token=row["token"],
        begun=row["begun"],
        tombstoned=row["tombstoned"],
        undone=row["undone"],
        result=row["result"],
        saga=(row["saga"], row["saga_instance"], row["step"]),
        undoing=(row["saga_version"], row["kind_version"], row["subject"]),
        revision=(row["revision_generation"], row["revision"]),
        admitted_at=row["admitted_at"],
        lease_left_ms=row["lease_left_ms"],
        start_left_ms=row["start_left_ms"],
        disposition=row["disposition"],
        is_gone=row["is_gone"],
    )


async def siblings(connection: Connection, instances: Iterable[KeyName]) -> dict[KeyName, list[Sibling]]:
    """What these saga instances have done, or may have done, off variants left out."""
    found: dict[KeyName, list[Sibling]] = {}
    for row in await connection.fetch(QUERIES.siblings, *_columns(instances)):
        sibling = Sibling(flag=row["flag"], epoch=row["epoch"], attributes=row["attributes"])
        found.setdefault((row["environment"], row["saga"], row["saga_instance"]), []).append(sibling)
    return found


async def rollbacks(connection: Connection, flags: Iterable[FlagName]) -> dict[FlagName, list[Standing]]:
    """The rollbacks that claim, or declined to undo, effects of these flags, and are not done with them."""
    wanted = list(flags)
    rows = await connection.fetch(QUERIES.rollbacks, [name[0] for name in wanted], [name[1] for name in wanted])
    found: dict[FlagName, list[Standing]] = {}
    for row in rows:
        since = row["since_revision"]
        standing = Standing(
            rollback_id=row["rollback_id"],
            scope=row["scope"],
            closes_epoch=row["closes_epoch"],
            since_at=row["since_at"],
            since_revision=None if since is None else (row["since_generation"] or 0, since),
            is_closed=row["is_closed"],
            state=row["state"],
            compensate=row["compensate"],
        )
        found.setdefault(flag_of(row), []).append(standing)
    return found


async def admit(
    connection: Connection, effects: Sequence[NewEffect], window_ms: int, *, follows_reports: bool = False
) -> set[UUID]:
    """Write new effects and their keys. Returns the ids written: who is missing lost a race for the key.

    `follows_reports`: in a transaction that records outcomes too; these effects come after what was completed in it (P14).
    """
    asks = [effect.ask for effect in effects]
    rows = await connection.fetch(
        QUERIES.admit,
        [effect.id for effect in effects],
        [ask.environment for ask in asks],
        [ask.kind for ask in asks],
        [ask.key for ask in asks],
        [ask.payload_hash for ask in asks],
        [effect.generation for effect in effects],
        [effect.generation == 1 for effect in effects],
        [ask.flag for ask in asks],
        [ask.variant for ask in asks],
        [effect.is_off for effect in effects],
        [ask.revision[0] for ask in asks],
        [ask.revision[1] for ask in asks],
        [effect.epoch for effect in effects],
        [ask.attributes_json for ask in asks],
        [ask.saga for ask in asks],
        [ask.saga_version for ask in asks],
        [ask.saga_instance for ask in asks],
        [ask.step for ask in asks],
        [ask.kind_version for ask in asks],
        [ask.subject for ask in asks],
        [_sealed(connection, effect.id, effect.ask) for effect in effects],
        [ask.instance for ask in asks],
        [effect.token for effect in effects],
        [ask.lease_seconds for ask in asks],
        float(window_ms),
        follows_reports,
    )
    return {row["id"] for row in rows}


def _sealed(connection: Connection, identity: UUID, ask: Ask) -> str | None:
    ring: Ring = connection.ring
    return ring.seal(ask.payload_json, sealing.effect_name(ask.environment, identity), beside=sealing.MONEY)


async def admit_again(
    connection: Connection, attempts: Sequence[NextAttempt], window_ms: int, *, follows_reports: bool = False
) -> set[UUID]:
    """Write next attempts and renewed windows. Returns the ids written. `follows_reports`: see `admit`."""
    rows = await connection.fetch(
        QUERIES.admit_again,
        [one.effect_id for one in attempts],
        [one.token for one in attempts],
        [one.attempt for one in attempts],
        [one.instance for one in attempts],
        [one.lease_seconds for one in attempts],
        float(window_ms),
        EVIDENCE_MAX,
        [one.variant for one in attempts],
        [one.revision[0] for one in attempts],
        [one.revision[1] for one in attempts],
        follows_reports,
        [one.epoch for one in attempts],
    )
    return {row["id"] for row in rows}


async def tombstone(connection: Connection, effect_ids: Sequence[UUID]) -> None:
    """Close these generations of their keys for ever."""
    await connection.execute(QUERIES.tombstone, effect_ids)

"""What the wing keeps in PostgreSQL: environments, flags, revisions, kills. One typed function per query.

Whatever is read as a state is read in one statement, so that no reader sees part of a change (P1).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from asyncpg import Record
from msgspec import Struct
from rescind import wire

from flagd.core.changes import HeldFlag, Plan
from runtime.postgres import Connection
from runtime.queries import Queries

_FLAGS = Queries.load("flagd", "flags")

_flag = msgspec.json.Decoder(wire.Flag)


class Environment(Struct, frozen=True, kw_only=True):
    """An isolated flag set and the revision it has reached."""

    name: str
    revision: wire.Revision
    bucketing: str
    created_at: datetime


class Head(Struct, frozen=True, kw_only=True):
    """An environment's row: its revision, and what its flagd document has beside the flags."""

    revision: wire.Revision
    told: wire.Revision
    """The newest revision of this generation that an instance says it has applied."""
    evaluators: dict[str, Any]
    metadata: dict[str, Any]
    bucketing: str
    is_recovering: bool = False
    """PostgreSQL came back older than what was seen, and nobody has said yet that it is put right (P2)."""


class StandingKill(Struct, frozen=True, kw_only=True):
    """A standing kill as people see it."""

    flag: str
    rollback_id: str
    off_variant: str
    closes_epoch: int
    revision: wire.Revision
    scope: dict[str, Any]
    reason: str
    actor: str
    killed_at: datetime

    def overlay(self) -> wire.Kill:
        """As it travels to SDKs."""
        return wire.Kill(
            rollback_id=self.rollback_id,
            off_variant=self.off_variant,
            closes_epoch=self.closes_epoch,
            revision=self.revision,
            scope=self.scope,
        )


class StoredFlag(Struct, frozen=True, kw_only=True):
    """A flag's row."""

    flag: wire.Flag
    epoch: int
    changed: wire.Revision
    created_at: datetime
    archived_at: datetime | None


async def list_environments(connection: Connection) -> list[Environment]:
    """Every environment, by name."""
    rows = await connection.fetch(_FLAGS.list_environments)
    return [
        Environment(
            name=row["name"],
            revision=wire.Revision(row["generation"], row["revision"]),
            bucketing=row["bucketing"],
            created_at=row["created_at"],
        )
        for row in rows
    ]


async def create_environment(connection: Connection, name: str) -> bool:
    """Whether it is new."""
    return await connection.fetchval(_FLAGS.create_environment, name) is not None


async def take_turn(connection: Connection, environment: str) -> None:
    """Wait until no one else edits the environment, until this transaction ends; kills and lifts do not wait for it."""
    await connection.execute(_FLAGS.take_turn, environment)


async def lock_environment(connection: Connection, name: str) -> Head | None:
    """Take the environment's row, which every revision passes one at a time; None if there is none of that name."""
    return _head(await connection.fetchrow(_FLAGS.lock_environment, name))


async def held_flags(connection: Connection, environment: str, keys: Sequence[str]) -> dict[str, HeldFlag]:
    """The flags of these keys that exist, archived ones too, with their standing kills."""
    rows = await connection.fetch(_FLAGS.held_flags, environment, keys)
    kills: dict[str, list[wire.Kill]] = {}
    for kill in await standing_kills(connection, environment, keys):
        kills.setdefault(kill.flag, []).append(kill.overlay())
    return await asyncio.to_thread(lambda: {row["key"]: _held(row, kills.get(row["key"], [])) for row in rows})


async def standing_kills(connection: Connection, environment: str, keys: Sequence[str] | None = None) -> list[StandingKill]:
    """The kills that stand, of these flags or of all, oldest first."""
    rows = await connection.fetch(_FLAGS.standing_kills, environment, keys)
    return [
        StandingKill(revision=wire.Revision(row.pop("generation"), row.pop("revision")), **row)
        for row in (dict(record) for record in rows)
    ]


async def advance(connection: Connection, environment: str) -> wire.Revision:
    """The environment's next revision, taken: gap-free, since it is given back if the transaction fails (P1)."""
    row = await connection.fetchrow(_FLAGS.advance, environment)
    assert row is not None, "the environment's row is locked by this transaction"
    return wire.Revision(row["generation"], row["revision"])


async def write_plan(connection: Connection, environment: str, revision: wire.Revision, plan: Plan) -> None:
    """Write the flags of a plan at this revision, and the environment's generation of bucketing if it sets one."""
    if plan.puts:
        await connection.execute(_FLAGS.put_flags, environment, revision.generation, revision.n, plan.puts)
    if plan.archives:
        await connection.execute(_FLAGS.archive_flags, environment, revision.generation, revision.n, plan.archives)
    if plan.bucketing is not None:
        await connection.execute(_FLAGS.put_bucketing, environment, plan.bucketing)


async def put_document(connection: Connection, environment: str, evaluators: dict[str, Any], metadata: dict[str, Any]) -> None:
    """Write what a flagd document has beside its flags."""
    await connection.execute(_FLAGS.put_document, environment, evaluators, metadata)


async def record_revision(
    connection: Connection,
    environment: str,
    revision: wire.Revision,
    *,
    actor: str,
    reason: str | None,
    operations: Sequence[dict[str, Any]],
    keys: Sequence[str],
) -> None:
    """Write the revision's own row, and ring the bell that sounds with the commit."""
    await connection.execute(
        _FLAGS.record_revision, environment, revision.generation, revision.n, actor, reason, operations, keys
    )
    await connection.execute(_FLAGS.notify, environment, str(revision.generation), str(revision.n))


async def heads(connection: Connection) -> dict[str, wire.Revision]:
    """The revision that each environment has reached."""
    return {row["name"]: wire.Revision(row["generation"], row["revision"]) for row in await connection.fetch(_FLAGS.heads)}


async def recovering(connection: Connection) -> set[str]:
    """The environments that are in recovery."""
    return {row["name"] for row in await connection.fetch(_FLAGS.recovering)}


async def list_flags(connection: Connection, environment: str, after: str, limit: int) -> list[StoredFlag]:
    """Flags in service, by key."""
    return [_stored(row) for row in await connection.fetch(_FLAGS.list_flags, environment, after, limit)]


async def get_flag(connection: Connection, environment: str, key: str) -> StoredFlag | None:
    """A flag, archived or not."""
    row = await connection.fetchrow(_FLAGS.get_flag, environment, key)
    return None if row is None else _stored(row)


async def all_flags(connection: Connection, environment: str) -> list[wire.Flag]:
    """Every flag in service as it was written, by key."""
    return [_flag.decode(row["document"]) for row in await connection.fetch(_FLAGS.all_flags, environment)]


async def flag_keys(connection: Connection, environment: str) -> list[str]:
    """Keys in service, for suggestions."""
    return [row["key"] for row in await connection.fetch(_FLAGS.flag_keys, environment)]


async def environment_document(connection: Connection, environment: str) -> Head | None:
    """The environment's row as it is, without taking it; None if there is none of that name."""
    return _head(await connection.fetchrow(_FLAGS.environment_document, environment))


def _head(row: Record | None) -> Head | None:
    if row is None:
        return None
    return Head(
        revision=wire.Revision(row["generation"], row["revision"]),
        told=wire.Revision(row["generation"], row["told_revision"]),
        evaluators=row["evaluators"],
        metadata=row["metadata"],
        bucketing=row["bucketing"],
        is_recovering=row["is_recovering"],
    )


def _held(row: Record, kills: Sequence[wire.Kill]) -> HeldFlag:
    return HeldFlag(
        flag=_flag.decode(row["document"]),
        epoch=row["epoch"],
        changed=wire.Revision(row["changed_generation"], row["changed_revision"]),
        is_archived=row["is_archived"],
        kills=kills,
    )


def _stored(row: Record) -> StoredFlag:
    return StoredFlag(
        flag=_flag.decode(row["document"]),
        epoch=row["epoch"],
        changed=wire.Revision(row["changed_generation"], row["changed_revision"]),
        created_at=row["created_at"],
        archived_at=row["archived_at"],
    )

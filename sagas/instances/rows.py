"""The rows of instances: one typed function per query of `sql/instances.sql` that more than one place needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec
from asyncpg import Record
from msgspec import Struct

from runtime.postgres import Connection
from runtime.queries import Queries
from sagas.store import FlagName
from sagas.store_reports import Place

QUERIES = Queries.load("sagas", "instances")


class Step(Struct, frozen=True, kw_only=True):
    """Where the effect of a step belongs."""

    uid: UUID | None
    saga: str | None
    kind: str
    place: Place
    locks: dict[FlagName, int]
    stripes: frozenset[int]
    """of the line in which its instance stands"""


async def steps(connection: Connection, effect_ids: Sequence[UUID]) -> dict[UUID, Step]:
    """Whose steps these effects are, and which locks a report of them takes; an unknown effect is missing."""
    locks: dict[UUID, dict[FlagName, int]] = {}
    rows: dict[UUID, Record] = {}
    for row in await connection.fetch(QUERIES.places, effect_ids):
        identity, environment = row["id"], row["environment"]
        rows[identity] = row
        locks.setdefault(identity, {})[environment, row["flag"]] = row["lock_key"]
        if row["sibling_flag"] is not None:
            locks[identity][environment, row["sibling_flag"]] = row["sibling_lock_key"]
    return {
        identity: Step(
            uid=row["uid"],
            saga=row["saga"],
            kind=row["kind"],
            place=Place(
                environment=row["environment"],
                flags=frozenset(locks[identity]),
                lock_keys=frozenset(locks[identity].values()),
            ),
            locks=locks[identity],
            stripes=_stripes(row),
        )
        for identity, row in rows.items()
    }


class Locks(Struct, kw_only=True):
    """What a turn of an instance locks: flags with their lock keys, and the line in which it stands."""

    flags: dict[FlagName, int] = {}
    stripes: frozenset[int] = frozenset()
    stopped: Mapping[str, Any] | None = None
    """its row where a kill had stopped it: it may come to stand in its line again"""


async def locks(connection: Connection, uids: Iterable[UUID]) -> dict[UUID, Locks]:
    """By instance; an unknown one is missing."""
    found: dict[UUID, Locks] = {}
    for row in await connection.fetch(QUERIES.flags, list(uids)):
        one = found.setdefault(row["uid"], Locks())
        one.flags[row["environment"], row["flag"]] = row["lock_key"]
        one.stripes |= _stripes(row)
        one.stopped = row if row["state"] == "killed" else one.stopped
    return found


def _stripes(row: Record) -> frozenset[int]:
    return frozenset() if row["stripe"] is None else frozenset((row["stripe"],))


def text(value: Any) -> str:
    """JSON text for a jsonb column."""
    return msgspec.json.encode(value).decode()


def value(json: str) -> Any:
    """What a JSON text says."""
    return msgspec.json.decode(json)


def columns(rows: Sequence[Sequence[Any]], count: int) -> list[list[Any]]:
    """Rows turned into `count` columns, for `unnest`."""
    return [[row[index] for row in rows] for index in range(count)]

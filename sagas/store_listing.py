"""The ledger as it is shown: effects by what they are asked for, in pages."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from asyncpg import Connection
from msgspec import Struct

from sagas import sealing
from sagas.store import QUERIES


class Filter(Struct, frozen=True, kw_only=True):
    """What `GET /effects` is narrowed to; null is no limit."""

    flag: str | None = None
    saga: str | None = None
    status: str | None = None
    epoch: int | None = None
    rollback: UUID | None = None
    saga_instance: str | None = None
    kind: str | None = None
    key: str | None = None


async def listing(
    connection: Connection, environment: str, wanted: Filter, *, after: UUID | None, limit: int
) -> list[dict[str, Any]]:
    """Effects in the order of their ids, from after `after`."""
    rows = await connection.fetch(
        QUERIES.listing,
        environment,
        after,
        wanted.flag,
        wanted.saga,
        wanted.status,
        wanted.epoch,
        wanted.rollback,
        wanted.saga_instance,
        wanted.kind,
        wanted.key,
        limit,
    )
    return [msgspec.to_builtins(sealing.opened(connection.ring, row)) for row in rows]

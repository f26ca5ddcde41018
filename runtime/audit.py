"""The audit log: append-only, and written in the transaction of the act it tells of (P20)."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from runtime.postgres import Connection
from runtime.queries import Queries
from runtime.telemetry import trace_id

QUERIES = Queries.load("runtime", "audit")
LISTING_MAX = 1000


class Entry(Struct, frozen=True, kw_only=True):
    """One act: who did what to which object, when and why."""

    id: uuid.UUID
    at: datetime
    actor: str
    action: str
    environment: str | None
    object: str
    reason: str | None
    detail: dict[str, Any]
    trace_id: str | None


async def append(
    connection: Connection,
    *,
    actor: str,
    action: str,
    environment: str | None,
    object: str,  # noqa: A002 - the column's name
    reason: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> uuid.UUID:
    """Write one entry on the caller's transaction and return its id. `action` is a word of ours: "flag.kill"."""
    identity: uuid.UUID = await connection.fetchval(
        QUERIES.append, actor, action, environment, object, reason, dict(detail or {}), trace_id()
    )
    return identity


async def newest(
    connection: Connection,
    *,
    environment: str | None = None,
    object: str | None = None,  # noqa: A002 - the column's name
    before: uuid.UUID | None = None,
    limit: int = 100,
) -> list[Entry]:
    """Return entries, newest first, older than the entry `before`; at most `LISTING_MAX`."""
    rows = await connection.fetch(QUERIES.newest, environment, object, before, min(limit, LISTING_MAX))
    return [Entry(**dict(row)) for row in rows]

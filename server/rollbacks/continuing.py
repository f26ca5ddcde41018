"""Instances that a kill let go on by name, and the steps that they have begun since (P8, docs/decisions/0029)."""

from __future__ import annotations

from uuid import UUID

import asyncpg
from msgspec import Struct

from runtime.queries import Queries

QUERIES = Queries.load("server.rollbacks", "record")


class GoingOn(Struct, frozen=True, kw_only=True):
    """So many instances of a version that stand like this. `reason`: of those that wait for a person, or are paused."""

    saga: str
    version: str
    state: str
    reason: str | None
    instances: int


class Continuing(Struct, frozen=True, kw_only=True):
    """What a rollback waits for. `continued`: per kind, steps begun under its grants since the kill; they are in its set."""

    instances: list[GoingOn]
    continued: dict[str, int]


async def load(connection: asyncpg.Connection, rollback_id: UUID) -> Continuing | None:
    """Null where nothing goes on, and nothing did."""
    continued = await connection.fetch(QUERIES.continued, rollback_id)
    rows = await connection.fetch(QUERIES.continuing, rollback_id)
    if not continued and not rows:
        return None
    return Continuing(
        instances=[
            GoingOn(saga=row["saga"], version=row["version"], state=row["state"], reason=row["reason"], instances=row["number"])
            for row in rows
        ],
        continued={row["kind"]: row["number"] for row in continued},
    )

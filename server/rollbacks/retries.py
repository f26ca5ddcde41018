"""Compensations that failed and are tried again by themselves: what went wrong last, and when the next try is.

A rollback that only says `pending` looks like one that is busy; this says that it is not getting anywhere, and why.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
from msgspec import Struct

from runtime.queries import Queries

QUERIES = Queries.load("server.rollbacks", "retries")
ERROR_MAX = 500


class Retry(Struct, frozen=True, kw_only=True):
    """Of one kind: how many compensations failed and are to be tried again, and the one that was tried most often."""

    kind: str
    number: int
    attempt: int
    """Of the one tried most often: how many attempts of it have ended since a person last said to try again."""
    error: str
    next_try_at: datetime | None
    """The soonest; null while every one of them is being tried right now."""


async def load(connection: asyncpg.Connection, rollback_id: UUID) -> list[Retry]:
    """One line per kind that has any."""
    rows = await connection.fetch(QUERIES.retries, rollback_id)
    return [
        Retry(
            kind=row["kind"],
            number=row["number"],
            attempt=row["attempt"],
            error=words(row["detail"], row["outcome"]),
            next_try_at=row["next_try_at"],
        )
        for row in rows
    ]


def words(detail: Mapping[str, Any] | None, outcome: str | None) -> str:
    """What an attempt was told, in one text.

    >>> words({"error": "connection refused"}, "not_yet"), words({}, "interrupted"), words(None, None)
    ('connection refused', 'interrupted', 'unknown')
    """
    known = detail or {}
    said = known.get("error") or known.get("reason") or (outcome or "unknown").replace("_", " ")
    return str(said)[:ERROR_MAX]

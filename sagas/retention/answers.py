"""What is kept beside history and goes later: what keys and ids of instances answer, and bulk operations that have ended."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from runtime.postgres import Connection
from sagas.retention.history import QUERIES, Page, page_of


async def old_keys(connection: Connection, after: UUID, days: int, limit: int) -> Page:
    """The next keys whose history has gone, and which of them are over."""
    found = await connection.fetch(QUERIES.old_remains, after, days, limit)
    return page_of([(row["id"], row["is_over"]) for row in found], limit)


async def drop_keys(connection: Connection, asked: Sequence[UUID]) -> int:
    """Free these keys: whoever comes with one now is admitted."""
    await connection.execute(QUERIES.drop_keys, asked)
    return len(asked)


async def old_instance_ids(connection: Connection, after: UUID, days: int, limit: int) -> Page:
    """The next ids of instances that have gone, and which of them are over."""
    found = await connection.fetch(QUERIES.old_instance_remains, after, days, limit)
    return page_of([(row["uid"], row["is_over"]) for row in found], limit)


async def drop_instance_ids(connection: Connection, asked: Sequence[UUID]) -> int:
    """Free these ids."""
    await connection.execute(QUERIES.drop_instance_remains, asked)
    return len(asked)


async def old_operations(connection: Connection, after: UUID, days: int, limit: int) -> Page:
    """The next bulk operations, and which of them ended long enough ago."""
    found = await connection.fetch(QUERIES.old_operations, after, days, limit)
    return page_of([(row["id"], row["is_over"]) for row in found], limit)


async def drop_operations(connection: Connection, asked: Sequence[UUID]) -> int:
    """Drop these operations; the audit log keeps that they were."""
    await connection.execute(QUERIES.drop_operations, asked)
    return len(asked)

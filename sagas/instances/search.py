"""Finding instances among any number of them: by an index that names candidates, the youngest first, and a look at each.

What an instance is never changes and has indexes; how it stands changes all the time and has none. Instances off the straight
way are named in a table of their own (`sagas.strays`), those on it by what they wait for. A page looks at no more than
`LOOKED_MAX` instances, so that none takes long: it may hold fewer than were asked for, and `next` says where to go on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from asyncpg import Record
from msgspec import Meta, Struct

from runtime.postgres import Connection
from runtime.problem import Problem
from runtime.queries import Queries

QUERIES = Queries.load("sagas", "search")
LOOKED_MAX = 50_000
CHUNK_MAX = 5_000
ATTRIBUTES_MAX = 16
SEARCH_MS = 5_000
CLOCKS_DIFFER_MS = 3_600_000
"""Ids carry the clock of the server that made them, `started_at` PostgreSQL's; the latter decides."""
OFF_WAY = ("waiting", "undoing", "killed", "undone")
LOWEST, HIGHEST = UUID(int=0), UUID(int=2**128 - 1)
State = Literal["running", "undoing", "waiting", "killed", "done", "undone"]
Text = Annotated[str, Meta(min_length=1, max_length=512)]

Source = Callable[[UUID, int], Awaitable[list[UUID]]]


class Filter(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which instances; null is any. `cause`: why it waits or turned back; `error`: the type of its step's error."""

    version: Text | None = None
    status: State | None = None
    paused: bool | None = None
    flag: Text | None = None
    subject: Text | None = None
    attributes: Annotated[dict[str, str | int | float | bool], Meta(max_length=ATTRIBUTES_MAX)] | None = None
    cause: Text | None = None
    error: Text | None = None
    started_after: Annotated[datetime, Meta(tz=True)] | None = None
    started_before: Annotated[datetime, Meta(tz=True)] | None = None


class Page(Struct, frozen=True, kw_only=True):
    """Instances, the youngest first. `next`: below which to go on, or null; `looked`: how many were looked at."""

    rows: list[Record]
    next: UUID | None
    looked: int = 0


async def page(
    connection: Connection,
    environment: str,
    saga: str | None,
    wanted: Filter,
    *,
    below: UUID | None,
    limit: int,
    looked_max: int = LOOKED_MAX,
) -> Page:
    """Up to `limit` instances of a saga, or of all, below the instance `below`. In a transaction, whose time it limits."""
    await connection.fetch(QUERIES.custom_plans, str(SEARCH_MS))
    source = await _source(connection, environment, saga, wanted)
    found: list[Record] = []
    cursor, looked, size = _upper(below, wanted), 0, limit + 1
    while looked < looked_max:
        uids = await source(cursor, size)
        looked += len(uids)
        if uids:
            cursor = uids[-1]
            found += await _matching(connection, environment, saga, wanted, uids)
        if len(found) > limit:
            return Page(rows=found[:limit], next=found[limit - 1]["uid"], looked=looked)
        if len(uids) < size:
            return Page(rows=found, next=None, looked=looked)
        size = min(size * 4, CHUNK_MAX)
    return Page(rows=found, next=cursor, looked=looked)


async def _matching(
    connection: Connection, environment: str, saga: str | None, wanted: Filter, uids: list[UUID]
) -> list[Record]:
    found: list[Record] = await connection.fetch(
        QUERIES.matching, uids, environment, saga, wanted.version, wanted.status, wanted.paused, wanted.flag, wanted.subject,
        wanted.attributes, wanted.cause, wanted.error, wanted.started_after, wanted.started_before,
    )  # fmt: skip
    return found


async def _source(connection: Connection, environment: str, saga: str | None, wanted: Filter) -> Source:
    """Where the candidates come from: the narrowest that holds all that are meant."""
    query, arguments = _narrowest(wanted)
    if query == QUERIES.by_version:
        pairs = await connection.fetch(QUERIES.versions, environment, saga, wanted.version, wanted.flag)
        arguments = ([row["saga"] for row in pairs], [row["version"] for row in pairs])
    lower = _lower(wanted)

    async def source(below: UUID, size: int) -> list[UUID]:
        rows = await connection.fetch(query, environment, *arguments, below, lower, size)
        return [row["uid"] for row in rows]

    return source


def _narrowest(wanted: Filter) -> tuple[str, tuple[Any, ...]]:
    if wanted.subject is not None:
        return QUERIES.by_subject, (wanted.subject,)
    if wanted.paused:
        return QUERIES.strays, (["paused"],)
    if wanted.cause == "in_line":
        return QUERIES.strays, (["in_line"],)
    if wanted.status in OFF_WAY:
        return QUERIES.strays, ([wanted.status],)
    if wanted.cause is not None or wanted.error is not None:
        return QUERIES.strays, (list(OFF_WAY),)
    if wanted.attributes:
        return QUERIES.by_attributes, (wanted.attributes,)
    return (QUERIES.open, ()) if wanted.status == "running" else (QUERIES.by_version, ())


def _upper(below: UUID | None, wanted: Filter) -> UUID:
    """The lower of the two: where the last page ended, or what was started too late."""
    latest = HIGHEST if wanted.started_before is None else uuid_at(wanted.started_before, CLOCKS_DIFFER_MS)
    return latest if below is None else min(below, latest)


def _lower(wanted: Filter) -> UUID:
    return LOWEST if wanted.started_after is None else uuid_at(wanted.started_after, -CLOCKS_DIFFER_MS)


def uuid_at(at: datetime, plus_ms: int) -> UUID:
    """The lowest id of that millisecond (RFC 9562, section 5.7)."""
    milliseconds = int(at.timestamp() * 1000) + plus_ms
    return UUID(int=min(max(milliseconds, 0), 2**48 - 1) << 80)


def too_broad() -> Problem:
    """A search that PostgreSQL cut off."""
    detail = f"The search took longer than {SEARCH_MS // 1000} s: name a saga, a status, or a time."
    return Problem(422, "too_broad", "Too broad", detail)

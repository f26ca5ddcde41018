"""Releases in PostgreSQL. One typed function per query."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from asyncpg import Record
from msgspec import Struct

from flagd.core.releases import Release
from runtime.postgres import Connection
from runtime.queries import Queries

_RELEASES = Queries.load("flagd", "releases")


class StoredRelease(Struct, frozen=True, kw_only=True):
    """A release's row. `findings` are the roof's, as it judged its migrations when it was put."""

    name: str
    release: Release
    findings: list[dict[str, Any]]
    deployed_at: datetime
    created_at: datetime
    created_by: str
    updated_at: datetime
    updated_by: str
    reason: str | None


async def get(connection: Connection, environment: str, name: str) -> StoredRelease | None:
    """One of them."""
    return _stored(await connection.fetchrow(_RELEASES.get_release, environment, name))


async def take(connection: Connection, environment: str, name: str) -> StoredRelease | None:
    """The same, held until the transaction ends."""
    return _stored(await connection.fetchrow(_RELEASES.take_release, environment, name))


async def put(
    connection: Connection,
    environment: str,
    name: str,
    release: Release,
    findings: Sequence[dict[str, Any]],
    *,
    actor: str,
    reason: str | None,
) -> StoredRelease:
    """Write it, over what stands there."""
    found = _stored(
        await connection.fetchrow(
            _RELEASES.put_release, environment, name, release, list(findings), sorted(release.services), release.flags,
            release.deployed_at, actor, reason,
        )
    )  # fmt: skip
    assert found is not None, "it was written a moment ago"
    return found


async def listing(
    connection: Connection, environment: str, *, service: str | None, flag: str | None, after: str | None, limit: int
) -> list[StoredRelease]:
    """The last deployed first."""
    rows = await connection.fetch(_RELEASES.list_releases, environment, service, flag, after, limit)
    return [one for row in rows if (one := _stored(row)) is not None]


async def last_of_service(connection: Connection, environment: str, service: str) -> StoredRelease | None:
    """The last deployed one that names the service."""
    return _stored(await connection.fetchrow(_RELEASES.last_of_service, environment, service))


async def last_of_flag(connection: Connection, environment: str, flag: str) -> StoredRelease | None:
    """The last deployed one that names the flag."""
    return _stored(await connection.fetchrow(_RELEASES.last_of_flag, environment, flag))


async def names(connection: Connection, environment: str) -> list[str]:
    """For suggestions."""
    return [row["name"] for row in await connection.fetch(_RELEASES.release_names, environment)]


async def unknown_flags(connection: Connection, environment: str, keys: Sequence[str]) -> list[str]:
    """Those of these flags that there are not."""
    return [row["key"] for row in await connection.fetch(_RELEASES.unknown_flags, environment, list(keys))]


async def known_services(connection: Connection, environment: str) -> list[str]:
    """Every service that anything names."""
    return [row["name"] for row in await connection.fetch(_RELEASES.known_services, environment)]


async def flags_of_service(connection: Connection, environment: str, service: str, limit: int) -> list[str]:
    """The flags in service that name it."""
    return [row["key"] for row in await connection.fetch(_RELEASES.flags_of_service, environment, service, limit)]


async def versions_of_service(connection: Connection, environment: str, service: str, live_seconds: float) -> dict[str, int]:
    """How many instances of it run now, by the version that they told."""
    rows = await connection.fetch(_RELEASES.versions_of_service, environment, service, live_seconds)
    return {row["version"]: row["number"] for row in rows}


def _stored(row: Record | None) -> StoredRelease | None:
    if row is None:
        return None
    held = dict(row)
    for name in ("environment", "services", "flags"):
        del held[name]
    return StoredRelease(release=msgspec.convert(held.pop("document"), Release), **held)

"""Releases, kept beside the flags that they name: a pipeline puts them over and over, and each change is on record (P20)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from flagd import store, store_releases, writing
from flagd.core.releases import Release
from flagd.errors import unknown_flags, unknown_release
from flagd.store_releases import StoredRelease
from runtime import audit
from runtime.postgres import Connection, Postgres


class Put(NamedTuple):
    """What became of a put: it was new, or changed something, or neither."""

    stored: StoredRelease
    is_new: bool
    is_changed: bool


class Releases:
    """Keeps releases."""

    def __init__(self, pg: Postgres) -> None:
        self._pg = pg

    async def expect_flags(self, environment: str, release: Release) -> None:
        """Raise `Problem` 404 with every flag that there is not, or for an unknown environment."""
        async with self._pg.connection() as connection:
            await writing.expect_environment(connection, environment)
            missing = await store_releases.unknown_flags(connection, environment, release.flags)
            if missing:
                pointers = [f"/release/flags/{release.flags.index(key)}" for key in missing]
                raise unknown_flags(missing, pointers, await store.flag_keys(connection, environment))

    async def put(
        self,
        environment: str,
        name: str,
        release: Release,
        findings: Sequence[dict[str, Any]],
        *,
        actor: str,
        reason: str | None,
    ) -> Put:
        """Write it; the same once more changes nothing, and is not audited again."""
        async with self._pg.transaction() as connection:
            held = await store_releases.take(connection, environment, name)
            if held is not None and (held.release, held.findings) == (release, list(findings)):
                return Put(held, is_new=False, is_changed=False)
            stored = await store_releases.put(connection, environment, name, release, findings, actor=actor, reason=reason)
            await self._note(connection, environment, stored, held)
        return Put(stored, is_new=held is None, is_changed=True)

    async def get(self, environment: str, name: str) -> StoredRelease:
        """One of them. Raises `Problem` 404 with a suggestion."""
        async with self._pg.connection() as connection:
            return await found_in(connection, environment, name)

    async def listing(
        self, environment: str, *, service: str | None = None, flag: str | None = None, after: str | None = None, limit: int
    ) -> list[StoredRelease]:
        """The last deployed first, `after` excluded."""
        async with self._pg.connection() as connection:
            await writing.expect_environment(connection, environment)
            return await store_releases.listing(connection, environment, service=service, flag=flag, after=after, limit=limit)

    async def _note(self, connection: Connection, environment: str, stored: StoredRelease, held: StoredRelease | None) -> None:
        release = stored.release
        await audit.append(
            connection, actor=stored.updated_by, action="release.put", environment=environment, object=stored.name,
            reason=stored.reason,
            detail={
                "digest": digest_of(release), "before": None if held is None else digest_of(held.release), "tag": release.tag,
                "services": sorted(release.services), "flags": release.flags,
                "migrations": None if release.migrations is None else len(release.migrations),
            },
        )  # fmt: skip


async def found_in(connection: Connection, environment: str, name: str) -> StoredRelease:
    """The release. Raises `Problem` 404 with a suggestion, or for an unknown environment."""
    stored = await store_releases.get(connection, environment, name)
    if stored is None:
        await writing.expect_environment(connection, environment)
        raise unknown_release(name, await store_releases.names(connection, environment))
    return stored


def digest_of(release: Release) -> str:
    """Of the document, the same for the same content."""
    return hashlib.sha256(msgspec.json.encode(release, order="deterministic")).hexdigest()

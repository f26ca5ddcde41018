"""A release as it is held, with the flags that it names, judged."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
from msgspec import Struct

from flagd import store, store_releases
from flagd.core.releases import Release
from flagd.store_releases import StoredRelease
from runtime.postgres import Connection
from server.rollbacks.reversibility import Answer, FlagFacts, Reversibility, Verdict, judge
from server.rollbacks.statements.classes import Finding


class ReleaseSummary(Struct, frozen=True, kw_only=True):
    """A release in short: what a kill's preview says of it."""

    name: str
    tag: str | None
    deployed_at: datetime
    services: list[str]
    flags: list[str]
    migrations: int | None
    """How many; null where nobody has said."""
    reversibility: Reversibility
    reasons: list[str]
    destructive_migration: Answer


async def flag_facts(connection: Connection, environment: str, keys: Sequence[str]) -> list[FlagFacts]:
    """What is asked of these flags, in their order; those that there are not are left out."""
    held = await store.held_flags(connection, environment, keys)
    return [
        FlagFacts(
            key=key, kind=held[key].flag.kind, reversibility=held[key].flag.reversibility, archived=held[key].is_archived,
            killed_by=next((kill.rollback_id for kill in held[key].kills if not kill.scope), None),
        )
        for key in keys if key in held
    ]  # fmt: skip


def findings_of(stored: StoredRelease) -> list[Finding]:
    """As they were written when the release was put."""
    return msgspec.convert(stored.findings, list[Finding])


async def verdict_of(connection: Connection, environment: str, stored: StoredRelease) -> Verdict:
    """The reversibility of a release that is held."""
    facts = await flag_facts(connection, environment, stored.release.flags)
    return judge(stored.release, findings_of(stored), facts)


def summary_of(stored: StoredRelease, verdict: Verdict) -> ReleaseSummary:
    """In short."""
    release: Release = stored.release
    return ReleaseSummary(
        name=stored.name,
        tag=release.tag,
        deployed_at=stored.deployed_at,
        services=sorted(release.services),
        flags=release.flags,
        migrations=None if release.migrations is None else len(release.migrations),
        reversibility=verdict.reversibility,
        reasons=verdict.reasons,
        destructive_migration=verdict.destructive_migration,
    )


async def summary_of_flag(connection: Connection, environment: str, flag: str) -> ReleaseSummary | None:
    """Of the last deployed release that names the flag."""
    found = await store_releases.last_of_flag(connection, environment, flag)
    return None if found is None else summary_of(found, await verdict_of(connection, environment, found))

"""Releases over both wings: put and judged, killed as one, and the way out of one (P1, P19, P20)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from flagd import store_releases, writing
from flagd.core.releases import Release
from flagd.errors import unknown_service
from flagd.releases import Put, Releases, found_in
from flagd.store_releases import StoredRelease
from runtime import audit
from runtime.postgres import Connection, Postgres
from runtime.problem import Problem
from server.rollbacks.classing import Classing, given
from server.rollbacks.judged import ReleaseSummary, flag_facts, summary_of, verdict_of
from server.rollbacks.ladder import Rung, advice, ladder, recommended
from server.rollbacks.preview import Preview, Previews
from server.rollbacks.record import LIVE_SECONDS
from server.rollbacks.requests import KillRequest, Since
from server.rollbacks.reversibility import Answer, Verdict, judge
from server.rollbacks.service import KillAnswer, Kills, Within
from server.rollbacks.statements.classes import Finding, Migration

PREVIEWED_MAX = 16
PREVIEWED_AT_ONCE_MAX = 4
SERVICE_FLAGS_MAX = 20


class ReleaseView(Struct, frozen=True, kw_only=True):
    """A release as it was put, and what is made of it."""

    stored: StoredRelease
    verdict: Verdict

    @property
    def summary(self) -> ReleaseSummary:
        """In short."""
        return summary_of(self.stored, self.verdict)


class ReleasePreview(Struct, frozen=True, kw_only=True):
    """`GET /releases/{name}/kill-preview`: the release, and a preview of each of its flags."""

    release: ReleaseSummary
    flags: list[Preview]
    unknown: list[str]


class Recovery(Struct, frozen=True, kw_only=True):
    """`GET /services/{service}/recovery`: the first question's answer, and the ladder."""

    service: str
    environment: str
    release: ReleaseSummary | None
    """The last deployed one that names the service, or the one that was asked for; null where none does."""
    destructive_migration: Answer
    statements: list[Finding]
    advice: str
    recommended: str | None
    ladder: list[Rung]
    running: dict[str, int]
    """Live instances by the version that they told, "" where none."""
    unknown: list[str]


class ReleaseDesk:
    """Everything that is asked of releases."""

    def __init__(self, pg: Postgres, releases: Releases, classing: Classing, kills: Kills, previews: Previews) -> None:
        self._pg = pg
        self._releases = releases
        self._classing = classing
        self._kills = kills
        self._previews = previews

    async def put(
        self, environment: str, name: str, release: Release, *, actor: str, reason: str | None
    ) -> tuple[ReleaseView, Put]:
        """Judge its migrations and keep it. Raises `Problem` 404 for flags that there are not."""
        await self._releases.expect_flags(environment, release)
        findings = [msgspec.to_builtins(one) for one in await self._judged(release)]
        done = await self._releases.put(environment, name, release, findings, actor=actor, reason=reason)
        return await self._view(environment, done.stored), done

    async def get(self, environment: str, name: str) -> ReleaseView:
        """One of them. Raises `Problem` 404 with a suggestion."""
        return await self._view(environment, await self._releases.get(environment, name))

    async def listing(
        self, environment: str, *, service: str | None, flag: str | None, after: str | None, limit: int
    ) -> list[ReleaseSummary]:
        """The last deployed first."""
        found = await self._releases.listing(environment, service=service, flag=flag, after=after, limit=limit)
        async with self._pg.connection() as connection:
            return [summary_of(one, await verdict_of(connection, environment, one)) for one in found]

    async def flags(self, environment: str, name: str) -> list[str]:
        """What a kill of the release kills. Raises `Problem` 404, or 409 where that is nothing."""
        async with self._pg.urgent() as connection:
            return flags_to_kill(name, (await found_in(connection, environment, name)).release)

    async def kill(self, environment: str, name: str, flags: list[str], request: KillRequest, actor: str) -> KillAnswer:
        """All of them in one revision and one rollback, by the way of every kill."""
        return await self._kills.kill(environment, flags, request, actor, note_of(environment, name, flags, request, actor))

    async def preview(self, environment: str, name: str, *, scope: dict[str, Any], since: Since) -> ReleasePreview:
        """What a kill of the release would stop and undo, flag by flag."""
        view = await self.get(environment, name)
        flags, turns = view.stored.release.flags, asyncio.Semaphore(PREVIEWED_AT_ONCE_MAX)

        async def one(key: str) -> Preview:
            async with turns:
                return await self._previews.preview(environment, key, scope=scope, since=since)

        found = await asyncio.gather(*map(one, flags[:PREVIEWED_MAX]))
        left = flags[PREVIEWED_MAX:]
        unknown = [f"what stands under {len(left)} flags more: {', '.join(left)}"] if left else []
        return ReleasePreview(release=view.summary, flags=list(found), unknown=unknown)

    async def recovery(self, environment: str, service: str, name: str | None) -> Recovery:
        """The way out for a service, by its last release or the one named. Raises `Problem` 404."""
        async with self._pg.connection() as connection:
            stored = await self._release_of(connection, environment, service, name)
            running = await store_releases.versions_of_service(connection, environment, service, LIVE_SECONDS)
            release = Release() if stored is None else stored.release
            keys = release.flags
            if stored is None:
                keys = await store_releases.flags_of_service(connection, environment, service, SERVICE_FLAGS_MAX)
            facts = await flag_facts(connection, environment, keys)
            verdict = judge(release, [], facts) if stored is None else await verdict_of(connection, environment, stored)
        rungs = ladder(environment, service, stored.name if stored else None, release, verdict, facts, running)
        return Recovery(
            service=service, environment=environment, release=summary_of(stored, verdict) if stored else None,
            destructive_migration=verdict.destructive_migration, statements=verdict.statements, advice=advice(verdict, rungs),
            recommended=recommended(rungs), ladder=rungs, running=running,
            unknown=unknown_of(service, stored, verdict, running),
        )  # fmt: skip

    async def _release_of(
        self, connection: Connection, environment: str, service: str, name: str | None
    ) -> StoredRelease | None:
        await writing.expect_environment(connection, environment)
        if name is not None:
            stored = await found_in(connection, environment, name)
            if service not in stored.release.services:
                raise unknown_service(service, sorted(stored.release.services))
            return stored
        last = await store_releases.last_of_service(connection, environment, service)
        known = [] if last else await store_releases.known_services(connection, environment)
        if last is None and service not in known:
            raise unknown_service(service, known)
        return last

    async def _judged(self, release: Release) -> list[Finding]:
        """Every finding, in the order of the migrations: of those with text their statements, of others the class given."""
        migrations = release.migrations or []
        read = await self._classing.judge([Migration(name=one.name, sql=one.sql) for one in migrations if one.sql is not None])
        told = [given(one.name, one.given_class) for one in migrations if one.given_class is not None]
        return [finding for one in migrations for finding in [*read, *told] if finding.migration == one.name]

    async def _view(self, environment: str, stored: StoredRelease) -> ReleaseView:
        async with self._pg.connection() as connection:
            return ReleaseView(stored=stored, verdict=await verdict_of(connection, environment, stored))


def flags_to_kill(name: str, release: Release) -> list[str]:
    """The release's flags. Raises `Problem` 409 where it has none."""
    if release.flags:
        return release.flags
    service = next(iter(sorted(release.services)), "SERVICE")
    raise Problem(
        409, "nothing_to_kill", "Nothing to kill", f"Release {name:.255} has no flags: no kill takes it back.",
        next_step=f"see the other ways out: `rescind recover {service}`",
    )  # fmt: skip


def note_of(environment: str, name: str, flags: Sequence[str], request: KillRequest, actor: str) -> Within:
    """The audit entry of a release's kill, beside those of its flags."""

    async def note(connection: Connection, answer: KillAnswer) -> None:
        await audit.append(
            connection, actor=actor, action="release.kill", environment=environment, object=name, reason=request.reason,
            detail={"rollback_id": answer.rollback_id, "revision": answer.revision, "flags": list(flags)},
        )  # fmt: skip

    return note


def unknown_of(service: str, stored: StoredRelease | None, verdict: Verdict, running: dict[str, int]) -> list[str]:
    """What nobody has said, in sentences."""
    unknown = [] if stored else [f"which release of {service} runs: none names it (`rescind releases set FILE`)"]
    if verdict.destructive_migration == "unknown":
        unknown.append("whether it ran a destructive migration")
    if not running:
        unknown.append(f"which versions of {service} run: no instance is live")
    elif len(running) > 1:
        unknown.append("whether the versions that run side by side understand each other: the fleet is mixed")
    return unknown

"""What a kill would stop and undo, in 300 ms at most; what could not be found out in time is said to be unknown (P15, P19)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import asyncpg
from msgspec import Struct, field

from runtime.postgres import Postgres
from runtime.queries import Queries
from server.rollbacks.errors import unknown_flag
from server.rollbacks.judged import ReleaseSummary, summary_of_flag
from server.rollbacks.record import LIVE_SECONDS
from server.rollbacks.requests import Since

QUERIES = Queries.load("server.rollbacks", "preview")
KILLS = Queries.load("server.rollbacks", "kills")
EFFECTS_LIMIT_MS = 200
CONTINUES_LIMIT_MS = 50
WORKER_LIVE_SECONDS = 60.0
SILENT_SECONDS = 15.0

Handler = tuple[str, str, str]
"""Saga, version and step that a live worker serves."""


class PreviewKind(Struct, kw_only=True):
    """The effects of one kind that a kill would take now, and how they would be undone."""

    effects: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    amounts: dict[str, int] = field(default_factory=dict)
    """Minor units per currency."""
    undone_by: list[str] = field(default_factory=list)
    """email, refund, webhook, worker; "nothing" where it is irreversible or has no definition."""


class PreviewService(Struct, frozen=True, kw_only=True):
    """The instances of one service. `silent`: not heard of for some beats."""

    instances: int
    silent: int


class PreviewContinues(Struct, frozen=True, kw_only=True):
    """So many running instances of a version would go on first; `past_pivot`: only those past theirs are counted, and would."""

    saga: str
    version: str
    past_pivot: bool
    instances: int


class Preview(Struct, frozen=True, kw_only=True):
    """`GET .../flags/{key}/kill-preview`. `effects` is null where counting them would have taken too long."""

    flag: str
    environment: str
    off_variant: str
    epoch: int
    archived: bool
    standing: list[Any]
    """The kills that stand already."""
    services: dict[str, PreviewService]
    effects: dict[str, PreviewKind] | None
    proceeds: bool = False
    """Its effects go on without the server (`on_unreachable: proceed`), or once did."""
    proceeded: int | None = None
    """How many of its effects did so, of those that are on record; null as `effects`."""
    history_gone_until: datetime | None = None
    """Effects admitted up to then have gone by retention, of those asked for: they cannot be undone any more."""
    continues: list[PreviewContinues] | None = None
    """Instances that the kill would let go on, and wait for; null as `effects`."""
    unknown: list[str]
    """What this preview does not know, or what a person should know first, in sentences."""
    as_of: datetime
    release: ReleaseSummary | None = None
    """The last deployed release that names the flag, and its reversibility; null where none does."""


class Previews:
    """Computes previews."""

    def __init__(self, pg: Postgres) -> None:
        self._pg = pg

    async def preview(self, environment: str, flag: str, *, scope: dict[str, Any], since: Since) -> Preview:
        """Raises `Problem` 404 for an unknown flag."""
        async with self._pg.connection() as connection:
            found = await connection.fetchrow(QUERIES.flag, environment, flag)
            if found is None:
                known = [row[0] for row in await connection.fetch(KILLS.flags, environment)]
                raise unknown_flag(flag, environment, known)
            generation, n = (since.revision.generation, since.revision.n) if since.revision else (None, None)
            horizon = await connection.fetchrow(QUERIES.horizon, environment, flag, since.at, generation, n)
            services = await connection.fetch(QUERIES.instances, environment, LIVE_SECONDS, SILENT_SECONDS)
            workers = {
                (row[0], row[1], row[2]) for row in await connection.fetch(QUERIES.workers, environment, WORKER_LIVE_SECONDS)
            }
            release = await summary_of_flag(connection, environment, flag)
        rows = await self._effects(environment, flag, scope, since)
        continues = await self._continues(environment, flag, scope)
        silent = sum(row["silent"] for row in services)
        unknown = [] if rows is not None else [f"the effects: counting them takes longer than {EFFECTS_LIMIT_MS} ms"]
        if continues is None:
            unknown.append("how many running instances would go on first")
        if silent:
            unknown.append(f"whether {silent} silent instances still run")
        if found["proceeds"]:
            unknown.append("what instances did without the server and have not delivered: the flag lets them proceed")
        if horizon["number"]:
            unknown.append(gone_sentence(horizon["number"], horizon["gone_until"]))
        return Preview(
            flag=flag, environment=environment, off_variant=found["off_variant"], epoch=found["epoch"],
            archived=found["archived_at"] is not None, standing=found["standing"] or [],
            services={row["service"]: PreviewService(instances=row["number"], silent=row["silent"]) for row in services},
            effects=None if rows is None else kinds_of(rows),
            proceeds=found["proceeds"], proceeded=None if rows is None else sum(row["proceeded"] for row in rows),
            history_gone_until=horizon["gone_until"],
            continues=continues,
            unknown=unknown + cannot_be_undone(rows or [], workers), as_of=found["as_of"],
            release=release,
        )  # fmt: skip

    async def _effects(self, environment: str, flag: str, scope: dict[str, Any], since: Since) -> Sequence[Any] | None:
        generation, n = (since.revision.generation, since.revision.n) if since.revision else (None, None)
        try:
            async with self._pg.transaction() as connection:
                await connection.execute(QUERIES.limit_time, str(EFFECTS_LIMIT_MS))
                return list(await connection.fetch(QUERIES.effects, environment, flag, since.at, generation, n, scope))
        except asyncpg.QueryCanceledError:
            return None

    async def _continues(self, environment: str, flag: str, scope: dict[str, Any]) -> list[PreviewContinues] | None:
        try:
            async with self._pg.transaction() as connection:
                await connection.execute(QUERIES.limit_time, str(CONTINUES_LIMIT_MS))
                return [_continues_of(row) for row in await connection.fetch(QUERIES.continues, environment, flag, scope)]
        except asyncpg.QueryCanceledError:
            return None


def _continues_of(row: Any) -> PreviewContinues:
    return PreviewContinues(saga=row["saga"], version=row["version"], past_pivot=row["past_pivot"], instances=row["number"])


def gone_sentence(number: int, until: datetime) -> str:
    """What is said of history that has gone.

    >>> gone_sentence(2, datetime.fromisoformat("2026-01-31T12:00:00+00:00"))
    'up to 2 effects admitted until 2026-01-31T12:00:00+00:00: their history has gone by retention, and they cannot be undone'
    """
    when = until.isoformat(timespec="seconds")
    return f"up to {number} effects admitted until {when}: their history has gone by retention, and they cannot be undone"


def kinds_of(rows: Sequence[Any]) -> dict[str, PreviewKind]:
    """The rows summed per kind."""
    kinds: dict[str, PreviewKind] = {}
    for row in rows:
        kind = kinds.setdefault(row["kind"], PreviewKind())
        kind.effects += row["number"]
        kind.statuses[row["status"]] = kind.statuses.get(row["status"], 0) + row["number"]
        if row["currency"] and row["amount_minor"] is not None:
            kind.amounts[row["currency"]] = kind.amounts.get(row["currency"], 0) + row["amount_minor"]
        how = row["executor"] or "nothing"
        if how not in kind.undone_by:
            kind.undone_by.append(how)
    return kinds


def cannot_be_undone(rows: Sequence[Any], workers: set[Handler]) -> list[str]:
    """A sentence for each kind that would wait for a person, or be reported only (P15)."""
    counts: dict[tuple[str, str], int] = {}
    for row in rows:
        obstacle = obstacle_of(row, workers)
        if obstacle is not None:
            counts[row["kind"], obstacle] = counts.get((row["kind"], obstacle), 0) + row["number"]
    return sorted(f"{number} {kind}: {obstacle}" for (kind, obstacle), number in counts.items())


def obstacle_of(row: Any, workers: set[Handler]) -> str | None:
    """What stands in the way of undoing these effects, or null. A worker serves steps of sagas, never loose kinds."""
    name, version, step = row["definition"], row["definition_version"], row["step"]
    if name is None:
        return "no definition says how they are undone; they would wait for a person"
    if row["class"] == "irreversible":
        return "irreversible, they would be reported"
    if row["executor"] is None:
        return "no compensation is defined; they would wait for a person"
    if row["executor"] == "worker" and (row["definition_is_kind"] or (name, version, step) not in workers):
        place = f"{name} {version}" if step is None else f"{name} {version}, step {step}"
        return f"no live worker serves {place}; they wait until one runs (`rescind work`)"
    return None

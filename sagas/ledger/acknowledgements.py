"""Acknowledged kills, in groups: which permissions of an instance are given back, and which bodies have begun (hazard 1).

A fleet acknowledges a kill within moments: its instances share one look at what they were allowed to begin. What comes of it
goes through the reports, and with them through the fence.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from asyncpg import Connection
from msgspec import Struct
from rescind.wire import Revision

from sagas import store, store_reports
from sagas.core import admission
from sagas.core.effects import News
from sagas.core.reports import Report
from sagas.ledger.groups import Deferred

BEGUN_MAX = 100_000
PERMISSIONS_MAX = 100_000
ID_MARGIN_SECONDS = 20.0
"""The start window, the tail, and how far a server's clock, which stands in the ids, may be off PostgreSQL's."""
TAIL_SECONDS = 5.0
"""How long after its start window a permission is still given back by name rather than left to its lease."""


class Acknowledgement(Struct, frozen=True, kw_only=True):
    """An instance has applied this revision and the kills up to it; these bodies of killed flags have begun."""

    environment: str
    instance: str
    revision: Revision
    begun: frozenset[UUID]


def key_of(one: Acknowledgement) -> tuple[str, str]:
    """The instance."""
    return one.environment, one.instance


def ids(texts: Sequence[str]) -> frozenset[UUID]:
    """The effects' ids; what is none is left out."""
    found = set()
    for text in texts[:BEGUN_MAX]:
        try:
            found.add(UUID(text))
        except ValueError:
            continue
    return frozenset(found)


async def flush(connection: Connection, group: Sequence[Acknowledgement]) -> list[list[Report] | Deferred]:
    """The reports that follow from each acknowledgement, in its instance's name."""
    news: dict[tuple[str, str], list[Report]] = {key_of(one): [] for one in group}
    begun = {key_of(one): one.begun for one in group}
    known = {key_of(one): one.revision for one in group}
    for environment in sorted({one.environment for one in group}):
        mine = [one for one in group if one.environment == environment]
        permissions = await store_reports.permissions(
            connection,
            environment,
            [one.instance for one in mine],
            sorted(frozenset[UUID]().union(*(one.begun for one in mine))),
            margin_seconds=ID_MARGIN_SECONDS,
            tail_seconds=TAIL_SECONDS,
            limit=PERMISSIONS_MAX,
        )
        fences = await store.fences(connection, {(environment, one.flag) for one in permissions}) if permissions else {}
        killers = [admission.killer(fences[environment, one.flag], one.attributes, one.epoch)[1] for one in permissions]
        kills = await store_reports.kill_revisions(connection, {killer for killer in killers if killer})
        for one, killer in zip(permissions, killers, strict=True):
            # a later kill than the instance knew of is not acknowledged by this: it may still begin what that one covers
            if killer in kills and kills[killer] <= known[environment, one.instance] and not one.begun:
                word = News.BEGUN if one.effect_id in begun[environment, one.instance] else News.NOT_STARTED
                report = Report(environment=environment, effect_id=one.effect_id, token=one.token, news=word)
                news[environment, one.instance].append(report)
    return [news[key_of(one)] for one in group]

"""Effects that were begun without the server: read, and the place that each takes in the ledger. Pure (P9, P10, P11).

Nothing of them is refused that happened: what a key says to those who ask decides where the news stands, not whether it does.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct
from rescind.wire import Fault, ProceededEffect, ProceededRequest

from sagas.core import asks, keys, reports
from sagas.core.admission import Fence
from sagas.core.asks import Ask
from sagas.core.effects import News, Status
from sagas.core.faults import read
from sagas.core.keys import Recorded
from sagas.core.reports import Report
from sagas.core.twins import second_id

AGO_SECONDS_MAX = 400 * 86_400.0


class Proceeded(Struct, frozen=True, kw_only=True):
    """One such effect, read and found well formed. `report` has its name, its token and what became of it."""

    ask: Ask
    report: Report
    epoch: int
    """Of the flag, as its instance knew it; 0: not told."""
    ago_seconds: float
    """Since its line was written."""
    ended_ago_seconds: float

    @property
    def happened(self) -> bool:
        """Whether it did, or may have."""
        return self.report.news in (News.SUCCEEDED, News.UNKNOWN)


class Way(StrEnum):
    """How such an effect is written down."""

    NOTHING = "nothing"
    """It never began, and no admission waits to hear so."""
    FIRST = "first"
    """The key is new."""
    NEXT = "next"
    """An effect of its own, and the key's next generation."""
    BESIDE = "beside"
    """An effect of its own under a key that another holds: two happened, and each is undone (hazard 2)."""
    ATTEMPT = "attempt"
    """Another attempt at the effect that is on record, under the same name: the provider was given one key."""
    REPORT = "report"
    """On record already, by this or by an admission whose answer was lost: only what became of it is news."""


class Place(Struct, frozen=True, kw_only=True):
    """Where it is written: the way, and the effect's id."""

    way: Way
    effect_id: UUID


def parse(environment: str, request: ProceededRequest, document: object) -> tuple[Proceeded | None, list[Fault]]:
    """The effect, or null and every fault of the item, each with its JSON pointer into it."""
    try:
        told = msgspec.convert(document, ProceededEffect)
        raw: Any = document["request"]  # type: ignore[index] # it converted: it is an object with a request
    except msgspec.ValidationError:
        return None, read(ProceededEffect, document)[1]
    ask, faults = asks.parse(environment, told.instance or request.instance, raw)
    faults = [Fault(pointer=f"/request{fault.pointer}", detail=fault.detail, code=fault.code) for fault in faults]
    outcome = {
        "effect_id": told.effect_id,
        "token": told.request.token or "",
        "outcome": told.outcome or "unknown",
        "result": told.result,
        "error": told.error,
    }
    report, wrong = reports.parse(environment, outcome)
    if ask is None or report is None:
        return None, [*faults, *wrong]
    return Proceeded(
        ask=ask,
        report=report,
        epoch=max(0, told.epoch),
        ago_seconds=ago(request.now, told.at),
        ended_ago_seconds=ago(request.now, told.ended_at or told.at),
    ), []


def ago(now: float, at: float) -> float:
    """Seconds since, by one clock: how far that clock is off PostgreSQL's does not matter.

    >>> ago(100.0, 40.0), ago(100.0, 140.0), ago(0.0, 40.0)
    (60.0, 0.0, 0.0)
    """
    return min(max(0.0, now - at), AGO_SECONDS_MAX) if now > 0 else 0.0


def epoch_of(told: int, fence: Fence) -> int:
    """Under which epoch it was begun: as its instance knew it, and never one that the fence has not opened.

    A kill takes what was begun under the epoch that it closed, or before. One that was not told is taken for the last open one.
    """
    newest = fence.epoch - 1 if fence.closed else fence.epoch
    return max(1, min(told, newest) if told else newest)


def place(told: Proceeded, recorded: Recorded | None, known: Mapping[UUID, frozenset[UUID]], epoch: int) -> Place:
    """Where it is written. `recorded` is the key's present generation; `known` are the tokens of the effects that carry its
    name, the name it has beside another, or the key."""
    name, token = told.report.effect_id, told.report.token
    aside = second_id(name, token)
    for candidate in (name, aside, *((recorded.effect_id,) if recorded else ())):
        if token in known.get(candidate, ()):
            return Place(way=Way.REPORT, effect_id=candidate)
    own = aside if name in known else name
    if told.report.news is News.NOT_STARTED:
        return Place(way=Way.NOTHING, effect_id=own)
    if recorded is None:
        return Place(way=Way.FIRST, effect_id=own)
    if recorded.is_gone:
        return _beside_remains(told, recorded, own)
    is_closed = keys.standing(recorded) in keys.CLOSED
    is_same = (recorded.effect_id, recorded.flag, recorded.payload_hash) == (name, told.ask.flag, told.ask.payload_hash)
    if is_same and not (is_closed and epoch > recorded.epoch):
        return Place(way=Way.ATTEMPT, effect_id=name)
    if told.report.news is News.FAILED:
        return Place(way=Way.NOTHING, effect_id=own)
    takes_key = is_closed or recorded.status is Status.FAILED
    return Place(way=Way.NEXT if takes_key else Way.BESIDE, effect_id=own)


def _beside_remains(told: Proceeded, recorded: Recorded, own: UUID) -> Place:
    """Where the key's history has gone: what that told already is no news; anything else is an effect of its own, never under a
    name that was another's."""
    name, token = told.report.effect_id, told.report.token
    if token == recorded.token or told.report.news is News.FAILED:
        return Place(way=Way.NOTHING, effect_id=own)
    takes_key = keys.standing(recorded) in keys.CLOSED or recorded.status is Status.FAILED
    return Place(
        way=Way.NEXT if takes_key else Way.BESIDE, effect_id=second_id(name, token) if name == recorded.effect_id else own
    )

"""Reports in groups, through the same fence as admissions (P11, hazard 3).

A report committed before a kill's set is closed is seen by its enumeration. One that comes after finds the set closed under
the lock, and has the compensation looked at again in its own transaction: nothing falls between the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from uuid import UUID

import msgspec
from asyncpg import Connection
from rescind.wire import ReportResult

from runtime.postgres import transaction_on
from sagas import definitions, store, store_reports
from sagas.core import admission, reports
from sagas.core.admission import Fence, Standing
from sagas.core.doubts import earlier_doubt
from sagas.core.effects import News, Status
from sagas.core.reports import Change, Report
from sagas.core.twins import REFERENCE, Success, successes
from sagas.definitions.store import Catalogue
from sagas.ledger.admission import FLAGS_MAX
from sagas.ledger.groups import DEFERRED, Deferred
from sagas.store import FlagName
from sagas.store_reports import Entry, Place, Reported, Second

CLAIMED = ("pending", "waiting", "compensated", "never_happened")

Answer = ReportResult | Deferred


def effect_of(report: Report) -> UUID:
    """The effect's id."""
    return report.effect_id


class Reports:
    """Judges and writes groups of reports on a connection."""

    def __init__(self, catalogue: Catalogue | None = None) -> None:
        self._catalogue = catalogue or Catalogue()

    async def flush(self, connection: Connection, group: Sequence[Report]) -> list[Answer]:
        """One answer per report, effects pairwise different."""
        places = await store_reports.places(connection, [report.effect_id for report in group])
        answers: list[Answer] = [DEFERRED] * len(group)
        chosen: list[int] = []
        locks: set[int] = set()
        for index, report in enumerate(group):
            place = places.get(report.effect_id)
            if place is None or place.environment != report.environment:
                answers[index] = _unknown_effect(report)
            elif len(locks | place.lock_keys) <= FLAGS_MAX or not chosen:
                locks |= place.lock_keys
                chosen.append(index)
        if chosen:
            async with self.transaction(connection, locks):
                recorded = await self.record(connection, [group[index] for index in chosen], places)
            for index, answer in zip(chosen, recorded, strict=True):
                answers[index] = answer
        return answers

    def transaction(self, connection: Connection, lock_keys: Iterable[int]) -> AbstractAsyncContextManager[None]:
        """A transaction that holds the flags' locks, shared, from its beginning."""
        return transaction_on(connection, store.locking(lock_keys))

    async def record(self, connection: Connection, group: Sequence[Report], places: dict[UUID, Place]) -> list[Answer]:
        """Under the locks: read again, judge, write, and arm what a closed rollback names."""
        effects = await store_reports.reported(connection, [report.effect_id for report in group])
        flags = {flag for report in group for flag in places[report.effect_id].flags}
        rollbacks = await store.rollbacks(connection, flags)
        gives_back = any(report.news is News.NOT_STARTED for report in group)
        fences = await store.fences(connection, flags) if gives_back else {}
        answers: list[Answer] = []
        entries: list[Entry] = []
        seconds: list[Second] = []
        arming: list[UUID] = []
        for report in group:
            effect = effects.get(report.effect_id)
            if effect is None:  # its history went between the look and the lock
                answers.append(_unknown_effect(report))
                continue
            if not _knows(effect, report.token):
                answers.append(_unknown_token())
                continue
            change = await self._judge(connection, report, effect, fences)
            if not change.is_nothing:
                entries.append(_entry(report, change, effect.environment))
            if change.second is not None:
                seconds.append(_second(report, effect, change.second))
            if _may_be_claimed(effect, change, places[report.effect_id], rollbacks):
                arming += [report.effect_id] if change.second is None else [report.effect_id, change.second]
            answers.append(_answer(report, effect, change, rollbacks))
        if entries:
            await store_reports.record(connection, entries)
        if seconds:
            await store_reports.record_seconds(connection, seconds)
        if arming:
            await store_reports.arm(connection, arming)
        return answers

    async def _judge(self, connection: Connection, report: Report, effect: Reported, fences: dict[FlagName, Fence]) -> Change:
        recorded = effect.recorded
        fence = fences.get((effect.environment, recorded.flag))
        is_dead = fence is not None and not recorded.is_off and admission.killer(fence, recorded.attributes, recorded.epoch)[0]
        known: list[Success] = []
        reference = REFERENCE
        if recorded.status is Status.SUCCEEDED and report.news is News.SUCCEEDED:
            known = successes(str(recorded.token), effect.result, effect.evidence)
            reference = await self._reference(connection, effect)
        return reports.judge(
            report,
            status=recorded.status,
            begun=recorded.begun,
            tombstoned=recorded.tombstoned,
            error_code=effect.error_code,
            known=known,
            reference=reference,
            is_current=report.token == recorded.token,
            is_dead=is_dead,
            after_doubt=earlier_doubt(effect.evidence),
        )

    async def _reference(self, connection: Connection, effect: Reported) -> str:
        """The field of the effect's result that names what was done at the provider."""
        at = effect.definition
        found: definitions.StepDefinition | definitions.KindDefinition | None = None
        if at.saga and at.saga_version and at.step:
            definition = await self._catalogue.saga(connection, effect.environment, at.saga, at.saga_version)
            found = definition.step(at.step) if isinstance(definition, definitions.SagaDefinition) else None
        elif at.kind_version:
            kind = await self._catalogue.kind(connection, effect.environment, at.kind, at.kind_version)
            found = kind if isinstance(kind, definitions.KindDefinition) else None
        undoing = None if found is None else found.compensation
        return undoing.reference if isinstance(undoing, definitions.Refund) else REFERENCE


def _knows(effect: Reported, token: UUID) -> bool:
    return token == effect.recorded.token or str(token) in effect.attempts


def _second(report: Report, effect: Reported, name: UUID) -> Second:
    attempt = effect.attempts.get(str(report.token), effect.recorded.attempt)
    entry = {"what": "second", "of": str(report.effect_id), "token": str(report.token), "attempt": attempt}
    return Second(
        id=name,
        effect_id=report.effect_id,
        token=report.token,
        attempt=attempt,
        result_json=report.result_json,
        evidence_json=msgspec.json.encode(entry).decode(),
    )


def _may_be_claimed(effect: Reported, change: Change, place: Place, rollbacks: dict[FlagName, list[Standing]]) -> bool:
    """Whether a rollback may have looked at this effect before: it, or whoever claims its saga instance, looks again."""
    recorded = effect.recorded
    if (recorded.is_off and recorded.disposition is None) or (
        change.status is None and change.evidence_json is None and change.extend_seconds is None
    ):
        return False
    return recorded.disposition is not None or any(one.is_closed for flag in place.flags for one in rollbacks.get(flag, ()))


def _entry(report: Report, change: Change, environment: str) -> Entry:
    return Entry(
        environment=environment,
        effect_id=report.effect_id,
        status=change.status,
        begun=change.begun,
        tombstoned=change.tombstoned,
        result_json=change.result_json,
        error_json=change.error_json,
        evidence_json=change.evidence_json,
        extend_seconds=change.extend_seconds,
        traceparent=None if change.status is None else report.traceparent,
    )


def _answer(report: Report, effect: Reported, change: Change, rollbacks: dict[FlagName, list[Standing]]) -> ReportResult:
    recorded = effect.recorded
    claims = rollbacks.get((effect.environment, recorded.flag), [])
    word = admission.with_compensation(recorded, claims).compensation
    happened = (change.status or recorded.status) in (Status.SUCCEEDED, Status.IN_DOUBT)
    dropped = {"code": "too_large", "detail": "the outcome is recorded without it", "pointer": report.dropped}
    error = dropped if report.dropped else None
    if happened and (word in ("due", "held") or recorded.disposition in CLAIMED):
        return ReportResult(outcome="killed", error=error)
    if change.status is None and change.evidence_json is not None:
        return ReportResult(outcome="evidence", error=error)
    return ReportResult(outcome="recorded", error=error)


def _unknown_effect(report: Report) -> ReportResult:
    detail = f"there is no effect {report.effect_id} in {report.environment!r}"
    return ReportResult(outcome="unknown_effect", error={"code": "unknown_effect", "detail": detail, "pointer": "/effect_id"})


def _unknown_token() -> ReportResult:
    detail = "is the token of no attempt at this effect"
    return ReportResult(outcome="invalid", error={"code": "unknown_token", "detail": detail, "pointer": "/token"})

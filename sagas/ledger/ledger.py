"""The effect ledger: admits effects before they are done, and records what became of them (P8 to P11).

    ledger = Ledger(pg, clock, entropy)
    await ledger.start()
    answer = await ledger.admit("production", request, principal)

An asker may bring a `token` of its own, a UUID it made up: it becomes the token of the attempt, so that the same ask repeated
after a lost reply is known and answered with the same permission.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from asyncpg import Connection
from rescind.wire import (
    AdmitAnswer,
    AdmitRequest,
    AdmitResult,
    Fault,
    ProceededRequest,
    ReportAnswer,
    ReportRequest,
    ReportResult,
    Revision,
)

from runtime.clock import Clock, Entropy
from runtime.postgres import Postgres
from runtime.tokens import Principal
from sagas import store
from sagas.core import proceeded as core_proceeded
from sagas.core import reports as core_reports
from sagas.core.asks import Ask, parse
from sagas.core.proceeded import Proceeded
from sagas.core.reports import Report
from sagas.definitions.store import Catalogue
from sagas.ledger import acknowledgements, proceeded
from sagas.ledger.acknowledgements import Acknowledgement
from sagas.ledger.admission import Admission, key_of
from sagas.ledger.answers import not_admitted, not_recorded, not_taken
from sagas.ledger.errors import TooManyItems
from sagas.ledger.groups import Groups
from sagas.ledger.proceeded import Proceedings
from sagas.ledger.reports import Reports, effect_of

BATCH_MAX = 256
WRITERS = 2
INSTANCE_MAX = 256
ExpectOpen = Callable[[str], Awaitable[None]]


class Ledger:
    """Admission, reports and acknowledgements, each in groups on connections of its own."""

    def __init__(
        self,
        pg: Postgres,
        clock: Clock,
        entropy: Entropy,
        *,
        writers: int = WRITERS,
        admission: Admission | None = None,
        reports: Reports | None = None,
        expect_open: ExpectOpen | None = None,
    ) -> None:
        """`expect_open` raises where an environment takes no effects now."""
        self._expect_open = expect_open
        self._pg = pg
        self._clock = clock
        self._entropy = entropy
        self._writers_count = writers
        admitting, reporting = admission or Admission(entropy, Catalogue()), reports or Reports()
        self._admissions: Groups[Ask, AdmitResult] = Groups(
            "admission", self._open, admitting.flush, key_of, fault=not_admitted
        )
        self._acknowledgements: Groups[Acknowledgement, list[Report]] = Groups(
            "acknowledgements", self._open, acknowledgements.flush, acknowledgements.key_of
        )
        self._reports: Groups[Report, ReportResult] = Groups(
            "reports", self._open, reporting.flush, effect_of, fault=not_recorded
        )
        self._proceedings: Groups[Proceeded, ReportResult] = Groups(
            "proceedings", self._open, Proceedings(reporting).flush, proceeded.key_of, fault=not_taken
        )

    async def start(self) -> None:
        """Begin to write."""
        self._admissions.start(self._writers_count)
        self._reports.start(self._writers_count)
        self._acknowledgements.start(1)
        self._proceedings.start(1)

    async def stop(self) -> None:
        """Finish what is queued, within moments, and close the connections."""
        await asyncio.gather(
            self._admissions.stop(), self._acknowledgements.stop(), self._reports.stop(), self._proceedings.stop()
        )

    async def _open(self) -> Connection:
        connection = await self._pg.dedicated()
        await store.prefer_indexes(connection)
        return connection

    async def admit(self, environment: str, request: AdmitRequest, principal: Principal) -> AdmitAnswer:
        """One result per effect, in order; one bad item never fails the batch.

        Raises `TooManyItems`, `Unavailable` (nothing was admitted) or `OutcomeUnknown` (ask again with the same tokens).
        """
        principal.require("effects", environment)
        _limit(len(request.effects))
        if self._expect_open is not None:
            await self._expect_open(environment)
        results: list[AdmitResult | None] = []
        asks: list[Ask] = []
        for document in request.effects:
            ask, faults = parse(environment, request.instance[:INSTANCE_MAX], document)
            results.append(None if ask is not None else AdmitResult(outcome="invalid", error=_error(faults)))
            if ask is not None:
                asks.append(ask)
        answers = iter(await self._admissions.submit(asks))
        return AdmitAnswer(results=[next(answers) if result is None else result for result in results])

    async def report(self, environment: str, request: ReportRequest) -> ReportAnswer:
        """One result per report, in order. Raises as `admit` does; a report may be repeated at will."""
        _limit(len(request.reports))
        results: list[ReportResult | None] = []
        sound: list[Report] = []
        for document in request.reports:
            report, faults = core_reports.parse(environment, document)
            results.append(None if report is not None else ReportResult(outcome="invalid", error=_error(faults)))
            if report is not None:
                sound.append(report)
        answers = iter(await self._reports.submit(sound))
        return ReportAnswer(results=[next(answers) if result is None else result for result in results])

    async def proceeded(self, environment: str, request: ProceededRequest) -> ReportAnswer:
        """Take in effects that were begun without the server, also after a kill: one result each, in order (P11).

        Raises as `admit` does; it may be repeated at will.
        """
        _limit(len(request.effects))
        request = msgspec.structs.replace(request, instance=request.instance[:INSTANCE_MAX])
        results: list[ReportResult | None] = []
        sound: list[Proceeded] = []
        for document in request.effects:
            told, faults = core_proceeded.parse(environment, request, document)
            results.append(None if told is not None else ReportResult(outcome="invalid", error=_error(faults)))
            if told is not None:
                sound.append(told)
        answers = iter(await self._proceedings.submit(sound))
        return ReportAnswer(results=[next(answers) if result is None else result for result in results])

    async def acknowledge(self, environment: str, instance: str, begun: Sequence[str], revision: Revision) -> None:
        """An instance has applied the kills up to `revision`: what it has begun under them is noted, every other permission
        is given back (hazard 1)."""
        if not instance:
            return
        one = Acknowledgement(
            environment=environment,
            instance=instance[:INSTANCE_MAX],
            revision=revision,
            begun=acknowledgements.ids(begun),
        )
        [news] = await self._acknowledgements.submit([one])
        await self._reports.submit(news)


def _limit(count: int) -> None:
    if count > BATCH_MAX:
        raise TooManyItems(count, BATCH_MAX)


def _error(faults: Sequence[Fault]) -> dict[str, object]:
    """The first fault at the top, for those who read only one; all of them in `errors`."""
    first = faults[0]
    return {
        "code": first.code,
        "detail": first.detail,
        "pointer": first.pointer,
        "errors": [{"code": fault.code, "detail": fault.detail, "pointer": fault.pointer} for fault in faults],
    }

"""The short way in for batches of effects and of tasks; in full they stand in `sagas.http.effects` and `sagas.http.tasks`."""

from __future__ import annotations

import msgspec
from rescind.wire import AdmitAnswer, AdmitRequest, ReportAnswer, ReportRequest, TaskReportAnswer, TaskReportRequest

from runtime.lane import Route, read
from runtime.tokens import Principal
from sagas.http.effects import SCOPE
from sagas.instances.work import Work
from sagas.ledger import BATCH_MAX, Ledger

WORK = "work"

_admissions = msgspec.json.Decoder(AdmitRequest)
_tasks = msgspec.json.Decoder(TaskReportRequest)
_reports = msgspec.json.Decoder(ReportRequest)


def routes(ledger: Ledger, work: Work) -> dict[str, Route]:
    """`effects:admit`, `effects:report` and `tasks:report`."""

    async def admit(environment: str, principal: Principal, body: bytes) -> AdmitAnswer | None:
        request = read(_admissions, body)
        if request is None or len(request.effects) > BATCH_MAX:
            return None
        return await ledger.admit(environment, request, principal)

    async def report(environment: str, principal: Principal, body: bytes) -> ReportAnswer | None:
        request = read(_reports, body)
        if request is None or len(request.reports) > BATCH_MAX:
            return None
        return await ledger.report(environment, request)

    async def report_tasks(environment: str, principal: Principal, body: bytes) -> TaskReportAnswer | None:
        request = read(_tasks, body)
        return None if request is None else await work.report(environment, request, principal)

    return {
        "effects:admit": Route((SCOPE,), admit),
        "effects:report": Route((SCOPE,), report),
        "tasks:report": Route((f"{WORK}:*", WORK), report_tasks),
    }

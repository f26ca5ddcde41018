"""The short way in for batches of effects; in full they stand in `sagas.http.effects`."""

from __future__ import annotations

import msgspec
from rescind.wire import AdmitAnswer, AdmitRequest, ReportAnswer, ReportRequest

from runtime.lane import Route, read
from runtime.tokens import Principal
from sagas.http.effects import SCOPE
from sagas.ledger import BATCH_MAX, Ledger

_admissions = msgspec.json.Decoder(AdmitRequest)
_reports = msgspec.json.Decoder(ReportRequest)


def routes(ledger: Ledger) -> dict[str, Route]:
    """`effects:admit` and `effects:report`."""

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

    return {"effects:admit": Route((SCOPE,), admit), "effects:report": Route((SCOPE,), report)}

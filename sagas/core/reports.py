"""What a report of an effect's body changes: read, judged by the effect machine, and written as one entry. Pure (P10, P11)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct
from rescind.wire import EffectReport, Fault

from sagas.core import keys
from sagas.core.effects import GIVEN_BACK_CODE, UNPROVEN, Move, News, Status, move, state_of
from sagas.core.faults import read
from sagas.core.twins import REFERENCE, Beside, Success, beside, second_id

RESULT_BYTES_MAX = 65_536
LEASE_SECONDS_MAX = 3_600.0
LEASE_SECONDS = 30.0
TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context, section 3.2; what is none is left out."""


class Report(Struct, frozen=True, kw_only=True):
    """A report, read and found well formed."""

    environment: str
    effect_id: UUID
    token: UUID
    news: News
    result_json: str | None = None
    error_json: str | None = None
    lease_seconds: float = LEASE_SECONDS
    dropped: str | None = None
    """The pointer of what was too large to keep; the outcome itself is never refused for it (P11)."""
    traceparent: str | None = None


class Change(Struct, frozen=True, kw_only=True):
    """What a report does to an effect."""

    status: Status | None
    begun: bool
    tombstoned: bool
    result_json: str | None
    error_json: str | None
    evidence_json: str | None
    extend_seconds: float | None
    second: UUID | None = None
    """The name of a second effect: another attempt did it again, under another reference (hazard 2)."""

    @property
    def is_nothing(self) -> bool:
        """Whether the row stays as it is."""
        return self.status is None and self.evidence_json is None and self.extend_seconds is None and not self.begun


def parse(environment: str, document: object) -> tuple[Report | None, list[Fault]]:
    """The report, or null and every fault of the item, each with its JSON pointer into it."""
    try:
        asked = msgspec.convert(document, EffectReport)
    except msgspec.ValidationError:
        return None, read(EffectReport, document)[1]
    ids: dict[str, UUID] = {}
    faults = []
    for name, text in (("effect_id", asked.effect_id), ("token", asked.token)):
        try:
            ids[name] = UUID(text)
        except ValueError:
            faults.append(Fault(pointer=f"/{name}", detail="is not a UUID"))
    lease_seconds = LEASE_SECONDS if asked.lease_seconds is None else asked.lease_seconds
    if not 0 < lease_seconds <= LEASE_SECONDS_MAX:
        faults.append(Fault(pointer="/lease_seconds", detail=f"is not within 0 and {LEASE_SECONDS_MAX:.0f}", code="range"))
    if faults:
        return None, faults
    result, result_dropped = kept(asked.result)
    error, error_dropped = kept(asked.error)
    return Report(
        environment=environment,
        effect_id=ids["effect_id"],
        token=ids["token"],
        news=News(asked.outcome),
        result_json=result,
        error_json=error,
        lease_seconds=lease_seconds,
        dropped="/result" if result_dropped else "/error" if error_dropped else None,
        traceparent=asked.traceparent if TRACEPARENT.fullmatch(asked.traceparent or "") else None,
    ), []


def kept(value: Any) -> tuple[str | None, bool]:
    """A result, or an error, as it is kept: JSON text, and whether it was too large and is left out."""
    if value is None:
        return None, False
    text = msgspec.json.encode(value)
    if len(text) > RESULT_BYTES_MAX:
        return msgspec.json.encode({"rescind.dropped_bytes": len(text)}).decode(), True
    return (msgspec.json.encode(_without_nul(value)) if keys.holds_nul(text) else text).decode(), False


def _without_nul(value: Any) -> Any:
    """PostgreSQL's jsonb holds no NUL."""
    match value:
        case str():
            return value.replace("\0", "\ufffd")
        case dict():
            return {_without_nul(key): _without_nul(child) for key, child in value.items()}
        case list():
            return [_without_nul(child) for child in value]
        case _:
            return value


def judge(
    report: Report,
    *,
    status: Status,
    begun: bool,
    tombstoned: bool,
    error_code: str | None,
    known: Sequence[Success] = (),
    reference: str = REFERENCE,
    is_current: bool,
    is_dead: bool,
    after_doubt: bool = False,
) -> Change:
    """What the report changes. `is_dead` says that a standing kill covers the effect: given back, it is closed for ever.
    `after_doubt`: an earlier attempt may have acted, so that what this one did not do leaves the effect in doubt (P16).

    `known` are the successes on record, `reference` the field of their results that names what was done.
    """
    state = state_of(status, begun=begun, error_code=error_code, is_current=is_current)
    step = move(state, report.news)
    if step.status is Status.FAILED and after_doubt:
        step = UNPROVEN
    compared = _compared(report, known, reference) if step.compare else Beside.SAME
    second = second_id(report.effect_id, report.token) if compared is Beside.SECOND else None
    evidence = step.evidence or compared is not Beside.SAME
    gives_back = step.status is Status.FAILED and report.news is News.NOT_STARTED
    return Change(
        status=step.status,
        begun=step.begun or begun,
        tombstoned=tombstoned or (gives_back and is_dead),
        result_json=report.result_json if step.status is Status.SUCCEEDED else None,
        error_json=_error(report, step, gives_back),
        evidence_json=_evidence(report, second) if evidence else None,
        extend_seconds=report.lease_seconds if step.extend else None,
        second=second,
    )


def _error(report: Report, step: Move, gives_back: bool) -> str | None:
    if gives_back:
        return msgspec.json.encode({"code": GIVEN_BACK_CODE}).decode()
    return report.error_json if step.status in (Status.FAILED, Status.IN_DOUBT) else None


def _compared(report: Report, known: Sequence[Success], reference: str) -> Beside:
    result = None if report.result_json is None else msgspec.json.decode(report.result_json)
    return beside(str(report.token), result, known, reference)


def _evidence(report: Report, second: UUID | None) -> str:
    entry = {
        "what": "report",
        "token": str(report.token),
        "outcome": report.news.value,
        "result": msgspec.Raw((report.result_json or "null").encode()),
        "error": msgspec.Raw((report.error_json or "null").encode()),
    }
    return msgspec.json.encode(entry if second is None else {**entry, "second_effect": str(second)}).decode()

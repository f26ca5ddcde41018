"""The ledger of a fixture: who may act under which key (P8, P9), in memory.

What a caller meets is what the server's ledger would say; a test of ours asks both the same and compares. Two things are
simpler: leases do not run out, and what a kill takes is undone at once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping

import msgspec
from msgspec import Struct

from rescind.admission import ADMISSION_SECONDS, Admission, Asking
from rescind.clock import Clock
from rescind.errors import Unreachable
from rescind.reports import Outgoing, Reports
from rescind.testing.board import Laid
from rescind.testing.records import RECORDED_MAX, RecordedEffect, recorded
from rescind.transport import AsyncApi
from rescind.wire import AdmitResult, EffectReport, EffectRequest, Kill, Revision

START_WITHIN_MS = 60_000
STATUSES = {"succeeded": "succeeded", "failed": "failed", "unknown": "in_doubt", "not_started": "not_started"}
OPEN = ("admitted", "in_doubt")
"""The right to act is held, or nobody knows."""


class Row(Struct):
    """What is recorded of a key."""

    record: RecordedEffect
    token: str
    epoch: int
    is_off: bool
    is_undone: bool = False


class Refusal(Struct, frozen=True):
    """An answer that a test has asked for."""

    kind: str
    key: str | None
    outcome: str

    def meets(self, request: EffectRequest) -> bool:
        return self.kind == request.kind and self.key in (None, request.key)


class Ledger:
    """Answers asks, takes reports, and keeps the record of both. For any thread."""

    def __init__(self, flags: Mapping[str, Laid]) -> None:
        self._flags = flags
        self._lock = threading.Lock()
        self._rows: dict[tuple[str, str], Row] = {}
        self._by_id: dict[str, Row] = {}
        self._count = 0
        self.refusals: list[Refusal] = []
        self.records: deque[RecordedEffect] = deque(maxlen=RECORDED_MAX)

    def admit(self, request: EffectRequest) -> AdmitResult:
        """The answer to one ask. Raises `Unreachable` where a test has asked for that."""
        with self._lock:
            refusal = next((one for one in reversed(self.refusals) if one.meets(request)), None)
            answer = self._decide(request) if refusal is None else AdmitResult(outcome=refusal.outcome)  # type: ignore[arg-type]
            if answer.outcome != "admitted":
                record = recorded(request, answer.outcome)
                record.id, record.result = answer.effect_id, answer.result
                self.records.append(record)
            if refusal is not None and refusal.outcome == "unreachable":
                raise Unreachable(f"no answer to effect {request.key!r}: the test has asked for it")
            return answer

    def report(self, report: EffectReport) -> None:
        """Take an outcome, or the news that a body did not begin."""
        with self._lock:
            row = self._by_id.get(report.effect_id)
            if row is not None and row.token == report.token and report.outcome in STATUSES:
                row.record.status = STATUSES[report.outcome]
                row.record.result, row.record.error = report.result, report.error

    def undo(self, flag: str, kill: Kill, covers: Callable[[Mapping[str, object]], bool]) -> None:
        """What was done under the epochs that the kill closed is undone."""
        with self._lock:
            for row in self._rows.values():
                record = row.record
                is_its = record.flag == flag and not row.is_off and row.epoch <= kill.closes_epoch
                if is_its and record.status == "succeeded" and covers(record.attributes):
                    row.is_undone = True

    def _decide(self, request: EffectRequest) -> AdmitResult:
        laid = self._flags.get(request.flag)
        flag = laid.effective() if laid is not None else None
        if laid is None or flag is None:
            return AdmitResult(outcome="unknown_flag", error={"detail": f"there is no flag {request.flag!r}"})
        is_off = request.variant == flag.off_variant
        if not is_off and (kill := laid.covers(request.attributes)):
            said = {"off_variant": kill.off_variant, "rollback_id": kill.rollback_id, "epoch": laid.epoch}
            return AdmitResult(outcome="killed", **said)  # type: ignore[arg-type]
        row = self._rows.get((request.kind, request.key))
        is_later = row is not None and (is_off or self._is_later(request, laid, row))
        if row is None or (row.is_undone and is_later):
            return self._admitted(request, laid, is_off, 1)
        return self._met(request, laid, is_off, row)

    def _met(self, request: EffectRequest, laid: Laid, is_off: bool, row: Row) -> AdmitResult:
        """What a caller meets whose key is on record."""
        record = row.record
        is_free = record.status in ("failed", "not_started")
        if canonical(record.payload) != canonical(request.payload) or (record.flag != request.flag and not is_free):
            return AdmitResult(outcome="conflict", effect_id=record.id)
        if record.status in OPEN:
            return AdmitResult(outcome="in_progress", effect_id=record.id, effect_status=record.status)
        if is_free:
            return self._admitted(request, laid, is_off, record.attempt + 1)
        if row.is_undone:
            return AdmitResult(outcome="compensated", effect_id=record.id, compensation="done")
        return AdmitResult(outcome="replayed", effect_id=record.id, epoch=row.epoch, result=record.result)

    def _is_later(self, request: EffectRequest, laid: Laid, row: Row) -> bool:
        """Whether it was evaluated under a later open epoch than what is on record."""
        is_other = row.record.flag != request.flag or laid.epoch > row.epoch
        return is_other and Revision.of(request.revision) >= laid.opened

    def _admitted(self, request: EffectRequest, laid: Laid, is_off: bool, attempt: int) -> AdmitResult:
        before = self._rows.get((request.kind, request.key))
        record = recorded(request, "admitted")
        record.status, record.attempt = "admitted", attempt
        record.id = before.record.id if before is not None and attempt > 1 else self._next_id()
        row = Row(record=record, token=request.token or "", epoch=laid.epoch, is_off=is_off)
        self._rows[request.kind, request.key] = self._by_id[record.id or ""] = row
        self.records.append(record)
        return AdmitResult(
            outcome="admitted",
            effect_id=record.id,
            token=row.token,
            epoch=row.epoch,
            attempt=attempt,
            start_within_ms=START_WITHIN_MS,
        )

    def _next_id(self) -> str:
        """A UUID in form, the same in every run."""
        self._count += 1
        return f"00000000-0000-7000-8000-{self._count:012}"


def canonical(value: object) -> bytes:
    """Equal for equal documents."""
    return msgspec.json.encode(value, order="deterministic")


class LedgerAdmission(Admission):
    """Asks a fixture's ledger, which answers at once."""

    def __init__(self, api: AsyncApi, clock: Clock, instance: str, ledger: Ledger) -> None:
        super().__init__(api, clock, instance)
        self._time = clock
        self._ledger = ledger

    async def ask(self, asking: Asking, seconds: float = ADMISSION_SECONDS, *, once: bool = False) -> AdmitResult:
        """The ledger's answer."""
        asking.asked_at = self._time.monotonic()
        return self._ledger.admit(asking.request)


class LedgerReports(Reports):
    """Tells a fixture's ledger."""

    def __init__(self, api: AsyncApi, clock: Clock, instance: str, ledger: Ledger) -> None:
        super().__init__(api, clock, instance)
        self._ledger = ledger

    def submit(self, report: EffectReport) -> Outgoing:
        """It has arrived."""
        self._ledger.report(report)
        return Outgoing(report, None)

    async def deliver(self, outgoing: Outgoing) -> None:
        """It has."""

    async def say(self, report: EffectReport) -> None:
        """News of a body."""
        self._ledger.report(report)

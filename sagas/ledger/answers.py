"""What an asker is told: the decision in the words of the wire, with all that is known of the key."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from rescind.wire import AdmitResult, ReportResult

from sagas.core import admission, keys
from sagas.core.admission import START_WINDOW_MS, Decision, Fence
from sagas.core.asks import Ask
from sagas.core.keys import Verb
from sagas.core.proceeded import Proceeded
from sagas.core.reports import Report


def admitted(effect_id: UUID, token: UUID, epoch: int, attempt: int) -> AdmitResult:
    """The permission to start, which runs out after the start window."""
    return AdmitResult(
        outcome="admitted",
        effect_id=str(effect_id),
        token=str(token),
        epoch=epoch,
        attempt=attempt,
        start_within_ms=START_WINDOW_MS,
    )


def refused(decision: Decision, fence: Fence) -> AdmitResult:
    """What is said to whoever is not let in now, with all that is known of the key."""
    recorded = decision.recorded
    rollback_id = decision.verdict.rollback_id
    killed = decision.verb is Verb.KILLED
    off_variant = fence.off_variant if killed else None
    rollback = str(rollback_id) if killed and rollback_id else None
    if recorded is None:
        assert killed, "only a kill refuses a key that was never used"
        return AdmitResult(outcome="killed", epoch=fence.epoch, off_variant=off_variant, rollback_id=rollback)
    if decision.verb is Verb.REPEAT:
        return admitted(recorded.effect_id, recorded.token, recorded.epoch, recorded.attempt)
    now = keys.standing(recorded)
    waits = decision.verb is Verb.IN_PROGRESS and recorded.lease_left_ms > 0 and now is not keys.Standing.IN_DOUBT
    says_more = decision.verb in (Verb.KILLED, Verb.COMPENSATED, Verb.TOMBSTONED)
    shows_result = decision.verb is Verb.REPLAYED or (killed and recorded.status == "succeeded")
    return AdmitResult(
        outcome=decision.verb.value,  # type: ignore[arg-type] # the verbs that do not write are the wire's words
        effect_id=str(recorded.effect_id),
        epoch=recorded.epoch,
        attempt=recorded.attempt,
        result=recorded.result if shows_result else None,
        effect_status="in_doubt" if now is keys.Standing.IN_DOUBT else recorded.status.value,
        compensation=keys.compensation_word(recorded) if says_more else None,
        off_variant=off_variant,
        rollback_id=rollback,
        retry_after_ms=recorded.lease_left_ms if waits else None,
    )


def unknown_flag(ask: Ask, names: Sequence[str]) -> AdmitResult:
    """The flag is not known; perhaps one of these names was meant."""
    suggestion = admission.closest(ask.flag, names)
    error = {"code": "unknown_flag", "detail": f"there is no flag {ask.flag!r} in {ask.environment!r}", "pointer": "/flag"}
    return AdmitResult(outcome="unknown_flag", error={**error, "suggestion": suggestion} if suggestion else error)


def not_admitted(ask: Ask, error: Exception) -> AdmitResult:
    """The ask was well formed as far as we can tell, and could not be written, not even alone."""
    return AdmitResult(outcome="invalid", error=_cannot_be_kept(f"effect {ask.key!r}", error))


def not_recorded(report: Report, error: Exception) -> ReportResult:
    """The same for a report: whoever sent it keeps it (P11)."""
    return ReportResult(outcome="invalid", error=_cannot_be_kept(f"the outcome of effect {report.effect_id}", error))


def not_taken(told: Proceeded, error: Exception) -> ReportResult:
    """The same for an effect that was begun without the server."""
    return ReportResult(outcome="invalid", error=_cannot_be_kept(f"effect {told.ask.key!r}", error))


def _cannot_be_kept(what: str, error: Exception) -> dict[str, object]:
    return {"code": "cannot_be_kept", "detail": f"{what} cannot be written: {type(error).__name__}", "pointer": ""}

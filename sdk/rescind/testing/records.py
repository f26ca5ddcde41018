"""What a fixture has seen: evaluations and effects, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from msgspec import Struct

from rescind.evaluation import Evaluator, Resolution
from rescind.wire import EffectRequest, SagaReference

RECORDED_MAX = 100_000
"""Of each; the oldest go first."""


class RecordedEvaluation(Struct, frozen=True, kw_only=True):
    """One evaluation that the code under test has made."""

    key: str
    value: Any
    variant: str | None
    reason: str
    context: dict[str, Any]
    error_code: str | None = None


class RecordedOutcome(Struct, frozen=True, kw_only=True):
    """What the code under test said that a variant led to (`client.track`)."""

    flag: str
    variant: str
    """Empty where none was served."""
    ok: bool
    duration_ms: float | None


class RecordedEffect(Struct, kw_only=True):
    """One ask for an effect, what it was answered, and what became of it."""

    kind: str
    key: str
    flag: str
    variant: str | None
    payload: dict[str, Any]
    subject: str | None
    attributes: dict[str, Any]
    saga: SagaReference | None
    step: str | None
    outcome: str
    """admitted, replayed, in_progress, killed, conflict, compensated, tombstoned, unknown_flag, invalid, unreachable"""
    id: str | None = None
    attempt: int = 1
    status: str | None = None
    """Of what was admitted: admitted while the body runs, then succeeded, failed (proven not done), in_doubt, not_started."""
    result: Any = None
    error: dict[str, Any] | None = None


def recorded(request: EffectRequest, outcome: str) -> RecordedEffect:
    """The record of an ask."""
    return RecordedEffect(
        kind=request.kind,
        key=request.key,
        flag=request.flag,
        variant=request.variant,
        payload=request.payload,
        subject=request.subject,
        attributes=request.attributes,
        saga=request.saga,
        step=request.step,
        outcome=outcome,
    )


class Recording:
    """An evaluator that tells `note` what it is asked. It decides nothing itself."""

    served: Final[Mapping[str, Any]] = MappingProxyType({})
    """Nothing is answered past `boolean` and `evaluate`."""

    def __init__(self, evaluator: Evaluator, note: Callable[[RecordedEvaluation], None]) -> None:
        self._evaluator = evaluator
        self._note = note

    def __getattr__(self, name: str) -> Any:
        return getattr(self._evaluator, name)

    def boolean(self, key: str, default: bool, context: Mapping[str, Any] | None = None) -> bool:
        """As `evaluate`."""
        value: bool = self.evaluate(key, context, default, "boolean").value
        return value

    def evaluate(self, key: str, context: Mapping[str, Any] | None, default: Any, kind: str = "any") -> Resolution:
        """The evaluator's own answer. What an effect looks up for itself ("any") is nobody's evaluation."""
        resolution = self._evaluator.evaluate(key, context, default, kind)
        if kind != "any":
            self._note(
                RecordedEvaluation(
                    key=key,
                    value=resolution.value,
                    variant=resolution.variant,
                    reason=str(resolution.reason),
                    context=dict(context) if isinstance(context, Mapping) else {},
                    error_code=None if resolution.error_code is None else str(resolution.error_code),
                )
            )
        return resolution

    def updated(self, changed: Mapping[str, Any], removed: Iterable[str] = (), revision: Any = None) -> Recording:
        """The next snapshot's, which tells the same."""
        return Recording(self._evaluator.updated(changed, removed, revision), self._note)

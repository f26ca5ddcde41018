"""OpenTelemetry's view of evaluations: the event `feature_flag.evaluation` (semantic conventions for feature flags).

Without a logger provider in the process every emission is skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import FlagEvaluationDetails, FlagValueType, Reason
from openfeature.hook import Hook, HookContext, HookHints
from openfeature.telemetry import TelemetryFlagMetadata
from opentelemetry import _logs as logs

from rescind.openfeature.resolution import ERROR_CODE
from rescind.version import __version__

SCOPE: Final = "rescind.openfeature"
EVALUATION_EVENT: Final = "feature_flag.evaluation"
TRACKING_EVENT: Final = "rescind.tracking"
TEXT_MAX: Final = 256
ATTRIBUTES_MAX: Final = 32


class TelemetryHook(Hook):
    """Emits one `feature_flag.evaluation` event per evaluation; add it to the API, a client, or a call.

    Names follow the semantic conventions: `feature_flag.key`, `.provider.name`, `.result.variant`, `.result.reason`,
    `.set.id`, `.version`, `.context.id`, `.error.message` and `error.type`. The value stands in `feature_flag.result.value`
    where there is no variant, and always with `value=True`: values may be large or private, so texts are cut at 256
    characters and objects are not sent. `context_id=False` leaves the targeting key out.
    """

    def __init__(
        self, *, value: bool = False, context_id: bool = True, logger_provider: logs.LoggerProvider | None = None
    ) -> None:
        """`logger_provider`: left out, the process's own, also one that is set later."""
        self._value = value
        self._context_id = context_id
        self._logger = logger_of(logger_provider)

    def finally_after(self, hook_context: HookContext, details: FlagEvaluationDetails[FlagValueType], hints: HookHints) -> None:
        """Emit the event, whatever the evaluation's end was."""
        if self._logger.enabled(event_name=EVALUATION_EVENT):
            attributes = evaluation_attributes(hook_context, details, value=self._value, context_id=self._context_id)
            self._logger.emit(event_name=EVALUATION_EVENT, attributes=attributes)


def logger_of(logger_provider: logs.LoggerProvider | None) -> logs.Logger:
    """The logger of these events."""
    return logs.get_logger(SCOPE, __version__, logger_provider)


def evaluation_attributes(
    hook_context: HookContext, details: FlagEvaluationDetails[Any], *, value: bool = False, context_id: bool = True
) -> dict[str, Any]:
    """The event's attributes, by the names of the semantic conventions."""
    metadata = details.flag_metadata
    attributes: dict[str, Any] = {
        "feature_flag.key": details.flag_key,
        "feature_flag.result.reason": str(details.reason or Reason.UNKNOWN).lower(),
    }
    if details.variant is not None:
        attributes["feature_flag.result.variant"] = details.variant
    if (value or details.variant is None) and (short := scalar(details.value)) is not None:
        attributes["feature_flag.result.value"] = short
    if hook_context.provider_metadata is not None:
        attributes["feature_flag.provider.name"] = hook_context.provider_metadata.name
    if context_id:
        key = metadata.get(TelemetryFlagMetadata.CONTEXT_ID) or hook_context.evaluation_context.targeting_key
        if key is not None:
            attributes["feature_flag.context.id"] = str(key)
    for name, known in (("feature_flag.set.id", "flagSetId"), ("feature_flag.version", "version")):
        if (found := metadata.get(known)) is not None:
            attributes[name] = str(found)
    code = details.error_code or metadata.get(ERROR_CODE) or (ErrorCode.GENERAL if details.reason == Reason.ERROR else None)
    if code is not None:
        attributes["error.type"] = str(code).lower()
        if details.error_message:
            attributes["feature_flag.error.message"] = details.error_message[:TEXT_MAX]
    return attributes


def emit_tracking(
    logger: logs.Logger, provider: str, name: str, context_id: str | None, value: float | None, attributes: Mapping[str, Any]
) -> None:
    """Emit the event `rescind.tracking`; of the attributes the first 32 that are plain values."""
    if not logger.enabled(event_name=TRACKING_EVENT):
        return
    told: dict[str, Any] = {"rescind.tracking.name": name, "feature_flag.provider.name": provider}
    if context_id is not None:
        told["feature_flag.context.id"] = context_id
    if value is not None:
        told["rescind.tracking.value"] = float(value)
    plain = ((key, short) for key, given in attributes.items() if (short := scalar(given)) is not None)
    told.update((f"rescind.tracking.attribute.{key}", short) for key, short in islice(plain, ATTRIBUTES_MAX))
    logger.emit(event_name=TRACKING_EVENT, attributes=told)


def scalar(value: Any) -> str | bool | int | float | None:
    """A value that an attribute may carry, texts cut; None for anything else."""
    if isinstance(value, str):
        return str(value)[:TEXT_MAX]
    return value if isinstance(value, bool | int | float) else None

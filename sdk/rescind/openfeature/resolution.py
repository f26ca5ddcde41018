"""From Rescind's answer to OpenFeature's resolution details."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import FlagResolutionDetails, Reason

from rescind.context import Evaluates
from rescind.evaluation.resolution import Resolution

SET_ID: Final = "flagSetId"
VERSION: Final = "version"
ERROR_CODE: Final = "rescind.error_code"
"""Flag metadata: why the off variant was served for a definition that this version cannot read."""

_REASONS: Final[Mapping[str, Reason]] = {reason.value: reason for reason in Reason}
_CODES: Final[Mapping[str, ErrorCode]] = {code.value: code for code in ErrorCode}


def details_of(resolution: Resolution, evaluator: Evaluates | None) -> FlagResolutionDetails[Any]:
    """Value, variant, reason, error code and metadata; the metadata names environment and revision.

    OpenFeature's client replaces the value of an error by the caller's default. Where a definition cannot be read the value
    is the off variant's and must stay (P6): it goes out with reason ERROR, its message, and the code as metadata.
    """
    code = resolution.error_code
    metadata = metadata_of(resolution.metadata, evaluator)
    if code is not None and resolution.variant is not None:
        metadata[ERROR_CODE] = str(code)
        code = None
    return FlagResolutionDetails(
        value=resolution.value,
        error_code=None if code is None else _CODES.get(code, ErrorCode.GENERAL),
        error_message=resolution.error_details,
        reason=_REASONS.get(resolution.reason, Reason.UNKNOWN),
        variant=resolution.variant,
        flag_metadata=metadata,
    )


def metadata_of(own: Mapping[str, Any], evaluator: Evaluates | None) -> dict[str, Any]:
    """The flag's metadata, under it `flagSetId`, the environment, and `version`, the revision that answered."""
    if evaluator is None:
        return dict(own)
    environment = getattr(evaluator, "environment", "")
    below = {SET_ID: environment} if environment else {}
    return {**below, VERSION: str(evaluator.revision), **own}

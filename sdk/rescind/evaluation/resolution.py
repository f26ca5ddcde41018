"""The answer of an evaluation: value, variant, and why (OpenFeature's resolution details)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal

from msgspec import UNSET, Struct

from rescind.evaluation.limits import SAFE_INTEGER

Kind = Literal["boolean", "string", "integer", "float", "object", "any"]

NO_METADATA: Final[Mapping[str, Any]] = MappingProxyType({})


class Reason(StrEnum):
    """Why this value: OpenFeature's own set."""

    STATIC = "STATIC"
    """The flag has no targeting, or is killed."""
    DEFAULT = "DEFAULT"
    """Targeting decided nothing: the default variant, or the caller's default where the flag names none."""
    TARGETING_MATCH = "TARGETING_MATCH"
    SPLIT = "SPLIT"
    """A `fractional` chose the variant."""
    DISABLED = "DISABLED"
    """A success: the caller's default."""
    STALE = "STALE"
    """The snapshot is older than the flag or the request allows: the off variant."""
    ERROR = "ERROR"


class ErrorCode(StrEnum):
    """OpenFeature's error codes."""

    FLAG_NOT_FOUND = "FLAG_NOT_FOUND"
    TYPE_MISMATCH = "TYPE_MISMATCH"
    PARSE_ERROR = "PARSE_ERROR"
    """This version cannot read the definition (an operator it does not know): the value is the off variant's."""
    GENERAL = "GENERAL"
    """A known rule failed: the value is the caller's default."""
    PROVIDER_NOT_READY = "PROVIDER_NOT_READY"
    TARGETING_KEY_MISSING = "TARGETING_KEY_MISSING"


class Resolution(Struct, frozen=True, dict=True):
    """One evaluation's answer. `metadata` is read only: the flag set's, with the flag's laid over it.

    `variant` is null where the value is the caller's default. `error_code` and `error_details` come with reason ERROR only.
    """

    tally: ClassVar[Iterable[object]] = ()
    """No part of the answer. Whoever counts evaluations puts a counter over it on a prepared one (`__dict__`); a step of
    iterating over it is one evaluation."""
    value: Any
    variant: str | None = None
    reason: str = Reason.STATIC
    error_code: str | None = None
    error_details: str | None = None
    metadata: Mapping[str, Any] = NO_METADATA


def error(code: ErrorCode, detail: str, metadata: Mapping[str, Any] = NO_METADATA) -> Resolution:
    """A resolution that gives the caller's default, once `fit` has put it in."""
    return Resolution(UNSET, None, Reason.ERROR, code, detail, metadata)


def fit(outcome: Resolution, default: Any, kind: str) -> Resolution:
    """`outcome` for a caller who asks for a `kind`: with the default where no value was decided, and of the right type.

    Numbers are converted where nothing is lost (10.0 is an integer, 10 a float), by flagd's numeric coercion contract;
    anything else of another type is TYPE_MISMATCH with the caller's default.
    """
    value = outcome.value
    if value is UNSET:
        return _replaced(outcome, default, outcome.variant)
    match kind:
        case "any":
            fits = True
        case "boolean":
            fits = value is True or value is False
        case "string":
            fits = isinstance(value, str)
        case "integer" | "float":
            return _fit_number(outcome, default, kind)
        case "object":
            fits = isinstance(value, dict | list)
        case _:
            fits = False
    if not fits:
        return _mismatch(outcome, default, kind)
    if isinstance(value, dict | list):
        return _replaced(outcome, copied(value), outcome.variant)
    return outcome


def _fit_number(outcome: Resolution, default: Any, kind: str) -> Resolution:
    value = outcome.value
    if not isinstance(value, int | float) or isinstance(value, bool):
        return _mismatch(outcome, default, kind)
    if not -SAFE_INTEGER <= value <= SAFE_INTEGER:
        detail = "the variant's value is beyond 2^53 - 1"
        return Resolution(default, None, Reason.ERROR, ErrorCode.PARSE_ERROR, detail, outcome.metadata)
    if kind == "float":
        return outcome if isinstance(value, float) else _replaced(outcome, float(value), outcome.variant)
    if isinstance(value, int):
        return outcome
    return _replaced(outcome, int(value), outcome.variant) if value.is_integer() else _mismatch(outcome, default, kind)


def _mismatch(outcome: Resolution, default: Any, kind: str) -> Resolution:
    detail = f"the variant's value is not of type {kind}"
    return Resolution(default, None, Reason.ERROR, ErrorCode.TYPE_MISMATCH, detail, outcome.metadata)


def _replaced(outcome: Resolution, value: Any, variant: str | None) -> Resolution:
    return Resolution(value, variant, outcome.reason, outcome.error_code, outcome.error_details, outcome.metadata)


def copied(value: Any) -> Any:
    """A copy of a JSON value: callers may change what they get, and a snapshot is immutable."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copied(item) for item in value]
    return value

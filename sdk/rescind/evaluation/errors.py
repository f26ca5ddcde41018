"""What goes wrong in this package, and what a refused document is told.

    EvaluationError
    ├── UnreadableError     a definition, or a part of one, that this version cannot compile: the off variant (P6)
    └── RuleError     a known rule that failed while it ran: the caller's default (P6)
        └── KeyMissingError     it splits by the targeting key, and there is none; raised only where that was asked for

None of them leaves `Evaluator`: it turns them into a `Resolution` with a reason and a code.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class FaultCode(StrEnum):
    """Why a part of a definition is refused. These never change; new ones may be added."""

    WRONG_TYPE = "wrong_type"
    MISSING = "missing"
    UNKNOWN_PROPERTY = "unknown_property"
    UNKNOWN_VARIANT = "unknown_variant"
    UNKNOWN_OPERATOR = "unknown_operator"
    UNKNOWN_EVALUATOR = "unknown_evaluator"
    NESTED_REFERENCE = "nested_reference"
    WRONG_ARGUMENTS = "wrong_arguments"
    OUT_OF_RANGE = "out_of_range"
    MIXED_TYPES = "mixed_types"
    DUPLICATE = "duplicate"
    TOO_DEEP = "too_deep"
    TOO_LARGE = "too_large"
    TOO_MANY_FAULTS = "too_many_faults"


class Fault(Struct, frozen=True):
    """One fault of a refused document. `pointer` is an RFC 6901 JSON pointer into it, `detail` says what would be right."""

    pointer: str
    detail: str
    code: str = "invalid"


class EvaluationError(Exception):
    """Root of this package's errors."""


class UnreadableError(EvaluationError):
    """A definition that this version cannot compile: an unknown operator, a dangling reference, a limit exceeded."""

    def __init__(self, code: FaultCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class RuleError(EvaluationError):
    """A known rule reached one of the limits of an evaluation, or gave something that is no variant."""


class KeyMissingError(RuleError):
    """A `fractional` splits by the targeting key, and the context has none."""

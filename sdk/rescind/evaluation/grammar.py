"""What flagd's targeting schema says of each operator: how many arguments it takes, and of which form.

The source is targeting.json of open-feature/flagd-schemas (Apache-2.0). Where JsonLogic lets a single argument stand without
a list, or a rule stand for a constant, so does this.
"""

from __future__ import annotations

import re
from typing import Any, Final

from rescind.evaluation.frame import is_rule
from rescind.evaluation.semver import OPERATORS

ARGUMENTS: Final[dict[str, tuple[int, int | None]]] = {
    "missing": (0, None),
    "missing_some": (2, 2),
    "substr": (2, 3),
    "<": (2, 3),
    "<=": (2, 3),
    ">": (2, 2),
    ">=": (2, 2),
    "==": (2, 2),
    "===": (2, 2),
    "!=": (2, 2),
    "!==": (2, 2),
    "%": (2, 2),
    "/": (2, 2),
    "*": (2, None),
    "+": (1, None),
    "-": (1, None),
    "max": (1, None),
    "min": (1, None),
    "merge": (1, None),
    "cat": (1, None),
    "if": (1, None),
    "?:": (1, None),
    "or": (1, None),
    "and": (1, None),
    "!": (1, 1),
    "!!": (1, 1),
    "in": (2, 2),
    "map": (2, 2),
    "filter": (2, 2),
    "all": (2, 2),
    "none": (2, 2),
    "some": (2, 2),
    "reduce": (3, 3),
    "starts_with": (2, 2),
    "ends_with": (2, 2),
    "sem_ver": (3, 3),
    "var": (1, 2),
}
"""Operator: the least and the most arguments. `fractional` and `$ref` have forms of their own."""

KNOWN: Final = (*ARGUMENTS, "fractional", "$ref")

_VERSION: Final = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?",
    re.ASCII,
)
_FLAGD_PROPERTIES: Final = ("$flagd.flagKey", "$flagd.timestamp")
_VERSION_MAX: Final = 256


def argument_fault(operator: str, index: int, value: Any) -> str | None:
    """What is wrong with the constant at `index`, or None. A rule is right everywhere but as an operator of `sem_ver`."""
    match operator:
        case "starts_with" | "ends_with":
            return None if isinstance(value, str) or is_rule(value) else "has to be a string or a rule"
        case "sem_ver" if index == 1:
            known = isinstance(value, str) and value in OPERATORS
            return None if known else f"has to be one of {' '.join(OPERATORS)}"
        case "sem_ver":
            return None if is_rule(value) or _is_version(value) else "has to be a semantic version or a rule"
        case "var" if index == 0:
            return _var_fault(value)
    return None


def _is_version(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _VERSION_MAX and _VERSION.fullmatch(value) is not None


def _var_fault(key: Any) -> str | None:
    if isinstance(key, str):
        if key.startswith("$flagd.") and key not in _FLAGD_PROPERTIES:
            return f"flagd has no such property; there are {' and '.join(_FLAGD_PROPERTIES)}"
        return None
    if key is None or is_rule(key) or (isinstance(key, int) and not isinstance(key, bool)):
        return None
    return "has to be the path of an attribute"

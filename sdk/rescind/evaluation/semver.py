"""`sem_ver`: semantic versions (semver.org 2.0.0) and the operators flagd gives them.

As in flagd's cores, a leading "v" is dropped and "1" and "1.2" are read as "1.0.0" and "1.2.0".
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from rescind.evaluation.limits import VERSION_MAX
from rescind.evaluation.values import text

OPERATORS: Final = ("=", "!=", ">", "<", ">=", "<=", "~", "^")

_VERSION: Final = re.compile(
    r"(0|[1-9]\d*)(?:\.(0|[1-9]\d*))?(?:\.(0|[1-9]\d*))?"
    r"(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?",
    re.ASCII,
)

Version = tuple[int, int, int, tuple[tuple[int, int, str], ...]]
_RELEASE: Final = ((2, 0, ""),)


def parse(value: Any) -> Version | None:
    """`value` as a version that compares by precedence, or None where it is none."""
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return None
    source = text(value)
    return _parse(source) if len(source) <= VERSION_MAX else None


@lru_cache(maxsize=1024)
def _parse(source: str) -> Version | None:
    found = _VERSION.fullmatch(source[1:] if source[:1] in ("v", "V") else source)
    if found is None:
        return None
    major, minor, patch, pre = found.groups()
    return int(major), int(minor or 0), int(patch or 0), _precedence(pre) if pre else _RELEASE


def _precedence(pre: str) -> tuple[tuple[int, int, str], ...]:
    """Numeric identifiers come before alphanumeric ones, and any pre-release before the release."""
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in pre.split("."))


def sem_ver(value: Any, operator: Any, other: Any) -> bool | None:
    """Whether `value` stands to `other` as `operator` says; None where one of the three cannot be read.

    >>> sem_ver("1.2.3", "^", "1.0.0")
    True
    """
    left, right = parse(value), parse(other)
    if left is None or right is None:
        return None
    match operator:
        case "=":
            return left == right
        case "!=":
            return left != right
        case ">":
            return left > right
        case "<":
            return left < right
        case ">=":
            return left >= right
        case "<=":
            return left <= right
        case "^":
            return left[0] == right[0]
        case "~":
            return left[:2] == right[:2]
    return None

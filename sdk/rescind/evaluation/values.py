"""How JsonLogic sees JSON values: truth, numbers, text, equality, order. The rules are ECMAScript's, which JsonLogic names.

Values come from definitions and from callers' contexts, so anything may turn up: what is no JSON value is true, is not a
number, and equals nothing. Nothing here raises for any value.

The released Python core of flagd differs from the standard in places; there this package keeps to the standard, as the
cores in Go, Java and JavaScript do: `true === 1` is false, "" and " " are 0, `-5 % 3` is -2, a division by zero is infinite.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from enum import Enum
from operator import ge, gt, le, lt
from typing import Any, Final

from rescind.evaluation.errors import RuleError
from rescind.evaluation.limits import NUMERAL_MAX, SAFE_INTEGER, TEXT_MAX

NAN: Final = float("nan")

_DECIMAL: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_PREFIXED: Final = re.compile(r"0(?:[xX][0-9a-fA-F]+|[oO][0-7]+|[bB][01]+)", re.ASCII)
_INFINITE: Final = {"Infinity": math.inf, "+Infinity": math.inf, "-Infinity": -math.inf}
_LIST_DEPTH_MAX: Final = 20


def truthy(value: Any) -> bool:
    """JsonLogic's truth: null, false, 0, NaN, "" and [] are false, everything else is true, {} and "0" as well."""
    if value is None or value is False:
        return False
    if isinstance(value, int | str | list | tuple):
        return bool(value)
    if isinstance(value, float):
        return value == value and value != 0.0
    return True


def plain(value: float) -> int | float:
    """`value` as a JSON number: an integer beyond 2^53 becomes a double, as it is for every other reader of JSON."""
    if isinstance(value, int) and not -SAFE_INTEGER <= value <= SAFE_INTEGER:
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    return value


def number(value: Any) -> int | float:
    """ECMAScript's ToNumber: null is 0, "" is 0, "12" is 12, "x" is NaN, [5] is 5, {} is NaN."""
    for _ in range(_LIST_DEPTH_MAX):
        if isinstance(value, bool):
            return int(value)
        if isinstance(value, int | float):
            return plain(value)
        if value is None:
            return 0
        if isinstance(value, str):
            return _numeral(value)
        if not isinstance(value, list | tuple):
            return NAN
        if len(value) != 1:
            return NAN if value else 0
        value = value[0]
    return NAN


def _numeral(source: str) -> int | float:
    if len(source) > NUMERAL_MAX:
        return NAN
    stripped = source.strip()
    if not stripped:
        return 0
    if _DECIMAL.fullmatch(stripped):
        if stripped.isdecimal() and len(stripped) <= 15:
            return int(stripped)
        value = float(stripped)
        return int(value) if value.is_integer() and -SAFE_INTEGER <= value <= SAFE_INTEGER else value
    if _PREFIXED.fullmatch(stripped):
        return plain(int(stripped, 0))
    return _INFINITE.get(stripped, NAN)


def text(value: Any, depth: int = 0) -> str:
    """ECMAScript's ToString: 1.0 is "1", [1, null, "a"] is "1,,a", {} is "[object Object]"."""
    if isinstance(value, str):
        return str(value.value) if isinstance(value, Enum) else value
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, int):
        return text(plain(value)) if not -SAFE_INTEGER <= value <= SAFE_INTEGER else str(int(value))
    if isinstance(value, float):
        return _float_text(value)
    if isinstance(value, list | tuple) and depth < _LIST_DEPTH_MAX:
        return bounded(",".join("" if item is None else text(item, depth + 1) for item in value))
    return "[object Object]"


def _float_text(value: float) -> str:
    """By ECMAScript's Number::toString: the shortest digits that read back, an exponent from 1e21 and below 1e-6."""
    if not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    mantissa, exponent, power = repr(value).partition("e")
    if not exponent:
        return mantissa
    if abs(value) >= 1e-6 and int(power) < 0:
        return _expanded(mantissa, int(power))
    return f"{mantissa}e{int(power):+d}"


def _expanded(mantissa: str, power: int) -> str:
    """1.25 and -5 without the exponent: `0.0000125`."""
    sign = "-" if mantissa.startswith("-") else ""
    digits = mantissa.lstrip("-").replace(".", "")
    return f"{sign}0.{'0' * (-power - 1)}{digits}"


def bounded(built: str) -> str:
    """`built`, a string that a rule made. Raises `RuleError` beyond `TEXT_MAX`."""
    if len(built) > TEXT_MAX:
        raise RuleError("a rule built too long a string")
    return built


def strictly_equal(a: Any, b: Any) -> bool:
    """`===`: the same JSON type and value. 1 and 1.0 are one number, true and 1 are not; containers compare by content."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, int | float | str | list | tuple | dict) or a is None:
        try:
            return bool(a == b)
        except Exception:  # a context value with a comparison of its own, or one nested too deep
            return False
    return a is b


def loosely_equal(a: Any, b: Any) -> bool:
    """`==`: ECMAScript's loose equality, where "1" equals 1 and true equals 1, and null equals only null."""
    if a is None or b is None:
        return a is b
    a_number, b_number = isinstance(a, int | float), isinstance(b, int | float)
    if a_number and b_number:
        return bool(a == b)
    if isinstance(a, str) and isinstance(b, str):
        return bool(a == b)
    a_object, b_object = not a_number and not isinstance(a, str), not b_number and not isinstance(b, str)
    if a_object and b_object:
        return a is b
    if a_object and not isinstance(b, bool | int | float):
        return bool(text(a) == b)
    if b_object and not isinstance(a, bool | int | float):
        return bool(a == text(b))
    return number(_primitive(a)) == number(_primitive(b))


def _primitive(value: Any) -> Any:
    return value if value is None or isinstance(value, int | float | str) else text(value)


def _compare(order: Callable[[Any, Any], bool], a: Any, b: Any) -> bool:
    a, b = _primitive(a), _primitive(b)
    if isinstance(a, str) and isinstance(b, str):
        return order(a, b)
    return order(number(a), number(b))


def less(a: Any, b: Any) -> bool:
    """`<`: by code point between two strings, by number otherwise; false where one is not a number."""
    return _compare(lt, a, b)


def less_or_equal(a: Any, b: Any) -> bool:
    return _compare(le, a, b)


def greater(a: Any, b: Any) -> bool:
    return _compare(gt, a, b)


def greater_or_equal(a: Any, b: Any) -> bool:
    return _compare(ge, a, b)

"""JsonLogic's operators at run time, over arguments that are already evaluated. None raises but for a limit (`RuleError`).

`CALLS` holds those that compiled code calls as they are; the compiler writes the others itself (control flow, equality,
order), and the loops over lists get their inner rule as a function.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from rescind.evaluation.errors import RuleError
from rescind.evaluation.limits import ITEMS_MAX
from rescind.evaluation.semver import sem_ver
from rescind.evaluation.values import NAN, bounded, number, plain, strictly_equal, text, truthy

Rule = Callable[[Any, Any], Any]
"""A compiled inner rule: (item, budget) -> value."""
Budget = list[int]
"""One cell: how many more items this evaluation may visit."""


def _sum(total: float, term: float) -> int | float:
    return plain(total + term)


def add(*terms: Any) -> int | float:
    total: int | float = 0
    for term in terms:
        total = _sum(total, number(term))
    return total


def multiply(*factors: Any) -> int | float:
    product: int | float = 1
    for factor in factors:
        product = plain(product * number(factor))
    return product


def negate(value: Any = None, *_: Any) -> int | float:
    return -number(value)


def subtract(a: Any, b: Any, *_: Any) -> int | float:
    return _sum(number(a), -number(b))


def divide(a: Any = None, b: Any = None, *_: Any) -> int | float:
    """By zero: infinite, or NaN for 0 / 0."""
    dividend, divisor = number(a), number(b)
    if divisor == 0:
        if dividend == 0 or dividend != dividend:
            return NAN
        return math.copysign(math.inf, dividend) * math.copysign(1.0, divisor)
    quotient = dividend / divisor
    return int(quotient) if quotient.is_integer() and isinstance(plain(int(quotient)), int) else quotient


def remainder(a: Any = None, b: Any = None, *_: Any) -> int | float:
    """With the sign of the dividend, as ECMAScript has it; NaN by zero."""
    dividend, divisor = number(a), number(b)
    if divisor == 0 or not math.isfinite(dividend) or divisor != divisor:
        return NAN
    if isinstance(dividend, int) and isinstance(divisor, int):
        return abs(dividend) % abs(divisor) * (-1 if dividend < 0 else 1)
    return math.fmod(dividend, divisor)


def maximum(*values: Any) -> int | float:
    return _extreme(max, values)


def minimum(*values: Any) -> int | float:
    return _extreme(min, values)


def _extreme(choose: Callable[[list[int | float]], int | float], values: tuple[Any, ...]) -> int | float:
    numbers = [number(value) for value in values]
    if not numbers or any(value != value for value in numbers):
        return NAN
    return choose(numbers)


def cat(*parts: Any) -> str:
    """Joined as text. Null gives nothing, as in ECMAScript's `join`; the Python core of flagd writes "null"."""
    return bounded("".join(["" if part is None else text(part) for part in parts]))


def substr(source: Any = None, start: Any = None, length: Any = None, *_: Any) -> str:
    """From `start` (from the end when negative); `length` characters, or up to so many before the end when negative."""
    whole = text(source)
    size = len(whole)
    begin = _position(start)
    begin = max(0, size + begin) if begin < 0 else min(begin, size)
    if length is None:
        return whole[begin:]
    span = _position(length)
    return whole[begin : max(begin, size + span)] if span < 0 else whole[begin : begin + span]


def _position(value: Any) -> int:
    place = number(value)
    if place != place:
        return 0
    return int(max(-ITEMS_MAX * 100, min(place, ITEMS_MAX * 100)))


def merge(*lists: Any) -> list[Any]:
    merged: list[Any] = []
    for item in lists:
        if isinstance(item, list | tuple):
            merged.extend(item)
        else:
            merged.append(item)
        if len(merged) > ITEMS_MAX:
            raise RuleError("a rule built too long a list")
    return merged


def contains(needle: Any = None, haystack: Any = None, *_: Any) -> bool:
    """`in`: an element of a list (strictly equal), or a part of a string."""
    if isinstance(haystack, list | tuple):
        return any(strictly_equal(needle, item) for item in haystack)
    return isinstance(haystack, str) and text(needle) in haystack


def starts_with(value: Any, start: Any) -> bool | None:
    return value.startswith(start) if isinstance(value, str) and isinstance(start, str) else None


def ends_with(value: Any, end: Any) -> bool | None:
    return value.endswith(end) if isinstance(value, str) and isinstance(end, str) else None


def identity(value: Any = None, *_: Any) -> Any:
    """`log` without the log: an evaluation writes nothing."""
    return value


def _visited(items: Any, budget: Budget, cost: int) -> list[Any] | tuple[Any, ...]:
    """`items` where it is a list, taken from the budget of this evaluation; each counts `cost` times."""
    if not isinstance(items, list | tuple):
        return ()
    budget[0] -= len(items) * cost
    if budget[0] < 0:
        raise RuleError("the rule visits too many items")
    return items


def map_items(items: Any, rule: Rule, budget: Budget, cost: int) -> list[Any]:
    return [rule(item, budget) for item in _visited(items, budget, cost)]


def filter_items(items: Any, rule: Rule, budget: Budget, cost: int) -> list[Any]:
    return [item for item in _visited(items, budget, cost) if truthy(rule(item, budget))]


def reduce_items(items: Any, rule: Rule, budget: Budget, cost: int, start: Any) -> Any:
    accumulator = start
    for item in _visited(items, budget, cost):
        accumulator = rule({"current": item, "accumulator": accumulator}, budget)
    return accumulator


def all_items(items: Any, rule: Rule, budget: Budget, cost: int) -> bool:
    """False for an empty list: JsonLogic defines it so."""
    visited = _visited(items, budget, cost)
    return bool(visited) and all(truthy(rule(item, budget)) for item in visited)


def some_items(items: Any, rule: Rule, budget: Budget, cost: int) -> bool:
    return any(truthy(rule(item, budget)) for item in _visited(items, budget, cost))


def none_items(items: Any, rule: Rule, budget: Budget, cost: int) -> bool:
    return not some_items(items, rule, budget, cost)


CALLS: Final[dict[str, Callable[..., Any]]] = {
    "+": add,
    "*": multiply,
    "/": divide,
    "%": remainder,
    "max": maximum,
    "min": minimum,
    "cat": cat,
    "substr": substr,
    "merge": merge,
    "log": identity,
}
EXACT: Final[dict[str, tuple[int, Callable[..., Any]]]] = {
    "sem_ver": (3, sem_ver),
    "starts_with": (2, starts_with),
    "ends_with": (2, ends_with),
}
"""flagd's own: null with any other number of arguments."""
LOOPS: Final[dict[str, Callable[..., Any]]] = {
    "map": map_items,
    "filter": filter_items,
    "all": all_items,
    "some": some_items,
    "none": none_items,
}

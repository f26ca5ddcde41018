"""Many rules in a row that ask for one attribute: a look-up finds those that can hold, in place of a test of each.

A test of the form `{"in": [attribute, texts]}`, `{"===": [attribute, text]}` or `{"==": [attribute, text]}`, alone or first
in an `and`, can hold only for the texts that it names. What a value that is no string counts as, the exact operators say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from rescind.evaluation.expressions import single_name
from rescind.evaluation.frame import arguments_of, is_rule
from rescind.evaluation.values import number, text, truthy

RULES_MIN: Final = 4
"""Rules in a row that make a look-up worth its cost."""
COPIES_MAX: Final = 2
"""How often the code of a rule is written, on average, at most: once for each set of rules that it is a candidate in."""


class Lead(NamedTuple):
    """What a test asks first."""

    name: str
    loose: bool
    """By `==`, which compares a list or an object by its text."""
    texts: tuple[str, ...]
    rest: Any
    """What else has to hold; True for nothing."""


class Run(NamedTuple):
    """Rules in a row with the same attribute and kind of lead."""

    leads: list[Lead]
    groups: dict[tuple[int, ...], list[str]]
    """Which rules are candidates, by number, for which texts."""


def run_of(arguments: Sequence[Any], start: int) -> Run | None:
    """The run of rules of an `if` that begins at operand `start`, where it is worth a look-up."""
    leads: list[Lead] = []
    for index in range(start, len(arguments) - 1, 2):
        lead = _lead(arguments[index])
        if lead is None or (leads and lead[:2] != leads[0][:2]):
            break
        leads.append(lead)
    if len(leads) < RULES_MIN:
        return None
    groups = _groups(leads)
    return Run(leads, groups) if sum(map(len, groups)) <= COPIES_MAX * len(leads) else None


def strict_key(value: Any) -> str | None:
    """The text that `in` and `===` would find `value` equal to; None for none."""
    return str.__str__(value) if isinstance(value, str) else None


def loose_key(value: Any) -> str | None:
    """The text, if it is none of a number's, that `==` would find `value` equal to; None for none."""
    if isinstance(value, str):
        return str.__str__(value)
    return None if value is None or isinstance(value, int | float) else text(value)


def _groups(leads: list[Lead]) -> dict[tuple[int, ...], list[str]]:
    candidates: dict[str, list[int]] = {}
    for number_, lead in enumerate(leads):
        for one in lead.texts:
            candidates.setdefault(one, []).append(number_)
    groups: dict[tuple[int, ...], list[str]] = {}
    for one, numbers in candidates.items():
        groups.setdefault(tuple(dict.fromkeys(numbers)), []).append(one)
    return groups


def _lead(test: Any) -> Lead | None:
    if not is_rule(test):
        return None
    ((operator, arguments),) = test.items()
    if operator != "and":
        return _comparison(operator, arguments, True)
    operands = arguments_of(arguments)
    first = next((index for index, one in enumerate(operands) if is_rule(one) or not truthy(one)), len(operands))
    if first == len(operands) or not is_rule(operands[first]):
        return None
    ((operator, arguments),) = operands[first].items()
    rest = operands[first + 1 :]
    return _comparison(operator, arguments, {"and": rest} if rest else True)


def _comparison(operator: Any, arguments: Any, rest: Any) -> Lead | None:
    if operator not in ("in", "===", "==") or not isinstance(arguments, list) or len(arguments) != 2:
        return None
    one, other = arguments if operator == "in" or is_rule(arguments[0]) else reversed(arguments)
    name = _name(one)
    texts = other if operator == "in" else [other]
    if name is None or not isinstance(texts, list) or not all(type(value) is str for value in texts):
        return None
    if operator == "==" and number(other) == number(other):
        return None  # "10" equals 10 as well
    return Lead(name, operator == "==", tuple(texts), rest)


def _name(rule: Any) -> str | None:
    if not is_rule(rule) or "var" not in rule:
        return None
    given = arguments_of(rule["var"])
    return single_name(given[0]) if len(given) == 1 else None

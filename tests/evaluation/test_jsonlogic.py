"""JsonLogic's own compatibility cases, and ECMAScript's rules where they leave something open."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from rescind.evaluation import RuleError, UnreadableError, apply

CASES = [
    case
    for case in json.loads((Path(__file__).parent / "data/jsonlogic/compatible.json").read_text())
    if isinstance(case, dict)
]


@pytest.mark.parametrize("case", CASES, ids=[json.dumps(case["rule"])[:60] for case in CASES])
def test_the_standard_case_holds(case: dict[str, Any]) -> None:
    result = apply(case["rule"], case.get("data"))
    assert result == case["result"]
    assert isinstance(result, bool) == isinstance(case["result"], bool)


def test_all_cases_are_there() -> None:
    assert len(CASES) == 278


@pytest.mark.parametrize(
    ("rule", "result"),
    [
        ({"===": [True, 1]}, False),
        ({"in": [1, [True]]}, False),
        ({"==": ["", 0]}, True),
        ({"==": [None, 0]}, False),
        ({"==": [None, False]}, False),
        ({"==": ["1_000", 1000]}, False),
        ({"==": ["0x10", 16]}, True),
        ({"==": [[5], "5"]}, True),
        ({"<": ["abc", None]}, False),
        ({"<": [None, 5]}, True),
        ({"%": [-5, 3]}, -2),
        ({"/": [1, 0]}, math.inf),
        ({"/": [-1, 0]}, -math.inf),
        ({"cat": ["a", None, 1.0, True]}, "a1true"),
        ({"cat": [1e21, "|", 1.5e-7, "|", 0.00001]}, "1e+21|1.5e-7|0.00001"),
        ({"max": [True]}, 1),
        ({"!!": [{"merge": []}]}, False),
        ({"+": [2**53, 0]}, 2.0**53),
        ({"reduce": [[1, 2], {"+": [{"var": "current"}, {"var": "accumulator"}]}, {"+": [1, 1]}]}, 5),
    ],
)
def test_ecmascript_decides_what_the_cases_leave_open(rule: Any, result: Any) -> None:
    assert apply(rule) == result


@pytest.mark.parametrize("rule", [{"max": []}, {"%": [1, 0]}, {"/": [0, 0]}, {"+": ["x"]}, {"-": [{"cat": "inf"}]}])
def test_what_is_no_number_is_nan(rule: Any) -> None:
    assert math.isnan(apply(rule))


def test_numbers_cannot_grow_without_bound() -> None:
    squared = {"reduce": [{"var": "list"}, {"*": [{"var": "accumulator"}, {"var": "accumulator"}]}, 10]}
    assert apply(squared, {"list": [0] * 100}) == math.inf


@pytest.mark.parametrize(
    "rule",
    [
        {"reduce": [{"var": "list"}, {"cat": [{"var": "accumulator"}, {"var": "accumulator"}]}, "x"]},
        {"reduce": [{"var": "list"}, {"merge": [{"var": "accumulator"}, {"var": "accumulator"}]}, [1]]},
        {"map": [{"var": "list"}, {"map": [[0] * 100, {"map": [[0] * 100, {"var": ""}]}]}]},
    ],
)
def test_a_rule_that_grows_without_bound_is_stopped(rule: Any) -> None:
    with pytest.raises(RuleError):
        apply(rule, {"list": [0] * 100})


def test_an_unknown_operator_is_named() -> None:
    with pytest.raises(UnreadableError, match="quantum"):
        apply({"if": [{"quantum": [1]}, 1]})


@pytest.mark.parametrize("levels", [5, 12, 20])
def test_deep_rules_give_what_shallow_ones_give(levels: int) -> None:
    rule: Any = {"var": "x"}
    for _ in range(levels):
        rule = {"if": [{"and": [{"!!": [{"var": "x"}]}, True]}, rule, "no"]}
    assert apply(rule, {"x": "yes"}) == "yes"
    assert apply(rule, {"x": 0}) == "no"


@pytest.mark.parametrize("operator", ["and", "or", "if", "cat"])
def test_long_rules_give_what_short_ones_give(operator: str) -> None:
    many = [{"var": "x"}] * 501
    assert apply({operator: many}, {"x": "a"}) == ("a" * 501 if operator == "cat" else "a")
    assert apply({"and": [*many, {"var": "y"}]}, {"x": "a", "y": 7}) == 7
    assert apply({"or": [*many, {"var": "y"}]}, {"y": 7}) == 7

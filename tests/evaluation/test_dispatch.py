"""Many rules on one attribute are looked up, and give what trying them one after the other gives."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rescind.evaluation.dispatch import RULES_MIN, run_of

from tests.evaluation.flags import flag, resolve
from tests.evaluation.rules import EVALUATORS, VARIANTS, contexts, ladders
from tests.evaluation.test_explain import explained
from tests.evaluation.test_safety import Hostile


class Plan(StrEnum):
    FREE = "free"


values = st.sampled_from(["a", "b", "free", "10", "", "é", 10, 1.0, True, None, ["a"], ["free"], {}, Plan.FREE, b"a", {"a"}])
"""Of any kind: what is no string equals a text by `==` alone, a list by its text and a number where the text is one."""


def variant_of(rules: dict[str, Any], context: dict[str, Any]) -> str | None:
    definition = flag(rules, variants=VARIANTS, default="third")
    return resolve(definition, context, evaluators=EVALUATORS).variant


@settings(max_examples=1_000)
@given(ladders, contexts, values)
def test_looking_up_gives_what_trying_one_after_the_other_gives(rules: Any, context: dict[str, Any], value: Any) -> None:  # P7
    context = {**context, "x": value}
    found = variant_of(rules, context)
    assert found == explained(flag(rules, variants=VARIANTS, default="third"), context, evaluators=EVALUATORS).variant
    pairs = list(zip(rules["if"][::2], rules["if"][1::2], strict=True))
    chosen = next((end for test, end in pairs if variant_of({"if": [test, "on", "off"]}, context) == "on"), None)
    assert found == ("third" if chosen is None else chosen)


def test_rules_in_a_row_are_looked_up_and_others_are_tried() -> None:
    one, other = {"in": [{"var": "x"}, ["a"]]}, {"in": [{"var": "y"}, ["a"]]}
    assert run_of([one, "on"] * (RULES_MIN - 1), 0) is None
    run = run_of([one, "on"] * RULES_MIN + [other, "on"], 0)
    assert run is not None
    assert (len(run.leads), run.groups) == (RULES_MIN, {tuple(range(RULES_MIN)): ["a"]})
    assert run_of([other, "on", *[one, "on"] * RULES_MIN], 0) is None
    numeral = {"==": [{"var": "x"}, "10"]}
    assert run_of([numeral, "on"] * RULES_MIN, 0) is None, "10 equals it as well"


def test_code_is_not_multiplied() -> None:
    alike = [{"in": [{"var": "x"}, [f"t{number}" for number in range(step, step + 40)]]} for step in range(40)]
    assert run_of([part for test in alike for part in (test, "on")], 0) is None


@pytest.mark.parametrize(
    ("value", "variant"), [(["b"], "off"), ("b", "off"), (Plan.FREE, "on"), ({}, "third"), (True, "third")]
)
def test_equality_finds_a_list_by_its_text(value: Any, variant: str) -> None:
    ends = {"a": "on", "b": "off", "free": "on", "c": "on"}
    rules = {"if": [part for text, end in ends.items() for part in ({"==": [{"var": "x"}, text]}, end)]}
    assert run_of(rules["if"], 0) is not None
    assert variant_of(rules, {"x": value}) == variant


@pytest.mark.parametrize("value", [Hostile(), [Hostile()], "\ud800", 10**400, float("nan")])
def test_absurd_values_are_found_nowhere(value: Any) -> None:
    tests = [{operator: [{"var": "x"}, "a"]} for operator in ("==",) * RULES_MIN + ("===",) * RULES_MIN]
    rules = {"if": [part for test in tests for part in (test, "on")]}
    assert variant_of(rules, {"x": value}) == "third"

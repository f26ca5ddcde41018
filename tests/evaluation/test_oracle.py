"""The oracle: flagd's newest released core in Python, over generated flags and contexts (P7).

It is compared by variant, value and metadata. Where it departs from JsonLogic or from flagd's own specification, the departure
is a line of `FAULTS`, shown to be there still, and what ours gives is what the specification says.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import OpenFeatureError
from rescind.evaluation import Evaluator, Reason, check_document
from rescind.evaluation.grammar import KNOWN

from tests.evaluation.flags import NOON, Spec
from tests.evaluation.rules import EVALUATORS, VARIANTS, contexts, mostly, targeting_rules, users

KEY = "a flag"
CALLERS = "the caller's"
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

logging.getLogger("openfeature.contrib").setLevel(logging.CRITICAL)

_more = {
    "defaultVariant": st.sampled_from(["on", "off", None]),
    "metadata": st.dictionaries(st.sampled_from(["team", "tier"]), st.sampled_from(["x", 1, True]), max_size=2),
}
_targeted = st.fixed_dictionaries(
    {"state": st.just("ENABLED"), "variants": st.just(VARIANTS), "targeting": targeting_rules}, optional=_more
)
_others = st.fixed_dictionaries(
    {"state": st.sampled_from(["ENABLED", "DISABLED"]), "variants": st.just(VARIANTS)},
    optional={**_more, "targeting": targeting_rules},
)
flags = mostly(_targeted, _others)


def ours(document: dict[str, Any], attributes: dict[str, Any], user: str | None) -> tuple[Any, ...]:
    """Variant, value and metadata."""
    context = attributes if user is None else {**attributes, "targetingKey": user}
    specs = {key: Spec(definition=flag) for key, flag in document["flags"].items()}
    evaluator = Evaluator(specs, document.get("$evaluators"), document.get("metadata"), now=lambda: NOON)
    found = evaluator.evaluate(KEY, context, CALLERS)
    return found.variant, found.value, dict(found.metadata)


def theirs(document: dict[str, Any], attributes: dict[str, Any], user: str | None) -> tuple[Any, ...]:
    """Variant, value and metadata; an error is the caller's default."""
    core = FlagdCore()
    core.set_flags(json.dumps(document))
    try:
        found = core._resolve(KEY, CALLERS, EvaluationContext(user, attributes))
    except OpenFeatureError:
        return None, CALLERS, {**document.get("metadata", {}), **document["flags"][KEY].get("metadata", {})}
    return found.variant, found.value, dict(found.flag_metadata)


@settings(max_examples=1_500, suppress_health_check=SLOW)
@given(flags, contexts, users)
def test_the_oracle_finds_no_difference(flag: dict[str, Any], attributes: dict[str, Any], user: str | None) -> None:  # P7
    document = {"flags": {KEY: flag}, "$evaluators": EVALUATORS, "metadata": {"team": "core", "flagSetId": "production"}}
    assert check_document(document) == []
    assert ours(document, attributes, user) == theirs(document, attributes, user)


def operators_of(rule: Any) -> set[str]:
    """The operators that occur in a rule."""
    if isinstance(rule, list):
        return set().union(*map(operators_of, rule))
    if not isinstance(rule, dict):
        return set()
    return set().union(rule, *map(operators_of, rule.values()))


def test_what_is_compared_has_every_operator_and_mostly_decides() -> None:
    seen: set[str] = set()
    reasons: Counter[str] = Counter()

    @settings(max_examples=500, suppress_health_check=SLOW)
    @given(flags, contexts, users)
    def look(flag: dict[str, Any], attributes: dict[str, Any], user: str | None) -> None:
        seen.update(operators_of(flag.get("targeting")))
        context = attributes if user is None else {**attributes, "targetingKey": user}
        evaluator = Evaluator({KEY: Spec(definition=flag)}, EVALUATORS, now=lambda: NOON)
        reasons[evaluator.evaluate(KEY, context, CALLERS).reason] += 1

    look()
    assert seen == set(KNOWN)
    assert min(reasons[Reason.TARGETING_MATCH], reasons[Reason.SPLIT]) > reasons.total() / 6
    assert reasons[Reason.TARGETING_MATCH] + reasons[Reason.SPLIT] > reasons.total() / 2


def rule(targeting: dict[str, Any]) -> dict[str, Any]:
    return {"flags": {KEY: {"state": "ENABLED", "variants": VARIANTS, "defaultVariant": "third", "targeting": targeting}}}


def chosen(condition: dict[str, Any]) -> dict[str, Any]:
    return rule({"if": [condition, "on", "off"]})


SUM, THIS = {"var": "accumulator"}, {"var": "current"}
FAULTS = {
    "null equals 0 (JsonLogic: null equals only null)": (chosen({"==": [{"var": "none"}, 0]}), {}, "off"),
    "null equals false": (chosen({"==": [{"var": "none"}, False]}), {}, "off"),
    "1 is strictly true": (chosen({"===": [{"var": "n"}, True]}), {"n": 1}, "off"),
    "1 is in a list that holds true": (chosen({"in": [{"var": "n"}, [True]]}), {"n": 1}, "off"),
    "false joins as False (JsonLogic: false)": (chosen({"==": [{"cat": [{"var": "b"}]}, "false"]}), {"b": False}, "on"),
    "null joins as null (JsonLogic: nothing)": (chosen({"==": [{"cat": ["a", {"var": "none"}]}, "a"]}), {}, "on"),
    "an empty text is no number (ECMAScript: 0)": (chosen({"==": [{"var": "s"}, 0]}), {"s": ""}, "on"),
    "null is ordered as a text (ECMAScript: as a number)": (chosen({"<": [{"var": "none"}, "5"]}), {}, "on"),
    "a remainder has the sign of the divisor (ECMAScript: of the dividend)": (chosen({"==": [{"%": [-5, 3]}, -2]}), {}, "on"),
    "a division by zero fails (ECMAScript: infinite)": (chosen({">": [{"/": [1, 0]}, 1]}), {}, "on"),
    "a remainder by zero fails (ECMAScript: NaN)": (chosen({"!": [{"%": [1, 0]}]}), {}, "on"),
    "the greatest of booleans is a boolean": (chosen({"==": [{"cat": [{"max": [True]}]}, "1"]}), {}, "on"),
    "null subtracted negates": (chosen({"==": [{"-": [5, {"var": "none"}]}, 5]}), {}, "on"),
    "null as an upper bound is none": (chosen({"<": [1, 2, {"var": "none"}]}), {}, "off"),
    "a reduction does not evaluate its start": (
        chosen({"==": [{"reduce": [[1], {"+": [SUM, THIS]}, {"+": [1, 1]}]}, 3]}),
        {},
        "on",
    ),
    "a weight of 25.0 is none (flagd: whole floats are integers)": (rule({"fractional": [["on", {"/": [50, 2]}]]}), {}, "on"),
}
"""What the oracle does, a document that shows it, the context, and the variant that the specification gives."""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_departure_of_the_oracle_is_there_still_and_not_ours(fault: str) -> None:
    document, attributes, expected = FAULTS[fault]
    assert ours(document, attributes, "user-1")[0] == expected
    with contextlib.suppress(ZeroDivisionError):
        assert theirs(document, attributes, "user-1")[0] != expected

"""What `explain` says: the answer of the evaluation itself, and the rule that gave it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rescind.evaluation import Decided, EvaluationError, Evaluator, Explanation, apply
from rescind.evaluation.compiler import Outcomes, no_clock
from rescind.evaluation.explain import walked
from rescind.evaluation.explanation import FINDINGS_MAX
from rescind.evaluation.interpreter import VISITS_MAX, Data, Enough, Interpreter
from rescind.evaluation.tracing import Trace

from tests.evaluation.flags import NOON, ScopedKill, Spec, flag
from tests.evaluation.rules import EVALUATORS, VARIANTS, contexts, targeting_rules, users
from tests.evaluation.test_jsonlogic import CASES
from tests.evaluation.test_oracle import SLOW
from tests.evaluation.test_safety import Hostile, attributes, definitions, rules, scalars

COUNTRY = {"in": [{"var": "country"}, ["DE", "AT"]]}
CHAIN = {
    "if": [
        {"and": ["beta countries", COUNTRY, {"==": [{"var": "plan"}, "pro"]}]},
        {"fractional": [["on", 25], ["off", 75]]},
        {"$ref": "adult"},
        "on",
        "off",
    ]
}
CHAIN_FLAG = flag(CHAIN)


def explained(definition: Any, context: Any = None, **more: Any) -> Explanation:
    spec = more.pop("spec", {})
    evaluator = Evaluator({"flag": Spec(definition=definition, **spec)}, now=lambda: NOON, **more)
    told = evaluator.explain("flag", context)
    found = evaluator.evaluate("flag", context, None)
    assert (told.value, told.variant, told.reason, told.error_code) == (
        found.value,
        found.variant,
        found.reason,
        found.error_code,
    )
    msgspec.json.encode(told)
    return told


@pytest.mark.parametrize("case", CASES, ids=[json.dumps(case["rule"])[:60] for case in CASES])
def test_the_walk_gives_the_standard_cases(case: dict[str, Any]) -> None:
    walk = Interpreter("", {}, "v3", no_clock, Trace())
    assert walk.value(case["rule"], Data(False, case.get("data")), None) == case["result"]


@settings(max_examples=1_000, suppress_health_check=SLOW)
@given(targeting_rules, contexts, users, st.sampled_from(["v2", "v3"]))
def test_the_walk_comes_to_what_the_compiled_function_gives(  # P7
    targeting: dict[str, Any], attributes: dict[str, Any], user: str | None, generation: str
) -> None:
    definition = {"state": "ENABLED", "variants": VARIANTS, "defaultVariant": "third", "targeting": targeting}
    context = attributes if user is None else {**attributes, "targetingKey": user}
    told = explained(definition, context, evaluators=EVALUATORS, generation=generation)
    trace = Trace()
    decision = walked(Interpreter("flag", EVALUATORS, generation, lambda: NOON, trace), trace, targeting, context)
    assert decision is not None
    outcome = Outcomes(VARIANTS, "third", {}).pick(decision.value, decision.split)
    assert (outcome.variant, outcome.reason) == (told.variant, told.reason)


@settings(max_examples=1_000, suppress_health_check=SLOW)
@given(rules, attributes)
def test_the_walk_gives_what_jsonlogic_gives_for_rules_of_any_shape(rule: Any, data: Any) -> None:  # P7
    try:
        expected = apply(rule, data)
    except EvaluationError:
        return
    assert repr(Interpreter("", {}, "v3", no_clock, Trace()).value(rule, Data(False, data), None)) == repr(expected)


@pytest.mark.parametrize("operator", ["!", "!!", "if", "and", "or", "filter", "some", "all", "none"])
@pytest.mark.parametrize("value", [{}, [], "", "0", 0.0, float("nan"), [[]], None])
def test_truth_is_jsonlogics_in_the_walk_too(operator: str, value: Any) -> None:
    rule = {operator: [{"var": "v"}, {"var": ""}, "no"] if operator in ("if", "and", "or") else [{"var": "v"}]}
    if operator in ("filter", "some", "all", "none"):
        rule = {operator: [{"var": "l"}, {"var": ""}]}
    data = {"v": value, "l": [value]}
    assert repr(Interpreter("", {}, "v3", no_clock, Trace()).value(rule, Data(False, data), None)) == repr(apply(rule, data))


@settings(max_examples=300)
@given(definitions | scalars, attributes)
def test_no_definition_and_no_context_makes_it_raise(definition: Any, context: Any) -> None:  # P6
    told = explained_loosely(definition, context)
    assert told.decided in set(Decided)
    msgspec.json.encode(told)


def explained_loosely(definition: Any, context: Any) -> Explanation:
    return Evaluator({"flag": Spec(definition=definition)}, EVALUATORS, now=lambda: NOON).explain("flag", context)


def test_a_rule_is_named_with_what_it_found_and_where_the_subject_falls() -> None:
    told = explained(CHAIN_FLAG, {"country": "DE", "plan": "pro", "targetingKey": "user-1"}, evaluators=EVALUATORS)
    assert told.decided is Decided.RULE
    assert told.rule is not None
    assert (told.rule.number, told.rule.name, told.rule.pointer) == (1, "beta countries", "/targeting/if/0")
    (chain,) = told.findings
    condition, share = chain.findings
    assert (chain.operand, condition.operand, condition.pointer) == (1, 2, "/targeting/if/0/and")
    assert [one.found for one in condition.findings] == [{"country": "DE"}, {"plan": "pro"}]
    split = share.split
    assert split is not None
    assert (split.generation, split.by, split.total) == ("v3", None, 100)
    assert split.position == (split.hash or 0) * 100 >> 32
    assert split.start <= (split.position or 0) < split.start + split.weight
    assert told.variant == ["on", "off"][split.share or 0]
    assert told.pointer == f"/targeting/if/1/fractional/{split.share}/0"


def test_the_operand_that_decided_a_connective_is_the_last_one_looked_at() -> None:
    told = explained(CHAIN_FLAG, {"country": "FR", "n": 7}, evaluators=EVALUATORS)
    (chain,) = told.findings
    condition, adult = chain.findings
    assert (condition.value, condition.operand, len(condition.findings)) == (False, 1, 1)
    assert (adult.pointer, adult.found, adult.value) == ("/$evaluators/adult/>=", {"n": 7}, True)
    assert (told.rule and told.rule.number, told.rule and told.rule.name, told.pointer) == (2, None, "/targeting/if/3")


def test_where_no_condition_holds_the_last_value_is_said_to_decide() -> None:
    told = explained(CHAIN_FLAG, {}, evaluators=EVALUATORS)
    assert (told.decided, told.pointer) == (Decided.RULE, "/targeting/if/4")
    assert told.rule is not None
    assert (told.rule.number, told.rule.pointer) == (3, "/targeting/if/4")
    assert told.findings[0].findings[0].findings[0].found == {"country": None}


@pytest.mark.parametrize(
    ("definition", "context", "decided"),
    [
        (flag(), {}, Decided.NO_TARGETING),
        (flag(default=None), {}, Decided.NO_TARGETING),
        (flag(default="gone"), {}, Decided.FAILED),
        (flag({"if": [{"var": "a"}, "on"]}), {}, Decided.DEFAULT),
        (flag({"if": [{"var": "a"}, "gone", "on"]}), {"a": 1}, Decided.FAILED),
        (flag({"fractional": [["on", 0]]}), {"targetingKey": "u"}, Decided.DEFAULT),
        (flag({"if": [True, "on"]}, state="DISABLED"), {}, Decided.DISABLED),
        (flag({"quantum": []}), {}, Decided.UNREADABLE),
        ("no definition", {}, Decided.UNREADABLE),
        (flag({"if": [{"map": [{"var": "l"}, {"map": [[0] * 1000, 1]}]}, "on"]}), {"l": [0] * 1000}, Decided.FAILED),
    ],
)
def test_it_says_what_the_answer_comes_from(definition: Any, context: Any, decided: Decided) -> None:
    assert explained(definition, context).decided is decided


def test_the_subject_without_a_key_is_in_no_share() -> None:
    (step,) = explained(flag({"fractional": [["on", 1], ["off", 1]]})).findings
    assert step.split is not None
    assert (step.split.hash, step.split.share, step.found) == (None, None, {"targetingKey": None})


def test_what_cannot_be_read_is_said_with_pointers() -> None:
    told = explained(flag({"if": [{"quantum": [1]}, "on"]}, default="on"))
    assert (told.variant, told.error_code) == ("off", "PARSE_ERROR")
    assert [(fault.pointer, fault.code) for fault in told.faults] == [("/targeting/if/0/quantum", "unknown_operator")]


def test_kills_are_judged_before_every_rule_and_the_one_in_scope_decides() -> None:  # P4
    kills = [ScopedKill(scope={"country": "FR"}), ScopedKill(scope={"country": "DE", "tenant": "a"})]
    told = explained(flag({"if": [True, "on"]}), {"country": "DE"}, spec={"kills": kills})
    assert (told.decided, told.variant, told.findings) == (Decided.KILL, "off", [])
    assert [(kill.in_scope, kill.absent) for kill in told.kills] == [(False, []), (True, ["tenant"])]
    spared = explained(flag({"if": [True, "on"]}), {"country": "AT"}, spec={"kills": kills})
    assert (spared.decided, spared.variant, [kill.in_scope for kill in spared.kills]) == (Decided.RULE, "on", [False, False])


def test_an_unknown_flag_is_an_explanation_too() -> None:
    told = Evaluator({}, environment="production", revision="1.7").explain("gone", {})
    assert (told.decided, told.error_code, told.revision) == (Decided.NOT_FOUND, "FLAG_NOT_FOUND", "1.7")


def test_the_clock_is_read_once() -> None:
    seconds = iter([NOON, NOON + 1])
    targeting = {"if": [{"==": [{"var": "$flagd.timestamp"}, NOON]}, "on", "off"]}
    told = Evaluator({"flag": Spec(definition=flag(targeting))}, now=lambda: next(seconds)).explain("flag", {})
    assert (told.variant, told.pointer) == ("on", "/targeting/if/1")
    assert told.findings[0].findings[0].found == {"$flagd.timestamp": NOON}


@pytest.mark.parametrize("value", [Hostile(), [Hostile()], "x" * 10**6, {1: 2}, 10**400, float("nan"), "\ud800", [[[[1]]]]])
def test_whatever_a_context_holds_is_shown_in_little(value: Any) -> None:
    targeting = {"if": [{"==": [{"var": "x"}, 1]}, "on", {"fractional": [{"var": "x"}, ["on", 1], ["off", 1]]}]}
    assert len(msgspec.json.encode(explained(flag(targeting), {"x": value, "targetingKey": "u"}))) < 4_000


def test_a_large_targeting_gives_a_bounded_explanation() -> None:
    steps = [{"==": [{"var": f"a{number}"}, number]} for number in range(2_000)]
    told = explained(flag({"if": [{"or": steps}, "on", "off"]}), {"a1999": 1999})
    assert (told.truncated, told.variant) == (True, "on")
    assert count(told.findings) <= FINDINGS_MAX
    loop = {"some": [{"var": "l"}, {"or": [{"==": [{"var": ""}, number]} for number in range(10)]}]}
    long = explained(flag({"if": [loop, "on", "off"]}), {"l": [99] * 9_000})
    assert (long.truncated, long.variant) == (True, "off")


def count(findings: list[Any]) -> int:
    return sum(1 + count(one.findings) for one in findings)


def test_a_walk_ends() -> None:
    rule = {"map": [{"var": ""}, {"+": [{"var": ""}, *range(VISITS_MAX // 5_000)]}]}
    with pytest.raises(Enough):
        Interpreter("", {}, "v3", no_clock, Trace()).value(rule, Data(False, [0] * 5_000), None)

"""The rules form: a lossless view of targeting, and rules mean what they say, to every evaluator (P7)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext
from rescind import wire
from rescind.evaluation import Evaluator, check

from flagd.core.ruleform import BINARY, DEPTH_MAX, OPERATORS, rules_of, targeting_of
from flagd.core.ruleread import faults_of, read_flag
from tests.flagd.rules import KEY, SEGMENTS, VARIANTS, contexts, decided, rule_lists

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
DEFAULT = "off"


def definition(targeting: dict[str, Any]) -> dict[str, Any]:
    return {"state": "ENABLED", "variants": VARIANTS, "defaultVariant": DEFAULT, "targeting": targeting}


@settings(max_examples=150, deadline=None, suppress_health_check=SLOW)
@given(rule_lists())
def test_rules_become_targeting_and_targeting_the_same_rules(rules: list[dict[str, Any]]) -> None:
    assert faults_of(rules) == []
    targeting = targeting_of(rules)
    assert rules_of(targeting) == rules
    assert check(definition(targeting), evaluators=SEGMENTS) == []


@settings(max_examples=150, deadline=None, suppress_health_check=SLOW)
@given(rule_lists(), contexts)
def test_the_targeting_decides_as_the_rules_say(rules: list[dict[str, Any]], context: dict[str, Any]) -> None:  # P7
    context = nested(context)
    flag = definition(targeting_of(rules))
    expected = decided(rules, flat(context)) or DEFAULT
    evaluator = Evaluator({KEY: wire.SnapshotFlag(definition=flag)}, SEGMENTS)
    assert evaluator.evaluate(KEY, context, 0).variant == expected
    oracle = FlagdCore()
    oracle.set_flags({"flags": {KEY: flag}, "$evaluators": SEGMENTS})
    key, attributes = context["targetingKey"], {name: value for name, value in context.items() if name != "targetingKey"}
    if not any(by_missing(rule, flat(context)) for rule in rules):
        assert oracle.resolve_integer_value(KEY, 0, EvaluationContext(key, attributes)).variant == expected


def nested(context: dict[str, Any]) -> dict[str, Any]:
    """`user.city` is a path."""
    whole = {name: value for name, value in context.items() if name != "user.city"}
    return {**whole, "user": {"city": context["user.city"]}} if "user.city" in context else whole


def flat(context: dict[str, Any]) -> dict[str, Any]:
    user = context.get("user", {})
    return {**context, **{f"user.{name}": value for name, value in user.items()}, "plan": context.get("plan")}


def by_missing(rule: dict[str, Any], context: dict[str, Any]) -> bool:
    """Whether people are split by attributes of which one is missing: it joins as nothing here, as "null" there."""
    by = rule["serve"].get("by") if isinstance(rule["serve"], dict) else None
    return isinstance(by, list) and "plan" in by and context.get("plan") is None


@pytest.mark.parametrize(
    "targeting",
    [
        {"if": [{"missing": ["plan"]}, "off", "on"]},
        {"if": [{"==": ["free", {"var": "plan"}]}, "off"]},
        {"if": [{"==": [{"var": ["plan"]}, "free"]}, "off"]},
        {"if": [{"and": [{"==": [{"var": "plan"}, "free"]}]}, "off"]},
        {"if": [{"and": [{"and": [{"$ref": "a"}, {"$ref": "b"}]}, {"$ref": "c"}]}, "off"]},
        {"if": [{"!": {"$ref": "a"}}, "off"]},
        {"if": [{"!": [{"!": [{"$ref": "a"}]}]}, "off"]},
        {"if": ["everyone", "on", "off"]},
        {"if": [True, "on"]},
        {"if": [{"$ref": "a"}, {"if": [{"$ref": "b"}, "on"]}]},
        {"if": [{"fractional": [["on", 1]]}, "on"]},
        {"if": [{"fractional": [["on", 1]]}]},
        {"fractional": [["on", 1], ["off"]]},
        {"fractional": [["on", 1], ["on", 2]]},
        {"fractional": [["on", {"var": "weight"}]]},
        {"fractional": [{"var": ["account", 1]}, ["on", 1]]},
        {"if": [{"in": [{"var": "country"}, "DE, AT"]}, "on"]},
        {"if": [{"sem_ver": [{"var": "version"}, ">=", {"var": "least"}]}, "on"]},
        {"?:": [{"$ref": "a"}, "on"]},
        {"$ref": "whole"},
        {"if": [{"==": [{"var": ""}, 1]}, "on"]},
        {"if": []},
        [],
        7,
    ],
)
def test_what_the_form_cannot_say_exactly_has_no_rules(targeting: Any) -> None:
    assert rules_of(targeting) is None


def test_no_targeting_is_no_rules() -> None:
    assert rules_of(None) == rules_of({}) == []
    assert targeting_of([]) == {}


def test_nesting_has_a_limit_that_is_the_same_in_both_directions() -> None:
    condition: dict[str, Any] = {"segment": "a", "not": True}
    for depth in range(DEPTH_MAX):
        condition = {"any": [condition]}
        assert faults_of([{"when": [condition], "serve": "on"}]) == [], depth
        assert rules_of(targeting_of([{"when": [condition], "serve": "on"}])) is not None
    too_deep = [{"when": [{"any": [condition]}], "serve": "on"}]
    assert [fault.code for fault in faults_of(too_deep)] == ["too_deep"]
    assert rules_of(targeting_of(too_deep)) is None


def test_every_fault_of_rules_is_told_at_once_with_its_pointer() -> None:
    rules = [
        {"name": " x", "serve": "on", "wen": []},
        {"when": {}, "serve": 7},
        7,
        {"when": [{"attribute": "", "operator": "eqals", "value": 1}, {"attribute": "a", "segment": "b"}, 7], "serve": "on"},
        {"when": [{"attribute": "a", "operator": "in", "value": "DE", "not": True}, {"all": [{"segment": ""}]}]},
        {"when": [{"attribute": "a", "operator": "sem_ver >=", "value": "two"}], "serve": {"split": {"on": -1}, "by": []}},
        {"when": [{"attribute": "a", "operator": "exists", "value": None, "not": False}], "serve": {"splt": {}}},
        {"when": [{"any": []}, {"attribute": "a", "operator": "equals", "value": None}], "serve": {"split": ["on", "on"]}},
    ]
    assert sorted((fault.pointer, fault.code) for fault in faults_of(rules, "/rules")) == sorted(
        [
            ("/rules/0", "unreachable"),
            ("/rules/0/name", "wrong_type"),
            ("/rules/0/wen", "unknown_field"),
            ("/rules/1/serve", "wrong_type"),
            ("/rules/1/when", "wrong_type"),
            ("/rules/2", "wrong_type"),
            ("/rules/3/when/0/attribute", "wrong_type"),
            ("/rules/3/when/0/operator", "unknown_operator"),
            ("/rules/3/when/1", "wrong_type"),
            ("/rules/3/when/2", "wrong_type"),
            ("/rules/4/serve", "missing"),
            ("/rules/4/when/0/not", "misplaced"),
            ("/rules/4/when/0/value", "wrong_type"),
            ("/rules/4/when/1", "misplaced"),
            ("/rules/4/when/1/all/0/segment", "wrong_type"),
            ("/rules/5/serve/by", "wrong_type"),
            ("/rules/5/serve/split/on", "wrong_type"),
            ("/rules/5/when/0/value", "wrong_type"),
            ("/rules/6/serve", "wrong_type"),
            ("/rules/6/when/0/not", "wrong_type"),
            ("/rules/6/when/0/value", "wrong_type"),
            ("/rules/7/serve/split", "wrong_type"),
            ("/rules/7/when/0/any", "wrong_type"),
            ("/rules/7/when/1/value", "wrong_type"),
        ]
    )
    assert faults_of({}, "/rules")[0].pointer == "/rules"


def test_what_is_wrong_with_the_targeting_is_said_of_the_rules() -> None:
    rules = [
        {"name": "first", "when": [{"segment": "nowhere"}, {"attribute": "$flagd.x", "operator": "exists"}], "serve": "blue"},
        {"when": [{"segment": "gone"}], "serve": "on"},
        {"serve": {"split": {"on": 2**31, "red": 1}}},
    ]
    bare = {name: value for name, value in definition({}).items() if name != "targeting"}

    def checked(one: dict[str, Any]) -> list[wire.Fault]:
        found = check(one, evaluators={})
        return [wire.Fault(pointer=fault.pointer, detail=fault.detail, code=str(fault.code)) for fault in found]

    flag, faults = read_flag({"key": "f", "definition": bare, "rules": rules}, "/flag", checked)
    assert flag is None
    assert sorted({(fault.pointer, fault.code) for fault in faults}) == [
        ("/flag/rules/0/serve", "unknown_variant"),
        ("/flag/rules/0/when/0", "unknown_evaluator"),
        ("/flag/rules/0/when/1", "wrong_arguments"),
        ("/flag/rules/1/when/0", "unknown_evaluator"),
        ("/flag/rules/2/serve", "out_of_range"),
        ("/flag/rules/2/serve", "unknown_variant"),
    ]


def test_rules_beside_a_targeting_are_a_fault() -> None:
    document = {"key": "f", "definition": definition({}), "rules": []}
    _, faults = read_flag(document, "/flag", lambda _: [])
    assert [(fault.pointer, fault.code) for fault in faults] == [("/flag/rules", "both")]
    flag, faults = read_flag({**document, "rules": None}, "/flag", lambda _: [])
    assert flag is not None
    assert faults == []


def test_the_form_has_a_word_for_every_operator_of_two_that_flagd_targets_by() -> None:
    assert {"==", "!=", "===", "!==", "<", "<=", ">", ">=", "starts_with", "ends_with"} == set(BINARY.values())
    assert len(set(OPERATORS)) == len(OPERATORS)

"""What a flag gives and why: states, variants, targeting results, types, metadata, flagd's own properties."""

from __future__ import annotations

from typing import Any

import pytest
from rescind.evaluation import ErrorCode, Evaluator, Reason

from tests.evaluation.flags import BOOLEANS, NOON, Spec, flag, resolve

GERMAN = {"if": [{"==": [{"var": "country"}, "DE"]}, "on", None]}


def test_a_flag_without_targeting_is_static() -> None:
    for targeting in (None, {}):
        outcome = resolve(flag(targeting, default="on"))
        assert (outcome.value, outcome.variant, outcome.reason) == (True, "on", Reason.STATIC)


def test_a_rule_that_matches_gives_its_variant() -> None:
    outcome = resolve(flag(GERMAN), {"country": "DE"})
    assert (outcome.value, outcome.variant, outcome.reason) == (True, "on", Reason.TARGETING_MATCH)


@pytest.mark.parametrize("context", [{"country": "FR"}, {"country": None}, {}, None])
def test_a_rule_that_gives_null_gives_the_default_variant(context: Any) -> None:
    outcome = resolve(flag(GERMAN), context)
    assert (outcome.value, outcome.variant, outcome.reason) == (False, "off", Reason.DEFAULT)


@pytest.mark.parametrize("default", [None, ""])
def test_without_a_default_variant_the_caller_decides(default: Any) -> None:
    for targeting in (None, GERMAN):
        outcome = resolve(flag(targeting, default=default), {"country": "FR"})
        assert (outcome.value, outcome.variant, outcome.reason) == ("the caller's", None, Reason.DEFAULT)
        assert outcome.error_code is None


def test_a_default_variant_may_be_absent() -> None:
    outcome = resolve({"state": "ENABLED", "variants": BOOLEANS}, None, 7, "integer")
    assert (outcome.value, outcome.reason) == (7, Reason.DEFAULT)


def test_a_disabled_flag_is_a_success_with_the_callers_value() -> None:
    outcome = resolve(flag(GERMAN, state="DISABLED", metadata={"owner": "me"}), {"country": "DE"})
    assert (outcome.value, outcome.variant, outcome.reason) == ("the caller's", None, Reason.DISABLED)
    assert outcome.error_code is None
    assert outcome.metadata == {"owner": "me"}


def test_true_and_false_name_the_variants_of_that_name() -> None:
    definition = flag(
        {"ends_with": [{"var": "email"}, "@example.com"]}, variants={"true": "yes", "false": "no"}, default="false"
    )
    assert resolve(definition, {"email": "a@example.com"}).value == "yes"
    assert resolve(definition, {"email": "a@other.com"}).value == "no"
    assert resolve(definition, {"email": 5}).reason == Reason.DEFAULT


def test_a_split_says_that_it_is_one() -> None:
    for targeting in ({"fractional": [["on", 1]]}, {"if": [True, {"fractional": [["on", 1], ["off", 0]]}]}):
        outcome = resolve(flag(targeting), {"targetingKey": "u"})
        assert (outcome.variant, outcome.reason) == ("on", Reason.SPLIT)


def test_a_split_without_a_targeting_key_decides_nothing() -> None:
    for context in ({}, {"targetingKey": ""}, {"targetingKey": 7}, {"targetingKey": "\ud800"}):
        outcome = resolve(flag({"fractional": [["on", 1]]}), context)
        assert (outcome.variant, outcome.reason, outcome.error_code) == ("off", Reason.DEFAULT, None)


@pytest.mark.parametrize("result", ["purple", {"cat": ["pur", "ple"]}, {"merge": ["on"]}, {"+": [1, 1]}, {"var": ""}, True])
def test_a_result_that_is_no_variant_fails(result: Any) -> None:
    # P6: a known rule that fails gives the caller's default
    outcome = resolve(flag({"if": [True, result]}), {"targetingKey": "u"})
    assert (outcome.value, outcome.variant, outcome.reason) == ("the caller's", None, Reason.ERROR)
    assert outcome.error_code == ErrorCode.GENERAL


def test_flagd_properties_are_in_the_context() -> None:
    def value(rule: Any, context: Any = None) -> Any:
        return resolve(flag({"if": [rule, "on"]}), context, key="my-flag").variant

    assert value({"==": [{"var": "$flagd.flagKey"}, "my-flag"]}) == "on"
    assert value({"==": [{"var": "$flagd.timestamp"}, NOON]}) == "on"
    assert value({"==": [{"var": ["$flagd.timestamp", 7]}, NOON]}, {"$flagd": {"timestamp": 1}}) == "on"
    assert value({"==": [{"cat": [{"var": [{"cat": ["$flagd.", "flagKey"]}]}]}, "my-flag"]}) == "on"
    assert value({"var": "$flagd"}) == "on"
    assert value({"var": "$flagd.other"}) == "off"


def test_a_rule_that_reads_the_time_fails_where_no_clock_was_given() -> None:
    definition = flag({"if": [{">": [{"var": "$flagd.timestamp"}, 0]}, "on"]})
    outcome = Evaluator({"flag": Spec(definition=definition)}).evaluate("flag", {}, None)
    assert outcome.error_code == ErrorCode.GENERAL
    assert "clock" in (outcome.error_details or "")


def test_shared_evaluators_are_referred_to_by_name() -> None:
    evaluators = {"german": {"==": [{"var": "country"}, "DE"]}, "decide": GERMAN}
    for targeting in ({"if": [{"$ref": "german"}, "on", "off"]}, {"$ref": "decide"}):
        assert resolve(flag(targeting), {"country": "DE"}, evaluators=evaluators).variant == "on"
        assert resolve(flag(targeting), {"country": "FR"}, evaluators=evaluators).variant == "off"


def test_a_flags_metadata_is_laid_over_the_sets() -> None:
    outcome = resolve(flag(metadata={"version": "2"}), metadata={"version": "1", "flagSetId": "shop"})
    assert outcome.metadata == {"version": "2", "flagSetId": "shop"}


@pytest.mark.parametrize(
    ("value", "kind", "result"),
    [
        (True, "boolean", True),
        ("x", "string", "x"),
        (10, "integer", 10),
        (10.0, "integer", 10),
        (10, "float", 10.0),
        (1.5, "float", 1.5),
        ({"a": [1]}, "object", {"a": [1]}),
        (1.5, "any", 1.5),
    ],
)
def test_a_value_of_the_type_asked_for_is_given(value: Any, kind: str, result: Any) -> None:
    outcome = resolve(flag(variants={"off": value}), None, None, kind)
    assert outcome.value == result
    assert type(outcome.value) is type(result)
    assert outcome.variant == "off"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("x", "boolean"),
        (1, "boolean"),
        (True, "integer"),
        (1.5, "integer"),
        (True, "float"),
        ("1", "float"),
        (1, "string"),
        ("{}", "object"),
    ],
)
def test_a_value_of_another_type_gives_the_callers_default(value: Any, kind: str) -> None:
    outcome = resolve(flag(variants={"off": value}), None, "mine", kind)
    assert (outcome.value, outcome.variant, outcome.error_code) == ("mine", None, ErrorCode.TYPE_MISMATCH)


@pytest.mark.parametrize("kind", ["integer", "float"])
def test_a_number_beyond_two_to_the_53_is_no_value(kind: str) -> None:
    outcome = resolve(flag(variants={"off": 2**53}), None, 1, kind)
    assert (outcome.value, outcome.error_code) == (1, ErrorCode.PARSE_ERROR)


def test_an_unknown_flag_gives_the_callers_default() -> None:
    evaluator = Evaluator({}, metadata={"flagSetId": "shop"})
    outcome = evaluator.evaluate("gone", {}, "mine", "string")
    assert (outcome.value, outcome.reason, outcome.error_code) == ("mine", Reason.ERROR, ErrorCode.FLAG_NOT_FOUND)
    assert outcome.metadata == {"flagSetId": "shop"}
    assert evaluator.boolean("gone", True) is True


def test_a_caller_cannot_change_a_flag_through_its_value() -> None:
    evaluator = Evaluator({"flag": Spec(definition=flag(variants={"off": {"hosts": ["a"]}}))})
    evaluator.evaluate("flag", None, {}, "object").value["hosts"].append("b")
    assert evaluator.evaluate("flag", None, {}, "object").value == {"hosts": ["a"]}


@pytest.mark.parametrize(
    ("version", "operator", "other", "result"),
    [
        ("1.2.3", "=", "v1.2.3", True),
        ("1.2.3", "!=", "1.2.3", False),
        ("1.2.3-beta", "<", "1.2.3", True),
        ("1.2.3-beta.2", "<", "1.2.3-beta.11", True),
        ("1.2.3+build", "=", "1.2.3", True),
        ("1.10.0", ">", "1.9.0", True),
        ("1.9.0", "^", "1.2.0", True),
        ("1.9.0", "~", "1.2.0", False),
        ("1", ">=", "1.0.0", True),
        ("1.2.3.4", "=", "1.2.3", False),
        ("", "=", "1.2.3", False),
        (None, "=", "1.2.3", False),
    ],
)
def test_semantic_versions_compare_by_precedence(version: Any, operator: str, other: str, result: bool) -> None:
    definition = flag({"if": [{"sem_ver": [{"var": "version"}, operator, other]}, "on", "off"]})
    assert resolve(definition, {"version": version}).value is result


def test_a_split_without_a_targeting_key_is_an_error_for_those_who_ask_for_it() -> None:
    evaluator = Evaluator({"f": Spec(definition=flag({"fractional": [["on", 1], ["off", 1]]}, default="on"))})
    assert evaluator.evaluate("f", {}, False).variant == "on"
    evaluator.compile(without_key=True)
    assert evaluator.outcome_without_key("f", {}).error_code == ErrorCode.TARGETING_KEY_MISSING
    assert evaluator.outcome_without_key("f", {"targetingKey": "u"}).error_code is None
    changed = evaluator.updated({"f": Spec(definition=flag(GERMAN))})
    assert changed.outcome_without_key("f", {}).variant == "off"
    assert evaluator.updated({}, ["f"]).outcome_without_key("f", {}).error_code == ErrorCode.FLAG_NOT_FOUND

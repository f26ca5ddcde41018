"""A bad definition is refused with every fault at once, each with its pointer, and in bounded time however hostile it is."""

from __future__ import annotations

from typing import Any

import pytest
from rescind.evaluation import FaultCode, Reason, check, check_document
from rescind.evaluation.limits import DEPTH_MAX, FAULTS_MAX

from tests.evaluation.flags import flag, resolve


def found(definition: Any, **more: Any) -> dict[str, str]:
    return {fault.pointer: fault.code for fault in check(definition, **more)}


def test_a_good_flag_has_no_fault() -> None:
    targeting = {"if": [{"in": [{"var": "country"}, ["DE", "FR"]]}, {"fractional": [["on", 25], ["off", 75]]}, None]}
    assert check(flag(targeting, metadata={"owner": "payments", "tier": 1}), off_variant="off") == []


def test_every_fault_is_told_at_once() -> None:
    definition = {
        "state": "ON",
        "variants": {"on": True, "off": "no", "~/": None},
        "defaultVariant": "purple",
        "targetting": {},
        "metadata": {"a/b": []},
        "targeting": {
            "if": [
                {"==": [{"var": "plan"}]},
                {"fractional": [["on", 1.5], ["blue", -1], "x"]},
                {"sem_ver": [{"var": "v"}, "~>", "1"]},
                {"startswith": ["a", "b"]},
                {"var": "$flagd.nothing"},
            ]
        },
    }
    assert found(definition, pointer="/flag/definition", off_variant="gone") == {
        "/flag/definition/targetting": FaultCode.UNKNOWN_PROPERTY,
        "/flag/definition/state": FaultCode.WRONG_TYPE,
        "/flag/definition/variants/off": FaultCode.MIXED_TYPES,
        "/flag/definition/variants/~0~1": FaultCode.WRONG_TYPE,
        "/flag/definition/defaultVariant": FaultCode.UNKNOWN_VARIANT,
        "/flag/definition/variants": FaultCode.UNKNOWN_VARIANT,
        "/flag/definition/metadata/a~1b": FaultCode.WRONG_TYPE,
        "/flag/definition/targeting/if/0/==": FaultCode.WRONG_ARGUMENTS,
        "/flag/definition/targeting/if/1/fractional/0/1": FaultCode.OUT_OF_RANGE,
        "/flag/definition/targeting/if/1/fractional/1/1": FaultCode.OUT_OF_RANGE,
        "/flag/definition/targeting/if/1/fractional/2": FaultCode.WRONG_ARGUMENTS,
        "/flag/definition/targeting/if/2/sem_ver/1": FaultCode.WRONG_ARGUMENTS,
        "/flag/definition/targeting/if/2/sem_ver/2": FaultCode.WRONG_ARGUMENTS,
        "/flag/definition/targeting/if/3/startswith": FaultCode.UNKNOWN_OPERATOR,
        "/flag/definition/targeting/if/4/var": FaultCode.WRONG_ARGUMENTS,
        "/flag/definition/targeting/if/1/fractional/1/0": FaultCode.UNKNOWN_VARIANT,
    }


def test_a_misspelt_operator_is_suggested() -> None:
    (fault,) = check(flag({"startswith": [{"var": "a"}, "b"]}))
    assert "'starts_with'" in fault.detail


@pytest.mark.parametrize(
    "definition", [None, [], "flag", 7, True, {}, {"variants": []}, {"state": {}, "variants": 3, "targeting": []}]
)
def test_whatever_is_no_flag_is_refused(definition: Any) -> None:
    assert check(definition)


@pytest.mark.parametrize(
    "targeting",
    [
        {"if": [{"var": "a"}, "purple"]},
        {"if": [{"var": "a"}, "on", {"if": [True, "purple", None]}]},
        {"if": [{"var": "a"}, True]},
        {"fractional": [["purple"]]},
        {"if": [{"var": "a"}, ["on"]]},
        {"$ref": "shared"},
    ],
)
def test_a_variant_that_does_not_exist_is_found_in_the_targeting(targeting: Any) -> None:
    assert check(flag(targeting), evaluators={"shared": {"if": [{"var": "a"}, "purple", "on"]}})


def test_numbers_beyond_two_to_the_53_are_refused() -> None:
    assert list(found(flag(variants={"off": 1, "b": 2**53}))) == ["/variants/b"]


def test_references_are_resolved_once() -> None:
    assert found(flag({"if": [{"$ref": "gone"}, "on"]}), evaluators={}) == {"/targeting/if/0/$ref": FaultCode.UNKNOWN_EVALUATOR}
    document = {"flags": {}, "$evaluators": {"a": {"!": {"$ref": "b"}}, "b": {"var": "x"}}}
    assert [fault.pointer for fault in check_document(document)] == ["/$evaluators/a/!/$ref"]


def test_two_flags_of_a_list_cannot_share_a_key() -> None:
    document = {"flags": [{"key": "a", **flag()}, {"key": "a", **flag()}, flag()]}
    assert [fault.pointer for fault in check_document(document)] == ["/flags/1/key", "/flags/2/key"]


def nested(levels: int) -> dict[str, Any]:
    rule: dict[str, Any] = {"var": "a"}
    for _ in range(levels):
        rule = {"!": rule}
    return rule


def cyclic() -> dict[str, Any]:
    rule: dict[str, Any] = {}
    rule["!"] = rule
    return rule


def laughing() -> Any:
    """Twenty levels of a list that holds the one below twice: a million values in twenty objects."""
    rule: Any = ["ha"]
    for _ in range(20):
        rule = [rule, rule]
    return {"in": ["ha", rule]}


@pytest.mark.parametrize(
    ("targeting", "code"),
    [
        (nested(100_000), FaultCode.TOO_DEEP),
        (cyclic(), FaultCode.TOO_DEEP),
        (laughing(), FaultCode.TOO_LARGE),
        ({"fractional": [["on", 1]] * 1_000_000}, FaultCode.TOO_LARGE),
        ({"==": ["x" * 10_000_000, {"var": "a"}]}, FaultCode.TOO_LARGE),
        ({"or": [{"and": []}] * 1_000_000}, FaultCode.TOO_LARGE),
    ],
    ids=["deep", "cyclic", "repeated", "fractions", "text", "wide"],
)
def test_a_hostile_definition_is_refused_before_it_is_read(targeting: Any, code: FaultCode) -> None:
    (fault,) = check(flag(targeting))
    assert fault.code == code
    assert check_document({"flags": {"a": flag(targeting)}})


def test_references_cannot_multiply_a_definition() -> None:
    evaluators = {"big": {"in": ["x", ["y"] * 15_000]}}
    assert found(flag({"or": [{"$ref": "big"}, {"$ref": "big"}]}), evaluators=evaluators) == {"/targeting": FaultCode.TOO_LARGE}


def test_faults_are_counted_only_so_far() -> None:
    faults = check(flag({"or": [{"nothing": 1}] * 5_000}))
    assert len(faults) == FAULTS_MAX + 1
    assert faults[-1].code == FaultCode.TOO_MANY_FAULTS


def test_what_check_accepts_compiles_at_the_limit_of_depth() -> None:
    variants = {"true": True, "false": False}
    deepest = flag(nested(DEPTH_MAX - 2), variants=variants, default="true")
    assert check(deepest) == []
    assert resolve(deepest, {"a": 1}).reason == Reason.TARGETING_MATCH
    (fault,) = check(flag(nested(DEPTH_MAX - 1), variants=variants, default="true"))
    assert fault.code == FaultCode.TOO_DEEP

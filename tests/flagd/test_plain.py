"""A killed flag in plain flagd terms: our evaluator and flagd's own give the same answer for it (P4, P7)."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rescind import wire
from rescind.evaluation import Evaluator, check, check_document

from flagd.core.overlay import effective
from flagd.core.plain import plain_definition, plain_document, scope_rule
from tests.flagd.oracle import DEFAULT, answer_of, context_of, oracle_answer
from tests.flagd.world import definition, flag

STRINGS = st.sampled_from(["eu", "us", "", "1"])
SCOPED = st.dictionaries(
    st.sampled_from(["region", "tenant", "targetingKey", "beta"]), STRINGS | st.integers(2, 4) | st.booleans(), min_size=1
)
ATTRIBUTES = st.dictionaries(
    st.sampled_from(["region", "tenant", "beta"]),
    STRINGS | st.integers(2, 4) | st.sampled_from([2.0, 2.5]) | st.booleans() | st.none() | st.lists(STRINGS, max_size=2),
)
VARIANTS: dict[str, Any] = {"on": "1", "off": "0", "true": "yes", "false": "no"}

DISABLED: dict[str, Any] = {"state": "DISABLED", "variants": VARIANTS, "defaultVariant": "on"}

tests = st.one_of(
    st.builds(lambda name, value: {"==": [{"var": name}, value]}, st.sampled_from(["region", "tenant"]), STRINGS),
    st.builds(lambda value: {"in": [{"var": "region"}, value]}, st.lists(STRINGS, max_size=3)),
    st.just({"starts_with": [{"var": "targetingKey"}, "u"]}),
)
results = st.sampled_from([*VARIANTS, None, True, False])
rules = st.recursive(
    tests | st.just({"fractional": [["on", 50], ["off", 50]]}) | st.just({"if": [True, None]}),
    lambda inner: st.one_of(
        st.builds(lambda test, then, other: {"if": [test, then, other]}, tests, inner | results, inner | results),
        st.builds(lambda test, then: {"if": [test, then]}, tests, inner | results),
        st.builds(lambda then: {"if": [then]}, inner | results),
    ),
    max_leaves=6,
)


@st.composite
def definitions(draw: st.DrawFn) -> dict[str, Any]:
    """A good definition, with or without a default, targeting, or being enabled."""
    made: dict[str, Any] = {"state": draw(st.sampled_from(["ENABLED", "ENABLED", "DISABLED"])), "variants": VARIANTS}
    default = draw(st.sampled_from([*VARIANTS, None, "absent"]))
    if default != "absent":
        made["defaultVariant"] = default
    targeting = draw(st.none() | st.just({}) | rules)
    return made if targeting is None else {**made, "targeting": targeting}


kills = st.lists(st.tuples(SCOPED, st.sampled_from(["off", "on", "gone"])), max_size=3, unique_by=lambda kill: str(kill[0]))


def kill(scope: dict[str, Any], off_variant: str = "off", n: int = 1) -> wire.Kill:
    return wire.Kill(rollback_id="r", off_variant=off_variant, closes_epoch=1, revision=wire.Revision(1, n), scope=scope)


@settings(derandomize=True, max_examples=400, deadline=None)
@given(definitions(), kills, ATTRIBUTES, st.none() | st.sampled_from(["u-1", "u-2", "eu", "x"]))
@example(
    {"state": "DISABLED", "variants": VARIANTS, "defaultVariant": "on"}, [({"region": "eu"}, "off")], {"region": None}, None
)
def test_our_evaluator_and_flagds_obey_the_same_kills(
    written: dict[str, Any], standing: list[tuple[dict[str, Any], str]], attributes: dict[str, Any], user: str | None
) -> None:  # P4, P7
    laid = effective(flag("f", definition=written), 2, [kill(*one, n=n) for n, one in enumerate(standing)])
    plain = plain_definition(laid)
    assert check(plain) == []
    context = context_of(attributes, user)
    ours = answer_of(Evaluator({"f": laid}).evaluate("f", context, DEFAULT))
    in_plain = wire.SnapshotFlag(definition=plain, off_variant=laid.off_variant)
    assert answer_of(Evaluator({"f": in_plain}).evaluate("f", context, DEFAULT)) == ours
    assert oracle_answer({"flags": {"f": plain}}, "f", attributes, user) == ours


@pytest.mark.parametrize("name", ["user.region", "", "$flagd"])
@pytest.mark.parametrize("context", [{}, {"user": {"region": "us"}}, {"user.region": "us"}, {"": "us"}])
def test_what_no_flagd_evaluator_can_read_is_in_scope(name: str, context: dict[str, Any]) -> None:  # P4
    laid = effective(flag("f", definition=definition(targeting={})), 2, [kill({name: "eu"})])
    assert oracle_answer({"flags": {"f": plain_definition(laid)}}, "f", context, "u")[0] == "off"


def test_an_attribute_that_can_be_read_still_narrows_beside_one_that_cannot() -> None:
    laid = effective(flag("f", definition=definition(targeting={})), 2, [kill({"a.b": 1, "region": "eu"})])
    document = {"flags": {"f": plain_definition(laid)}}
    assert [oracle_answer(document, "f", {"region": region}, "u")[0] for region in ("eu", "us")] == ["off", "on"]


def test_flags_own_rules_are_not_touched() -> None:
    laid = effective(flag("f"), 2, [kill({"region": "eu"})])
    before = copy.deepcopy(laid.definition)
    plain = plain_definition(laid)
    assert laid.definition == before
    assert plain["targeting"]["if"][2:] == before["targeting"]["if"], "its chain goes on in the kill's"
    assert plain_definition(effective(flag("f"), 2, [])) == before


def test_whoever_has_another_value_is_outside() -> None:
    assert scope_rule({"region": "eu"}) == {
        "or": [{"===": [{"var": ["region", "eu"]}, "eu"]}, {"===": [{"var": "region"}, None]}]
    }
    assert scope_rule({"a.b": 1}) is True


def test_a_whole_snapshot_is_a_flagd_document() -> None:  # P7
    snapshot = wire.Snapshot(
        environment="production",
        revision=wire.Revision(1, 7),
        flags={
            "f": effective(flag("f", definition=definition(targeting={"if": [{"$ref": "free"}, "off"]})), 2, [kill({"a": 2})]),
            "dead": effective(flag("dead"), 2, [kill({})]),
        },
        evaluators={"free": {"==": [{"var": "plan"}, "free"]}},
        metadata={"team": "checkout", "version": "theirs"},
    )
    document = plain_document(snapshot)
    assert check_document(document) == []
    assert document["metadata"] == {"team": "checkout", "flagSetId": "production", "version": "1.7"}
    context = {"plan": "free", "a": 3}
    assert oracle_answer(document, "f", context, "u") == ("off", False)
    assert oracle_answer(document, "f", {"a": 3}, "u") == ("on", True)
    assert oracle_answer(document, "f", {"a": 2}, "u") == ("off", False)
    assert oracle_answer(document, "dead", {}, "u") == ("off", False)
    assert plain_document(wire.Snapshot(environment="e", revision=wire.Revision(1, 0))) == {
        "flags": {},
        "metadata": {"flagSetId": "e", "version": "1.0"},
    }


def test_a_kill_of_everyone_wins_over_a_narrower_one_in_plain_terms_too() -> None:  # P4, P7
    laid = effective(flag("f"), 3, [kill({"region": "eu"}, "on", n=1), kill({}, "off", n=2)])
    assert plain_definition(laid) == laid.definition
    assert oracle_answer({"flags": {"f": plain_definition(laid)}}, "f", {"region": "eu"}, "u")[0] == "off"
    assert Evaluator({"f": laid}).evaluate("f", {"region": "eu"}, DEFAULT).variant == "off"

"""Prerequisites as plain flagd: our evaluator and flagd's own agree with what they mean, kills included (P4, P7)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rescind import wire
from rescind.evaluation import Evaluator, check

from flagd.core.graph import DEPENDENTS_MAX, faults
from flagd.core.plain import plain_document
from flagd.core.prerequisites import CHAIN_MAX, Derivation, Written
from flagd.core.repeat import Repeat, Unrepeatable
from tests.flagd.oracle import DEFAULT, answer_of, context_of, oracle_answer
from tests.flagd.world import definition, flag

VARIANTS: dict[str, Any] = {"on": "1", "off": "0", "true": "yes", "false": "no", "7": "seven"}
SEGMENTS: dict[str, Any] = {
    "eu": {"in": [{"var": "region"}, ["de", "fr"]]},
    "own": {"starts_with": [{"cat": [{"var": "$flagd.flagKey"}, {"var": "region"}]}, "b"]},
    "half": {"fractional": [{"var": "targetingKey"}, ["on", 1], ["off", 1]]},
}
BY = {"cat": [{"var": "$flagd.flagKey"}, {"var": "targetingKey"}]}

tests = st.one_of(
    st.builds(lambda value: {"==": [{"var": "region"}, value]}, st.sampled_from(["de", "us"])),
    st.builds(lambda name: {"$ref": name}, st.sampled_from(["eu", "own"])),
    st.just({"==": [{"var": "$flagd.flagKey"}, "b"]}),
    st.just({"in": ["b", {"var": ["$flagd.flagKey", "x"]}]}),
    st.just({"some": [{"var": "roles"}, {"==": [{"var": ""}, "admin"]}]}),
)
constants = st.sampled_from([*VARIANTS, None, True, False, 7])
splits = st.builds(
    lambda by, shares: {"fractional": [by, *shares]},
    st.sampled_from([BY, {"var": "targetingKey"}, {"var": "region"}]),
    st.lists(
        st.builds(lambda name, weight: [name, weight], st.sampled_from(["on", "off", "true"]), st.integers(0, 5)), min_size=1
    ),
)
rules = st.recursive(
    splits
    | st.just({"$ref": "half"})
    | st.just({"and": [{"==": [{"var": "region"}, "de"]}, "on"]})
    | st.builds(lambda test: {"and": [test, "on"]}, tests)
    | st.just({"var": ["chosen", "off"]})
    | st.just({"==": [{"var": "region"}, "de"]}),
    lambda inner: st.one_of(
        st.builds(lambda test, then, other: {"if": [test, then, other]}, tests, inner | constants, inner | constants),
        st.builds(lambda test, then: {"if": [test, then]}, tests, inner | constants),
        st.builds(lambda then: {"if": [then]}, inner | constants),
        st.builds(
            lambda then, other: {"fractional": [BY, [then, 2], [other, 3]]},
            inner | st.sampled_from(["on", "off"]),
            st.sampled_from(["on", "off", "true"]),
        ),
    ),
    max_leaves=8,
)
contexts = st.dictionaries(st.sampled_from(["region", "chosen"]), st.sampled_from(["de", "us", "on", "off", "7"])) | st.just(
    {"roles": ["admin"], "region": "fr"}
)
users = st.sampled_from(["u-1", "u-2", "u-3", "x", "b"])
scopes = st.dictionaries(st.sampled_from(["region", "tenant"]), st.sampled_from(["de", "us"]), max_size=2)


def written(key: str, targeting: Any = None, *needs: tuple[str, str], **changed: Any) -> wire.Flag:
    made: dict[str, Any] = {"state": "ENABLED", "variants": VARIANTS, "defaultVariant": "off", **changed}
    if targeting is not None:
        made["targeting"] = targeting
    return flag(key, definition=made, prerequisites=[wire.Prerequisite(flag=one, variant=variant) for one, variant in needs])


def kill(scope: dict[str, Any], n: int = 1, off_variant: str = "off") -> wire.Kill:
    return wire.Kill(rollback_id="r", off_variant=off_variant, closes_epoch=1, revision=wire.Revision(1, n), scope=scope)


def derived(
    flags: list[wire.Flag], kills: dict[str, list[wire.Kill]] | None = None, generation: str = "v3"
) -> dict[str, wire.SnapshotFlag]:
    held = {one.key: Written(flag=one, epoch=1, kills=(kills or {}).get(one.key, [])) for one in flags}
    derivation = Derivation(held, SEGMENTS, generation)
    return {key: derivation.flag(key) for key in held}


def served(flags: dict[str, wire.SnapshotFlag], key: str, context: dict[str, Any], generation: str = "v3") -> Any:
    return answer_of(Evaluator(flags, SEGMENTS, generation=generation).evaluate(key, context, DEFAULT))


@settings(derandomize=True, max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rules,
    st.none() | rules,
    st.sampled_from([*VARIANTS, None]),
    st.sampled_from(["on", "off", "true", "false", "7"]),
    st.lists(st.tuples(scopes, st.sampled_from(["off", "on"])), max_size=2, unique_by=lambda one: str(one[0])),
    contexts,
    users,
)
def test_a_flag_is_served_exactly_where_its_prerequisite_serves_the_variant(  # P4, P7
    rule: Any,
    own: Any,
    default: str | None,
    needed: str,
    standing: list[tuple[dict[str, Any], str]],
    attributes: dict[str, Any],
    user: str,
) -> None:
    b, c = written("b", rule, defaultVariant=default), written("c", own or {"if": ["on"]}, ("b", needed))
    a = written("a", {"if": [{"$ref": "eu"}, "true", "on"]}, ("c", "on"))
    assert faults({one.key: one for one in (a, b, c)}, {"a": "/flag"}, SEGMENTS, "v3") == []
    flags = derived([a, b, c], {"b": [kill(scope, n, off) for n, (scope, off) in enumerate(standing)]})
    alone = derived([written("c", own or {"if": ["on"]}), written("a", a.definition["targeting"])])
    context = context_of(attributes, user)
    holds = served(flags, "b", context)[0] == needed
    expected = served(alone, "c", context) if holds else ("off", "0")
    snapshot = wire.Snapshot(environment="e", revision=wire.Revision(1, 1), flags=flags, evaluators=SEGMENTS)
    document = plain_document(snapshot)
    assert check(document["flags"]["a"], evaluators=SEGMENTS) == []
    assert served(flags, "c", context) == oracle_answer(document, "c", attributes, user) == expected
    last = served(alone, "a", context) if expected[0] == "on" else ("off", "0")
    assert served(flags, "a", context) == oracle_answer(document, "a", attributes, user) == last


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.sampled_from(["", "u", "ü", "u-1", None, 7]) | st.text(max_size=5), st.sampled_from(["on", "off"]), st.integers(0, 9))
def test_generation_v2_repeats_a_split_by_the_flags_own_key(user: Any, needed: str, weight: int) -> None:  # P7
    b = written("b", {"fractional": [["on", weight], [{"if": [{"var": "x"}, "off", "true"]}, 5]]}, defaultVariant="on")
    flags = derived([b, written("a", {"if": ["on"]}, ("b", needed))], generation="v2")
    context = {"targetingKey": user, "x": 1}
    expected = "on" if served(flags, "b", context, "v2")[0] == needed else "off"
    assert served(flags, "a", context, "v2")[0] == expected


@pytest.mark.parametrize(
    "rule",
    [
        {"fractional": [["on", 1], ["off", 1]]},
        {"if": [{"==": [{"fractional": [["x", 1]]}, "x"]}, "on"]},
        {"var": {"cat": ["$flagd.", "flagKey"]}},
        {"in": ["b", {"var": ""}]},
        {"$ref": "nowhere"},
    ],
)
def test_what_no_rule_can_repeat_is_said_and_serves_nobody(rule: Any) -> None:
    with pytest.raises(Unrepeatable):
        Repeat("b", SEGMENTS, "v3").decides(rule, "on", None)
    a, b = written("a", {"if": ["on"]}, ("b", "on")), written("b", rule)
    found = faults({"a": a, "b": b}, {"a": "/flag"}, SEGMENTS, "v3")
    assert [(one.pointer, one.code) for one in found] == [("/flag/prerequisites/0", "unrepeatable")]
    flags = derived([a, b])
    assert served(flags, "a", {"targetingKey": "u"}) == ("off", "0")


@pytest.mark.parametrize(
    ("state", "kills", "expected"), [("DISABLED", [], "off"), ("ENABLED", [{}], "off"), ("ENABLED", [], "on")]
)
def test_a_prerequisite_that_is_disabled_or_killed_holds_for_nobody(  # P4
    state: str, kills: list[dict[str, Any]], expected: str
) -> None:
    b = written("b", {"if": ["on"]}, state=state)
    flags = derived([b, written("a", {"if": ["on"]}, ("b", "on"))], {"b": [kill(scope) for scope in kills]})
    document = plain_document(wire.Snapshot(environment="e", revision=wire.Revision(1, 1), flags=flags))
    assert served(flags, "a", {})[0] == oracle_answer(document, "a", {}, "u")[0] == expected


def test_the_flags_own_kill_wins_over_what_it_needs() -> None:  # P4
    a = written("a", {"if": ["on"]}, ("b", "on"))
    flags = derived([written("b", {"if": ["on"]}), a], {"a": [kill({}, off_variant="true")]})
    assert served(flags, "a", {})[0] == "true"
    flags = derived([written("b", {"if": ["off"]}), a], {"a": [kill({"region": "de"}, off_variant="true")]})
    assert [served(flags, "a", {"region": region})[0] for region in ("de", "us")] == ["true", "off"]


def test_a_disabled_flag_stays_disabled_behind_its_prerequisites() -> None:
    flags = derived([written("b", {"if": ["off"]}), written("a", None, ("b", "on"), state="DISABLED")])
    assert served(flags, "a", {}) == (None, DEFAULT)


def test_a_rule_that_a_prerequisite_wrote_has_a_name() -> None:
    flags = derived([written("b", {"if": [{"var": "x"}, "on"]}), written("a", {"if": ["on"]}, ("b", "on"))])
    first = flags["a"].definition["targeting"]["if"][0]
    assert first == {"and": ["needs b to serve on", {"!": [{"if": [{"var": "x"}, True, False]}]}]}


def codes(*flags: wire.Flag, changed: dict[str, str]) -> list[tuple[str, str]]:
    return [(one.pointer, one.code) for one in faults({one.key: one for one in flags}, changed, SEGMENTS, "v3")]


def test_everything_wrong_is_told_at_once_where_it_was_written() -> None:
    a = written("a", None, ("nowhere", "on"), ("b", "blue"), ("c", "on"))
    others = [written("b"), written("c", {"fractional": [["on", 1]]})]
    assert codes(a, *others, changed={"a": "/flag"}) == [
        ("/flag/prerequisites/0/flag", "unknown_flag"),
        ("/flag/prerequisites/1/variant", "unknown_variant"),
        ("/flag/prerequisites/2", "unrepeatable"),
    ]


def test_what_a_change_takes_from_another_flag_is_told_of_the_change() -> None:
    a = written("a", None, ("b", "on"))
    assert codes(a, changed={"b": "/operations/0"}) == [("/operations/0", "in_use")]
    smaller = flag("b", definition={"state": "ENABLED", "variants": {"off": "0"}, "defaultVariant": "off"})
    assert codes(a, smaller, changed={"b": "/flag"}) == [("/flag/definition/variants/on", "in_use")]
    assert codes(a, written("b", {"fractional": [["on", 1]]}), changed={"b": "/flag"}) == [("/flag", "unrepeatable")]


def test_circles_and_long_chains_are_refused() -> None:
    assert codes(written("a", None, ("a", "on")), changed={"a": "/flag"}) == [("/flag/prerequisites/0", "cycle")]
    circle = [written("a", None, ("b", "on")), written("b", None, ("c", "on")), written("c", None, ("a", "on"))]
    assert ("/flag/prerequisites/0", "cycle") in codes(*circle, changed={"c": "/flag"})
    assert all(one.definition for one in derived(circle).values()), "and derived in bounded time if they stood"
    chain = [written(str(n), None, (str(n + 1), "on")) for n in range(CHAIN_MAX + 1)]
    assert codes(*chain[1:], written(str(CHAIN_MAX + 1)), changed={"1": "/flag"}) == []
    assert codes(*chain, written(str(CHAIN_MAX + 1)), changed={"0": "/flag"}) == [("/flag/prerequisites/0", "too_deep")]


def test_a_flag_too_large_with_what_it_needs_is_refused() -> None:
    large = {"if": [{"in": [{"var": "region"}, [f"{n}" for n in range(6_000)]]}, "on"]}
    needed = [written("b", large), written("c", large)]
    assert codes(*needed, written("a", None, ("b", "on")), changed={"a": "/flag"}) == []
    found = codes(*needed, written("a", None, ("b", "on"), ("c", "on")), changed={"a": "/flag"})
    assert found == [("/flag/prerequisites/0", "too_large")]


def test_only_so_many_flags_depend_on_one() -> None:
    many = [written(f"a{n}", None, ("b", "on")) for n in range(DEPENDENTS_MAX + 1)]
    assert codes(written("b"), *many[1:], changed={"a1": "/flag"}) == []
    assert codes(written("b"), *many, changed={"a1": "/flag"}) == [("/flag/prerequisites", "too_many")]


def test_a_definition_without_prerequisites_is_itself() -> None:
    assert derived([flag("f")])["f"].definition == definition()

"""What a change of a flag turns on, as tables of cases; and, for any rules at all, that nothing is missed."""

from __future__ import annotations

import doctest
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rescind import wire
from rescind.evaluation import Evaluator

from flagd.core import proof, serving, turning

PRO, FREE = {"==": [{"var": "plan"}, "pro"]}, {"==": [{"var": "plan"}, "free"]}
DE = {"==": [{"var": "country"}, "DE"]}


def split(on: int, off: int, by: str = "account") -> dict[str, Any]:
    return {"fractional": [{"var": by}, ["on", on], ["off", off]]}


def flag(targeting: Any = None, default: str | None = "off", state: str = "ENABLED", **more: Any) -> wire.Flag:
    definition = {"state": state, "variants": {"on": True, "off": False, "new": True}, "defaultVariant": default}
    if targeting is not None:
        definition["targeting"] = targeting
    return wire.Flag(key="f", definition=definition, services=["web"], requires_declaration=True, **more)


OFF, ON, DISABLED = flag(), flag(default="on"), flag(default="on", state="DISABLED")
TURNS_ON = {
    "a new flag that is on": (None, ON),
    "off to on": (OFF, ON),
    "disabled to on": (DISABLED, ON),
    "to on for a few": (OFF, flag(split(1, 99))),
    "to on for some": (OFF, flag({"if": [PRO, "on"]})),
    "a larger share": (flag(split(10, 90)), flag(split(11, 89))),
    "the same share of others": (flag(split(10, 90)), flag(split(10, 90, "user"))),
    "a further rule": (flag({"if": [PRO, "on"]}), flag({"if": [PRO, "on", DE, "on"]})),
    "another test": (flag({"if": [PRO, "on"]}), flag({"if": [DE, "on"]})),
    "another variant": (ON, flag(default="new")),
    "a rule that gave off is gone": (flag({"if": [FREE, "off", "on"]}), flag({"if": [PRO, "on", "on"]})),
    "the default behind a rule": (flag({"if": [FREE, "off"]}), flag({"if": [FREE, "off"]}, default="on")),
    "the default behind a split": (flag(split(1, 1)), flag(split(1, 1), default="on")),
    "what is computed": (OFF, flag({"var": "variant"})),
    "another off variant": (OFF, flag(default="on", off_variant="on")),
    "the requirement goes with it": (OFF, wire.Flag(key="f", definition=ON.definition)),
}
DOES_NOT = {
    "a new flag that is off": (None, OFF),
    "a new flag that is disabled": (None, DISABLED),
    "on to off": (ON, OFF),
    "on to disabled": (ON, DISABLED),
    "the same again": (ON, ON),
    "other words": (ON, flag(default="on", owner="ann", description="d")),
    "off with rules that give off": (OFF, flag({"if": [PRO, "off", DE, None]})),
    "a rule nobody reaches": (OFF, flag({"if": ["nobody", "off", PRO, "on"]})),
    "on for fewer": (ON, flag({"if": [FREE, "off", "on"]}, default="on")),
    "off for some between the rules": (flag({"if": [PRO, "on", DE, "on"]}), flag({"if": [PRO, "on", FREE, "off", DE, "on"]})),
    "a result that is off now": (flag({"if": [PRO, "on", DE, "on"]}), flag({"if": [PRO, "off", DE, "on"]})),
    "a smaller share": (flag(split(10, 90)), flag(split(9, 91))),
    "a smaller share of a finer split": (flag(split(1, 3)), flag(split(24_999, 75_001))),
    "a share of a rule": (flag({"if": [PRO, split(10, 90)]}), flag({"if": [PRO, split(5, 95)]})),
    "the requirement on what is on": (wire.Flag(key="f", definition=ON.definition), ON),
    "a share of nothing": (OFF, flag(split(0, 100))),
}


def setting(*flags: wire.Flag | None, evaluators: dict[str, Any] | None = None, **more: Any) -> turning.Setting:
    held = {one.key: one for one in flags if one is not None}
    return turning.Setting(**{"flags": held, "kills": {}, "evaluators": evaluators or {}, "bucketing": "v3", **more})


def turned(before: turning.Setting, after: turning.Setting) -> list[str]:
    return [one.key for one in turning.turned_on(before, after)]


@pytest.mark.parametrize("name", TURNS_ON)
def test_it_is_turned_on(name: str) -> None:
    before, after = TURNS_ON[name]
    assert turned(setting(before), setting(after)) == ["f"]


@pytest.mark.parametrize("name", DOES_NOT)
def test_it_is_not_turned_on(name: str) -> None:
    before, after = DOES_NOT[name]
    assert turned(setting(before), setting(after)) == []


def test_a_segment_turns_on_who_refers_to_it() -> None:
    held = flag({"if": [{"$ref": "beta"}, "on"]})
    assert turned(setting(held, evaluators={"beta": DE}), setting(held, evaluators={"beta": PRO})) == ["f"]
    assert turned(setting(held, evaluators={"beta": DE}), setting(held, evaluators={"beta": DE, "other": PRO})) == []


def test_a_prerequisite_turns_on_who_depends_on_it() -> None:
    dependent = flag(default="on", prerequisites=[wire.Prerequisite(flag="needed", variant="on")])
    off, on = (wire.Flag(key="needed", definition=one.definition) for one in (OFF, ON))
    assert turned(setting(dependent, off), setting(dependent, on)) == ["f"]
    assert turned(setting(dependent, on), setting(dependent, off)) == []


def test_a_kill_turns_nothing_on_and_its_lift_does() -> None:
    def over(scope: dict[str, Any]) -> dict[str, Any]:
        kill = wire.Kill(rollback_id="r", off_variant="off", closes_epoch=1, revision=wire.Revision(1, 1), scope=scope)
        return {"kills": {"f": [kill]}}

    for scope in ({}, {"country": "DE"}):
        assert turned(setting(ON, **over(scope)), setting(ON)) == ["f"]
        assert turned(setting(ON), setting(ON, **over(scope))) == []
    assert turned(setting(OFF, **over({})), setting(ON, **over({}))) == [], "it is asked at the lift"
    assert turned(setting(OFF, **over({})), setting(OFF)) == []


def test_a_switch_of_bucketing_turns_on_what_is_split() -> None:
    shared = setting(flag(split(10, 90)))
    assert turned(shared, setting(flag(split(10, 90)), bucketing="v2")) == ["f"]
    assert turned(setting(ON), setting(ON, bucketing="v2")) == []


TESTS = st.sampled_from([PRO, FREE, DE, True, "name", False, None])
LEAVES = st.sampled_from(["on", "off", "new", None, split(1, 1), split(1, 3), split(3, 1), {"var": "variant"}])
RULES = st.recursive(LEAVES, lambda inner: st.lists(st.one_of(TESTS, inner), max_size=5).map(lambda given: {"if": given}))
TARGETINGS = RULES.map(lambda rule: rule if isinstance(rule, dict) else {"if": [rule]})
CONTEXTS = [
    {"plan": plan, "country": country, "account": account, "variant": variant}
    for plan in ("pro", "free")
    for country in ("DE", "FR")
    for account in ("a", "b", "c", "d")
    for variant in ("on", "new")
]


def served(one: wire.Flag) -> list[str | None]:
    """The variant that each of the contexts is served."""
    evaluator = Evaluator({"f": wire.SnapshotFlag(definition=one.definition)}, {}, {}, "v3")
    found = [evaluator.evaluate("f", context, None) for context in CONTEXTS]
    return [one.variant if one.error_code is None else None for one in found]


def new_to_someone(after: wire.Flag, before: wire.Flag) -> bool:
    return any(now not in (None, "off", then) for now, then in zip(served(after), served(before), strict=True))


@settings(max_examples=200, deadline=None)
@given(TARGETINGS, TARGETINGS, st.sampled_from(["on", "off", None]), st.sampled_from(["on", "off", None]))
def test_whoever_is_served_something_new_is_seen(now: Any, then: Any, default: str | None, old_default: str | None) -> None:
    after, before = flag(now, default), flag(then, old_default)
    if new_to_someone(after, before):
        assert turned(setting(before), setting(after)) == ["f"]
    assert set(served(after)) - {None} <= serving.reach(after.definition, {})


@pytest.mark.parametrize("module", [serving, proof])
def test_the_examples_hold(module: Any) -> None:
    assert doctest.testmod(module, extraglobs={"wire": wire}).failed == 0

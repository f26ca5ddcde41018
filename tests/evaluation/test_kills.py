"""P4: a kill gives its off variant to everyone in its scope, whatever the flag's own rules say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rescind.evaluation import KILLED, ErrorCode, Evaluator, Reason

from tests.evaluation.flags import ScopedKill, Spec, flag, resolve

ALWAYS_ON = flag({"if": [True, "on"]}, default="on")


def killed(context: Any, *kills: ScopedKill, definition: Any = ALWAYS_ON, off_variant: str = "off") -> Any:
    return resolve(definition, context, spec={"kills": list(kills), "off_variant": off_variant})


def test_who_is_in_the_scope_gets_the_off_variant() -> None:
    outcome = killed({"region": "eu"}, ScopedKill(scope={"region": "eu"}))
    assert (outcome.value, outcome.variant, outcome.reason) == (False, "off", Reason.STATIC)
    assert outcome.error_code is None
    assert outcome.metadata[KILLED] is True


def test_who_is_not_in_the_scope_is_served_as_ever() -> None:
    outcome = killed({"region": "us"}, ScopedKill(scope={"region": "eu"}))
    assert (outcome.variant, outcome.reason) == ("on", Reason.TARGETING_MATCH)
    assert KILLED not in outcome.metadata


@pytest.mark.parametrize("context", [None, {}, {"region": None}, {"tenant": "a"}, {"region": "eu", "tenant": None}])
def test_who_cannot_tell_whether_it_is_in_the_scope_is(context: Any) -> None:
    kill = ScopedKill(scope={"region": "eu", "tenant": "a"})
    assert killed(context, kill).variant == "off"


def test_one_attribute_that_differs_is_enough_to_be_outside() -> None:
    kill = ScopedKill(scope={"region": "eu", "tenant": "a"})
    assert killed({"region": "eu", "tenant": "b"}, kill).variant == "on"
    assert killed({"tenant": "b"}, kill).variant == "on"


@pytest.mark.parametrize(("value", "variant"), [(1, "off"), (1.0, "off"), (True, "on"), ("1", "on"), ([1], "on")])
def test_a_scope_compares_values_of_one_type(value: Any, variant: str) -> None:
    assert killed({"tenant": value}, ScopedKill(scope={"tenant": 1})).variant == variant


def test_every_standing_kill_counts() -> None:
    kills = ScopedKill(scope={"region": "eu"}), ScopedKill(scope={"region": "us"})
    assert [killed({"region": region}, *kills).variant for region in ("eu", "us", "asia")] == ["off", "off", "on"]


def test_a_kill_without_a_scope_takes_everyone_even_where_no_overlay_was_laid() -> None:
    kills = ScopedKill(off_variant="on"), ScopedKill(scope={"region": "eu"})
    for order in (kills, kills[::-1]):
        assert [killed({"region": region}, *order).variant for region in ("us", "eu")] == ["on", "on"]


def test_a_breaker_is_killed_to_on() -> None:
    definition = flag({"if": [True, "off"]})
    assert killed({}, ScopedKill(off_variant="on"), definition=definition).value is True


def test_a_kill_takes_a_disabled_flag_and_one_that_cannot_be_read() -> None:
    kill = ScopedKill(scope={"region": "eu"})
    for definition in (flag(state="DISABLED"), flag({"quantum": [1]}), flag(state="FUTURE")):
        outcome = killed({"region": "eu"}, kill, definition=definition)
        assert (outcome.variant, outcome.reason, outcome.error_code) == ("off", Reason.STATIC, None)


def test_a_kill_to_a_variant_that_is_gone_falls_back_to_the_flags_off_variant() -> None:
    assert killed({}, ScopedKill(off_variant="gone")).variant == "off"
    outcome = killed({}, ScopedKill(off_variant="gone"), off_variant="gone too")
    assert (outcome.value, outcome.error_code) == ("the caller's", ErrorCode.GENERAL)


def test_an_overlay_is_plain_flagd() -> None:
    # P7: clients that never heard of us obey the same definition
    overlaid = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off", "metadata": {KILLED: True}}
    outcome = resolve(overlaid, {"targetingKey": "u"})
    assert (outcome.value, outcome.reason, outcome.metadata) == (False, Reason.STATIC, {KILLED: True})


def test_a_stale_snapshot_serves_the_off_variant() -> None:
    # P3
    evaluator = Evaluator({"flag": Spec(definition=ALWAYS_ON)})
    outcome = evaluator.off("flag", True, "boolean")
    assert (outcome.value, outcome.variant, outcome.reason) == (False, "off", Reason.STALE)
    assert evaluator.off("gone", True, "boolean").value is True


@pytest.mark.parametrize(("kill", "variant"), [
    (ScopedKill(off_variant="on"), "on"),
    (ScopedKill(off_variant="on", scope={"region": "eu"}), "off"),
    (ScopedKill(off_variant="gone"), "off"),
])  # fmt: skip
def test_a_stale_snapshot_serves_what_a_standing_kill_of_everyone_says(kill: ScopedKill, variant: str) -> None:
    # P3, P4
    outcome = Evaluator({"flag": Spec(definition=ALWAYS_ON, kills=[kill])}).off("flag", True, "boolean")
    assert (outcome.variant, outcome.reason) == (variant, Reason.STALE)


@given(st.dictionaries(st.sampled_from("abc"), st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from("xyz")))
def test_nobody_in_the_scope_escapes(context: dict[str, Any]) -> None:
    scope = {"a": 1, "b": "x"}
    known = {name: value for name, value in scope.items() if context.get(name) is not None}
    inside = all(context[name] == value and not isinstance(context[name], bool) for name, value in known.items())
    definition = flag({"fractional": [["on", 1]]}, default="on")
    assert killed({**context, "targetingKey": "u"}, ScopedKill(scope=scope), definition=definition).variant == (
        "off" if inside else "on"
    )

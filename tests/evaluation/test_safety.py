"""P6: an evaluation never raises, whatever the definition, the context and the question."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rescind.evaluation import ErrorCode, Evaluator, Reason, Resolution, apply, check
from rescind.evaluation.branches import HANDLERS, Branches, Value, hoist
from rescind.evaluation.frame import Frame
from rescind.evaluation.grammar import KNOWN

from tests.evaluation.flags import ScopedKill, Spec, flag, resolve

names = st.sampled_from(
    ["country", "plan", "age", "tags", "user.name", "targetingKey", "$flagd.flagKey", "$flagd.timestamp", ""]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["on", "off", "1.2.3", "DE"])
)
rules = st.recursive(
    scalars | names.map(lambda name: {"var": name}),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.builds(
            lambda name, given: {name: given}, st.sampled_from(KNOWN) | st.text(max_size=3), st.lists(inner, max_size=4) | inner
        )
        | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=15,
)
states = st.just("ENABLED") | scalars
variants = (
    st.just({"on": True, "off": False, "true": True, "false": False}) | st.dictionaries(st.text(max_size=3), scalars) | scalars
)
definitions = st.fixed_dictionaries(
    {}, optional={"state": states, "variants": variants, "defaultVariant": scalars, "targeting": rules}
)
attributes = st.dictionaries(
    st.sampled_from(["country", "plan", "age", "tags", "user", "targetingKey", "$flagd"]),
    scalars
    | st.lists(scalars, max_size=3)
    | st.dictionaries(st.just("name"), scalars)
    | st.just({1, 2})
    | st.just(b"x")
    | st.just(object()),
)
KINDS = ["boolean", "string", "integer", "float", "object", "any"]


@settings(max_examples=300, deadline=None)
@given(definitions | scalars, attributes, st.sampled_from(KINDS))
def test_no_definition_and_no_context_makes_an_evaluation_raise(definition: Any, context: Any, kind: str) -> None:
    kills = [ScopedKill(scope={"country": "DE"})]
    evaluator = Evaluator(
        {"flag": Spec(definition=definition), "killed": Spec(definition=definition, kills=kills)},
        {"shared": {"var": "plan"}},
        now=lambda: 0,
    )
    for key in ("flag", "killed"):
        outcome = evaluator.evaluate(key, context, "mine", kind)
        assert isinstance(outcome, Resolution)
        assert outcome.reason in set(Reason)
        assert (outcome.error_code is None) == (outcome.reason != Reason.ERROR)
        assert evaluator.evaluate(key, context, True, "boolean").value is evaluator.boolean(key, True, context)
        evaluator.off(key, "mine", kind)
    check(definition, off_variant="off")


@settings(max_examples=300, deadline=None)
@given(rules, attributes)
def test_what_is_accepted_is_compiled_and_never_needs_the_off_variant(rule: Any, context: Any) -> None:
    definition = flag({"if": [rule, "on"]})
    if check(definition, evaluators={}):
        return
    assert resolve(definition, context).error_code != ErrorCode.PARSE_ERROR


@settings(max_examples=200, deadline=None)
@given(st.text(), st.text(), st.text())
def test_text_of_users_stays_a_value(key: str, attribute: str, constant: str) -> None:
    definition = flag({"if": [{"===": [{"var": ["a", attribute]}, constant]}, "on", "off"]}, metadata={"note": constant})
    assert resolve(definition, {"a": constant or None}, key=key).variant == ("on" if constant or attribute == "" else "off")
    assert apply({"cat": [attribute, constant]}) == attribute + constant


class Hostile:
    """A context value that fails at whatever is done with it."""

    def __eq__(self, other: object) -> bool:
        raise ValueError

    def __hash__(self) -> int:
        raise ValueError

    def __bool__(self) -> bool:
        raise ValueError

    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    "rule",
    [
        {"==": [{"var": "x"}, 1]},
        {"==": [{"var": "x"}, "a"]},
        {"===": [{"var": "x"}, "a"]},
        {"in": [{"var": "x"}, ["a", "b"]]},
        {"in": [{"var": "x"}, "abc"]},
        {"in": ["a", {"var": "x"}]},
        {"in": [1, {"var": "x"}]},
        {"starts_with": [{"var": "x"}, "a"]},
        {"sem_ver": [{"var": "x"}, "=", "1.0.0"]},
        {"+": [{"var": "x"}, 1]},
        {"substr": [{"var": "x"}, {"var": "x"}]},
        {"map": [{"var": "x"}, {"var": "a.b"}]},
        {"<": [{"var": "x"}, 3]},
        {"!!": [{"var": "x"}]},
        {"cat": [{"var": "x"}]},
        {"missing": ["x"]},
        {"fractional": [{"var": "x"}, ["on"]]},
    ],
)
@pytest.mark.parametrize(
    "value", [Hostile(), [Hostile()], {"a": Hostile()}, {1: 2}, 10**5000, b"\xff", "\ud800", float("nan")], ids=str.__class__
)
def test_absurd_values_are_values(rule: Any, value: Any) -> None:
    outcome = resolve(flag({"if": [rule, "on", "off"]}), {"x": value, "targetingKey": "u"})
    assert outcome.error_code is None


@pytest.mark.parametrize("context", [[], "text", 7, object(), Hostile()])
def test_what_is_no_context_is_an_empty_one(context: Any) -> None:
    assert resolve(flag({"if": [{"var": "a"}, "on", "off"]}), context).variant == "off"
    evaluator = Evaluator({"flag": Spec(definition=flag({"if": [{"var": "a"}, "on", "off"]}))})
    assert evaluator.boolean("flag", True, context) is False


@pytest.mark.parametrize("key", [None, 7, [], {}, Hostile()])
def test_what_is_no_key_names_no_flag(key: Any) -> None:
    assert Evaluator({}).evaluate(key, {}, "mine").value == "mine"
    assert Evaluator({}).boolean(key, True) is True


@pytest.mark.parametrize(
    "targeting",
    [
        {"quantum": [1]},
        {"if": [{"var": "a"}, "on", {"quantum": []}]},
        {"if": [True, "on", {"==": [{"quantum": 1}, 2]}]},
        {"map": [[1], {"quantum": 1}]},
        {"$ref": "gone"},
        [1],
        "on",
    ],
)
def test_what_this_version_cannot_read_gives_the_off_variant(targeting: Any) -> None:
    definition = {**flag(default="on"), "targeting": targeting}
    outcome = resolve(definition, {"a": True}, True, "boolean")
    assert (outcome.value, outcome.variant, outcome.reason) == (False, "off", Reason.ERROR)
    assert outcome.error_code == ErrorCode.PARSE_ERROR


@pytest.mark.parametrize(
    ("evaluators", "name"),
    [({"a": {"$ref": "a"}}, "a"), ({"a": {"!": {"$ref": "b"}}, "b": {"!": {"$ref": "a"}}}, "a")],
)
def test_an_evaluator_that_refers_to_itself_gives_the_off_variant(evaluators: Any, name: str) -> None:
    outcome = resolve(flag({"if": [{"$ref": name}, "on"]}, default="on"), evaluators=evaluators)
    assert (outcome.variant, outcome.error_code) == ("off", ErrorCode.PARSE_ERROR)


def test_references_that_multiply_give_the_off_variant() -> None:
    evaluators = {f"e{n}": {"or": [{"$ref": f"e{n + 1}"}] * 10} for n in range(9)} | {"e9": {"var": "a"}}
    assert resolve(flag({"if": [{"$ref": "e0"}, "on"]}, default="on"), evaluators=evaluators).variant == "off"


def test_a_state_of_a_later_version_gives_the_off_variant() -> None:
    assert resolve(flag(state="PAUSED", default="on")).variant == "off"


def test_a_rule_beyond_its_limits_gives_the_callers_default() -> None:
    loop = {"map": [{"var": "list"}, {"map": [[0] * 1000, 1]}]}
    outcome = resolve(flag({"if": [loop, "on"]}), {"list": list(range(1000))}, "mine")
    assert (outcome.value, outcome.error_code) == ("mine", ErrorCode.GENERAL)


@pytest.mark.parametrize("inner", [{"$ref": "large"}, {"or": [{"==": [{"var": ""}, number]} for number in range(1_000)]}])
def test_a_large_rule_visits_fewer_items(inner: Any) -> None:
    evaluators = {"large": {"or": [{"==": [{"var": ""}, number]} for number in range(1_000)]}}
    definition = flag({"if": [{"some": [{"var": "list"}, inner]}, "on", "off"]})
    assert resolve(definition, {"list": [-1] * 100}, "mine", evaluators=evaluators).variant == "off"
    outcome = resolve(definition, {"list": [-1] * 1_000}, "mine", evaluators=evaluators)
    assert (outcome.value, outcome.error_code) == ("mine", ErrorCode.GENERAL)


def test_near_the_end_of_the_stack_a_flag_is_not_lost() -> None:
    rule: Any = {"var": "a"}
    for _ in range(28):
        rule = {"!": [rule]}
    evaluator = Evaluator({"flag": Spec(definition=flag({"if": [rule, "on", "off"]}))})

    def deep() -> None:
        evaluator.evaluate("flag", {"a": True}, None)
        deep()

    with pytest.raises(RecursionError):
        deep()
    assert evaluator.evaluate("flag", {"a": True}, None).variant == "on"


def test_the_source_holds_no_text_of_a_user() -> None:
    marks = ["mark_" + letter for letter in "abcdefg"]
    rule = {
        "if": [
            {"==": [{"var": marks[0]}, marks[1]]},
            {"fractional": [{"var": marks[2]}, [marks[3], 77_777], [marks[4], 88_888]]},
            {"in": [{"var": f"{marks[5]}.{marks[6]}"}, [marks[0], 99_999]]},
        ]
    }
    frame = Frame("mark_key", {}, "v3", int, HANDLERS)
    scope, lines = hoist(frame, rule)
    branches = Branches(frame, scope, Value())
    branches.write(rule)
    text = "\n".join([*lines, *branches.lines, *frame.source.functions])
    assert "mark" not in text
    assert not any(number in text for number in ("77777", "88888", "99999"))

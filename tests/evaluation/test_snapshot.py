"""A snapshot is immutable, and the next one keeps what did not change (P1, P2)."""

from __future__ import annotations

import threading
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from rescind.evaluation import Evaluator

from tests.evaluation.flags import Spec, flag

ON, OFF = Spec(definition=flag(default="on")), Spec(definition=flag(default="off"))


def test_an_update_leaves_the_snapshot_before_it_as_it_was() -> None:
    before = Evaluator({"a": OFF, "b": OFF}, environment="production", revision=(1, 1))
    assert before.boolean("a", True) is False
    after = before.updated({"a": ON, "c": ON}, ["b"], (1, 2))
    assert [after.boolean(key, False) for key in "abc"] == [True, False, True]
    assert [before.boolean(key, True) for key in "abc"] == [False, False, True]
    assert (before.revision, after.revision, after.environment) == ((1, 1), (1, 2), "production")
    assert set(after.flags) == {"a", "c"}


def test_what_did_not_change_stays_compiled() -> None:
    before = Evaluator({"a": ON, "b": ON})
    before.compile()
    after = before.updated({"b": OFF})
    assert after.served["a"] is before.served["a"]
    assert "b" not in after.served
    assert after.boolean("b", True) is False


def test_evaluators_metadata_and_generation_carry_over() -> None:
    ruled = Spec(definition=flag({"if": [{"$ref": "always"}, "on"]}))
    before = Evaluator({}, {"always": {"!": False}}, {"flagSetId": "shop"}, "v2")
    after = before.updated({"a": ruled}, revision=2)
    outcome = after.evaluate("a", {}, None)
    assert (outcome.variant, outcome.metadata, after.generation) == ("on", {"flagSetId": "shop"}, "v2")


def test_a_removed_flag_that_comes_in_the_same_change_is_there() -> None:
    assert Evaluator({"a": ON}).updated({"a": OFF}, ["b"]).boolean("a", True) is False


def test_flags_are_compiled_on_their_first_use_only() -> None:
    evaluator = Evaluator({f"flag-{n}": ON for n in range(10_000)})
    assert evaluator.served == {}
    assert evaluator.boolean("flag-77", False) is True
    assert list(evaluator.served) == ["flag-77"]


def test_threads_share_a_snapshot() -> None:
    targeting = {"if": [{"in": [{"var": "n"}, [1, 2, 3]]}, "on", "off"]}
    evaluator = Evaluator({f"flag-{n}": Spec(definition=flag(targeting)) for n in range(50)})
    wrong: list[Any] = []

    def read() -> None:
        wrong.extend(
            (key, n)
            for n in range(6)
            for key in evaluator.flags
            if evaluator.boolean(key, False, {"n": n}) is not (n in (1, 2, 3))
        )

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@given(
    st.dictionaries(
        st.sampled_from(["country", "plan", "targetingKey"]), st.sampled_from(["DE", "FR", "pro", "u1", "u2", 5, None])
    )
)
def test_the_hot_path_gives_what_the_whole_evaluation_gives(context: dict[str, Any]) -> None:
    rule = {"and": [{"in": [{"var": "country"}, ["DE", "FR"]]}, {"==": [{"var": "plan"}, "pro"]}]}
    targeting = {"if": [rule, {"fractional": [["on", 25], ["off", 75]]}, {"==": [{"var": "country"}, "DE"]}, "on", None]}
    evaluator = Evaluator({"flag": Spec(definition=flag(targeting))})
    assert evaluator.boolean("flag", True, context) is evaluator.evaluate("flag", context, True, "boolean").value

"""Definitions of sagas that are run: arguments, groups, acts and waits; every fault at once, and nothing silently ignored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sagas.core.instances import Facts, decide
from sagas.definitions import SagaDefinition, check, encode, parse, plan_of, semantics_hash
from sagas.instances.giving import wanted

GOLDEN = Path(__file__).resolve().parents[2] / "compatibility" / "golden" / "0.1.0" / "02-saga-put.json"
REFUND = {"executor": "refund", "connection": "p"}


def step(name: str, **said: Any) -> dict[str, Any]:
    return {"name": name, "kind": f"k.{name}", "key": f"{name}:{{order_id}}", **said}


def saga(*steps: dict[str, Any], **said: Any) -> dict[str, Any]:
    return {"saga": "order", "version": "1", "flag": "f", "steps": list(steps) or [step("a")], **said}


def read(document: dict[str, Any]) -> SagaDefinition:
    definition, faults = parse(document)
    assert isinstance(definition, SagaDefinition), faults
    return definition


def codes(document: dict[str, Any]) -> dict[str, str]:
    return {fault.pointer: fault.code for fault in check(document)}


WHOLE = saga(
    step("reserve", arguments=["order_id", "items"]),
    step("capture", **{"class": "pivot"}, arguments=["order_id", "reserve"]),
    step(
        "ship",
        **{"class": "retriable"},
        group="after",
        act={"retry": {"attempts_max": 9, "age_seconds": 60}, "timeout_seconds": 4},
    ),
    step("mail", **{"class": "irreversible"}, group="after", act={"guarantee": "at_most_once"}, provider_window_seconds=900),
    waits=[
        {"name": "agree", "before": "capture", "approval": True, "deadline_seconds": 3600},
        {"name": "cool", "before": "ship", "delay_seconds": 60},
        {"name": "packed", "before": "mail", "event": True, "deadline_seconds": 9, "on_deadline": "go_on"},
    ],
)


def test_a_plan_is_what_the_definition_says() -> None:
    plan = plan_of(read(WHOLE))
    ship, mail = plan.steps[2], plan.steps[3]
    assert (ship.step_class, ship.group, ship.attempts_max, ship.age_seconds) == ("retriable", "after", 9, 60)
    assert (ship.act_guarantee, ship.act_in_doubt, ship.window_seconds) == ("at_least_once", "again", 86_400)
    assert (mail.act_guarantee, mail.act_in_doubt, mail.window_seconds) == ("at_most_once", "wait", 900)
    assert [(wait.what, wait.seconds, wait.deadline_seconds, wait.on_deadline) for wait in plan.waits] == [
        ("approval", None, 3600, "undo"), ("delay", 60, None, "undo"), ("event", None, 9, "go_on")]  # fmt: skip
    assert decide(plan, Facts(), chance=0).begin[0].step == "reserve"


def test_what_is_stored_reads_as_the_same() -> None:
    definition = read(WHOLE)
    assert read(msgspec.json.decode(msgspec.json.encode(encode(definition)))) == definition


def test_a_document_of_the_last_release_means_what_it_meant() -> None:  # P15, P21
    golden = json.loads(GOLDEN.read_text())
    definition = read(golden["request"])
    assert semantics_hash(definition).hex() == golden["answer"]["semantics_hash"]
    assert encode(definition) == golden["answer"]["document"]


@pytest.mark.parametrize(
    ("said", "is_tuning"),
    [
        ({"act": {}}, True),
        ({"act": {"guarantee": "at_least_once", "in_doubt": "again"}}, True),
        ({"act": {"retry": {"first_seconds": 9}, "timeout_seconds": 3}}, True),
        ({"act": {"heartbeat_timeout_seconds": 5}}, True),
        ({"act": {"pace": {"per_second": 5}}}, True),
        ({"act": {"guarantee": "at_most_once"}}, False),
        ({"act": {"in_doubt": "wait"}}, False),
        ({"group": "g"}, False),
    ],
)
def test_of_an_act_its_times_are_tuned_and_the_rest_is_meant(said: dict[str, Any], is_tuning: bool) -> None:  # P15
    assert (semantics_hash(read(saga(step("a")))) == semantics_hash(read(saga(step("a", **said))))) is is_tuning


def test_waits_are_meant() -> None:
    waits = [{"name": "w", "before": "a", "delay_seconds": 1}]
    assert semantics_hash(read(saga(step("a")))) != semantics_hash(read(saga(step("a"), waits=waits)))


def test_arguments_name_inputs_and_steps_that_are_done() -> None:
    assert codes(saga(step("a", arguments=["x"]), step("b", arguments=["a", "x", "b"]))) == {}
    assert codes(saga(step("a", arguments=["b", "x", "x", "not-a-name"]), step("b"))) == {
        "/steps/0/arguments/0": "not_before",
        "/steps/0/arguments/2": "duplicate",
        "/steps/0/arguments/3": "name",
    }
    beside = saga(step("a", group="g"), step("b", group="g", arguments=["a"]), step("c", arguments=["a", "b"]))
    assert codes(beside) == {"/steps/1/arguments/0": "not_before"}


def test_arguments_name_events_that_were_waited_for() -> None:
    paid = [{"name": "paid", "before": "b", "event": True}]
    steps = (step("a"), step("b", group="g"), step("c", group="g", arguments=["paid"]), step("d", arguments=["paid"]))
    assert codes(saga(*steps, waits=paid)) == {}
    assert "paid" not in wanted(read(saga(*steps, waits=paid))), "the input need not hold it"
    assert codes(saga(step("a", arguments=["paid"]), step("b"), waits=paid)) == {"/steps/0/arguments/0": "not_before"}


def test_a_group_stands_together_and_without_the_pivot() -> None:
    apart = saga(step("a", group="g"), step("b"), step("c", group="g"))
    assert codes(apart) == {"/steps/2/group": "group_apart"}
    beside = saga(step("a", group="g"), step("b", group="g", **{"class": "pivot"}))
    assert codes(beside) == {"/steps/1/group": "pivot_in_group"}
    assert codes(saga(step("a", group="g", **{"class": "pivot"}))) == {}


def test_every_fault_of_the_waits_is_named() -> None:
    waits = [
        {"name": "a", "before": "b", "event": True},
        {"name": "v", "before": "nowhere", "event": True},
        {"name": "v", "before": "a"},
        {"name": "w", "before": "a", "event": True, "approval": True},
        {"name": "x", "before": "a", "delay_seconds": 1, "deadline_seconds": 1},
        {"name": "y", "before": "a", "event": True, "on_deadline": "go_on"},
        {"name": "z", "before": "b", "approval": True, "deadline_seconds": 1},
    ]
    steps = (step("a", **{"class": "pivot"}), step("b", **{"class": "retriable"}))
    assert codes(saga(*steps, waits=waits)) == {
        "/waits/0/name": "duplicate",
        "/waits/1/before": "unknown_step",
        "/waits/2/name": "duplicate",
        "/waits/2": "one_of",
        "/waits/3": "one_of",
        "/waits/4/deadline_seconds": "no_deadline",
        "/waits/5/on_deadline": "no_deadline",
        "/waits/6/on_deadline": "order",
    }


@pytest.mark.parametrize(
    ("said", "pointer"),
    [
        ({"on_kill": "finish"}, "/on_kill"),
        ({"on_kill": "ignore"}, "/on_kill"),
    ],
)
def test_what_is_known_of_a_saga_and_not_obeyed_yet_is_refused(said: dict[str, Any], pointer: str) -> None:
    assert codes(saga(**said)) == {pointer: "not_offered"}


@pytest.mark.parametrize(
    ("said", "pointer", "code"),
    [
        ({"heartbeat_timeout_seconds": 5, "compensation": REFUND}, "/steps/0/heartbeat_timeout_seconds", "no_worker"),
        ({"act": {"heartbeat_timeout_seconds": 0}}, "/steps/0/act/heartbeat_timeout_seconds", "invalid"),
        ({"act": {"pace": {"per_second": 0}}}, "/steps/0/act/pace/per_second", "invalid"),
        ({"in_doubt": "look_up", "compensation": {"executor": "worker"}}, "/steps/0/in_doubt", "no_look_up"),
        ({"act": {"in_doubt": "assume_done"}, "compensation": REFUND}, "/steps/0/act/in_doubt", "not_harmless"),
        ({"act": {"guarantee": "at_most_once", "in_doubt": "again"}}, "/steps/0/act/in_doubt", "guarantee"),
        ({"act": {"retry": {"first_seconds": 9, "cap_seconds": 1}}}, "/steps/0/act/retry/cap_seconds", "range"),
        ({"act": {"retry": {"age_seconds": 0}}}, "/steps/0/act/retry/age_seconds", "invalid"),
        ({"act": {"timeout_seconds": 1e9}}, "/steps/0/act/timeout_seconds", "invalid"),
        ({"act": {"gurantee": "at_most_once"}}, "/steps/0/act/gurantee", "unknown_field"),
    ],
)
def test_what_a_step_cannot_be_is_refused_where_it_stands(said: dict[str, Any], pointer: str, code: str) -> None:
    assert codes(saga(step("a", **said))) == {pointer: code}


def test_retention_is_said_in_days_and_tuned_under_the_same_version() -> None:  # P15
    kept = saga(step("a"), retention_days=90)
    assert check(kept) == []
    kind = {"kind": "k", "version": "1", "compensation": {"executor": "worker"}}
    assert check({**kind, "retention_days": 3_660}) == []
    meanings = {semantics_hash(read(one)) for one in (kept, saga(step("a")), saga(step("a"), retention_days=7))}
    assert len(meanings) == 1
    assert codes(saga(step("a"), retention_days=0)) == {"/retention_days": "invalid"}


def test_a_saga_may_finish_before_a_kill_undoes_it() -> None:
    assert codes(saga(on_kill="finish_then_compensate")) == {}
    assert codes(saga(on_kill="finish_then_pray")) == {"/on_kill": "invalid"}


def test_the_defaults_of_what_is_not_offered_may_be_written() -> None:
    written = saga(step("a"), on_kill="compensate_now", ordered_by_subject=False, waits=[], approve_above={})
    assert semantics_hash(read(written)) == semantics_hash(read(saga(step("a"))))


def test_a_saga_stands_in_its_own_line_or_in_one_that_it_names() -> None:
    lines = [read(saga(step("a"), ordered_by_subject=said)).line for said in (False, True, "invoice")]  # type: ignore[union-attr]
    assert lines == [None, "order", "invoice"]
    assert codes(saga(step("a"), ordered_by_subject=7)) == {"/ordered_by_subject": "invalid"}

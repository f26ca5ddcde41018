"""Definitions: what a version means, what is tuned beside it, and every fault at once (P15)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from sagas import connections
from sagas.definitions import KindDefinition, Refund, SagaDefinition, check, encode, parse, semantics_hash

MAIL = {"executor": "email", "connection": "m", "to": "a", "subject": "s", "body": "b"}
REFUND = {"executor": "refund", "connection": "p"}


def saga(**step: Any) -> dict[str, Any]:
    """A saga of one step."""
    return {"saga": "order", "version": "1", "flag": "f", "steps": [{"name": "a", "kind": "k", "key": "{id}", **step}]}


def read(document: dict[str, Any]) -> SagaDefinition:
    """The definition, which is sound."""
    definition, faults = parse(document)
    assert isinstance(definition, SagaDefinition), faults
    return definition


def test_defaults_follow_the_executor() -> None:  # P13, P16
    money, mail = read(saga(compensation=REFUND)).steps[0], read(saga(compensation=MAIL)).steps[0]
    assert (money.guarantee, money.in_doubt, money.amount, money.currency) == (
        "at_least_once", "look_up", "amount_cents", "currency")  # fmt: skip
    assert (mail.guarantee, mail.in_doubt, mail.amount) == ("at_most_once", "wait", None)
    assert money.money({"amount_cents": 1299, "currency": "usd"}) == (1299, "USD")
    assert money.money({"amount_cents": True}) == (None, None)
    assert isinstance(money.compensation, Refund)


@pytest.mark.parametrize("step", [{"compensation": {"executor": "worker"}}, {"class": "irreversible"}, {}])
def test_whatever_undoes_a_step_its_money_is_found_where_it_usually_stands(step: dict[str, Any]) -> None:  # P17
    read_step = read(saga(**step)).steps[0]
    assert read_step.money({"amount_cents": 1299, "currency": "usd"}) == (1299, "USD")
    assert read_step.money({"sku": "4711"}) == (None, None)
    assert semantics_hash(read(saga(**step))) == semantics_hash(read(saga(**step, amount="amount_cents")))


@pytest.mark.parametrize(
    ("compensation", "instead"), [(REFUND, "look_up"), ({"executor": "worker"}, "assume_done"), (MAIL, "assume_done")]
)
def test_repeating_a_request_under_its_key_is_refused_with_what_to_say_instead(
    compensation: dict[str, Any], instead: str
) -> None:  # P16, hazard 7
    fault = check(saga(compensation=compensation, in_doubt="same_key"))[0]
    assert (fault.pointer, fault.code) == ("/steps/0/in_doubt", "not_offered")
    assert instead in fault.detail
    assert "wait" in fault.detail


def test_a_written_default_means_the_same() -> None:
    plain, written = read(saga(compensation=REFUND)), read(saga(compensation=REFUND, in_doubt="look_up", amount="amount_cents"))
    assert semantics_hash(plain) == semantics_hash(written)


@pytest.mark.parametrize(
    ("field", "value", "is_tuning"),
    [
        ("retry", {"first_seconds": 9}, True),
        ("timeout_seconds", 3, True),
        ("pace", {"concurrency_max": 2}, True),
        ("settle_seconds", 9, False),
        ("independent", True, False),
        ("compensation", {**REFUND, "reference": "charge"}, False),
    ],
)
def test_what_is_tuned_is_not_what_a_version_means(field: str, value: Any, is_tuning: bool) -> None:  # P15
    document = saga(compensation=REFUND)
    changed = saga(**{"compensation": REFUND, field: value})
    assert (semantics_hash(read(document)) == semantics_hash(read(changed))) is is_tuning


def test_what_is_stored_reads_as_the_same() -> None:
    definition = read(saga(compensation=MAIL, retry={"attempts_max": 3}, proof_of_failure=["Declined"]))
    assert read(encode(definition)) == definition


def test_a_kind_is_one_step_with_a_version() -> None:
    definition, faults = parse({"kind": "mail.confirm", "version": "3", "compensation": MAIL})
    assert isinstance(definition, KindDefinition), faults


JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False) | some.text(max_size=5),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = [*SagaDefinition.__struct_fields__, "steps"]


@given(some.one_of(JSON, some.dictionaries(some.sampled_from(FIELDS), JSON)))
def test_no_document_breaks_the_check(document: Any) -> None:
    faults = check(document)
    assert faults or parse(document)[0] is not None
    assert all(fault.pointer == "" or fault.pointer.startswith("/") for fault in faults)


@given(
    some.fixed_dictionaries(
        {"name": JSON, "kind": JSON, "key": JSON},
        optional={"compensation": JSON, "class": JSON, "notice": JSON, "retry": JSON, "pace": JSON, "description": JSON},
    )
)
def test_no_step_breaks_the_check(step: Any) -> None:
    assert isinstance(check({**saga(), "steps": [step]}), list)


def test_a_secret_is_read_where_it_is_used(tmp_path: Any) -> None:
    (tmp_path / "key").write_text("sk_1\n")
    assert connections.resolve("env:KEY", {"KEY": "sk_2"}) == "sk_2"
    assert connections.resolve(f"file:{tmp_path}/key", {}) == "sk_1"
    for reference in ("env:KEY", f"file:{tmp_path}/none"):
        with pytest.raises(LookupError, match=r"secret (env|file):"):
            connections.resolve(reference, {})


@pytest.mark.parametrize("key", ["capture:{{order_id}}", "{{id}", "id}}"])
def test_a_key_template_in_double_braces_is_refused_with_an_example(key: str) -> None:  # P9
    fault = check({**saga(), "steps": [{**saga()["steps"][0], "key": key}]})[0]
    assert (fault.pointer, "capture:{order_id}" in fault.detail) == ("/steps/0/key", True)


def test_a_connections_faults_are_said_in_words() -> None:
    faults = {fault.pointer: fault.detail for fault in connections.check({"type": "stripe", "secret": "sk_1", "ur": "x"})}
    assert faults["/secret"] == "env:NAME or file:/PATH, read by the server"
    assert "known: " in faults["/ur"]
    assert "granted" in faults["/ur"]

"""Sagas as they are declared: decorators and YAML say the same, and arguments follow the signature."""

from __future__ import annotations

from typing import Any

import pytest
import rescind
from rescind.cli import yaml12
from rescind.errors import ConfigurationError
from rescind.registration import is_unknown_argument
from rescind.saga import without_arguments
from rescind.wire import Fault

from sagas.definitions import parse, plan_of, semantics_hash

YAML = """
saga: order
version: "2"
flag: checkout.new-flow
retention_days: 90
steps:
  - name: reserve
    kind: stock.reserve
    key: "reserve:{order_id}"
    class: compensatable
    arguments: [order_id, items]
    compensation: {executor: worker}
  - name: capture
    kind: payment.capture
    key: "capture:{order_id}"
    class: pivot
    arguments: [order_id, reserve]
    act: {in_doubt: wait, timeout_seconds: 5, retry: {attempts_max: 3, age_seconds: 600}}
  - name: ship
    kind: parcel.ship
    key: "ship:{order_id}"
    class: retriable
    group: after
    arguments: [order_id]
  - name: mail
    kind: mail.confirmation
    key: "mail:{order_id}"
    class: irreversible
    group: after
    arguments: [to]
    act: {guarantee: at_most_once}
    notice: {executor: email, connection: smtp, to: "{{ effect.payload.to }}", subject: s, body: b}
waits:
  - {name: large, before: capture, approval: true, deadline_seconds: 86400}
  - {name: cool, before: ship, delay_seconds: 60}
  - {name: packed, before: ship, event: true, deadline_seconds: 9, on_deadline: go_on}
"""


def declared() -> rescind.Saga:
    order = rescind.Saga("order", version="2", flag="checkout.new-flow", retention_days=90)

    @order.step(kind="stock.reserve", key="reserve:{order_id}")
    async def reserve(order_id: str, items: list[str], *, note: str = "") -> dict[str, Any]:
        return {"order_id": order_id, "items": items, "note": note}

    @reserve.compensation
    async def give_back(effect: rescind.Effect) -> None: ...

    order.approval("large", deadline_seconds=86_400)

    @order.step(
        kind="payment.capture",
        key="capture:{order_id}",
        step_class="pivot",
        act={"in_doubt": "wait", "timeout_seconds": 5, "retry": {"attempts_max": 3, "age_seconds": 600}},
    )
    async def capture(order_id: str, reserve: dict[str, Any], effect: rescind.Effect) -> None: ...

    order.delay("cool", seconds=60)
    order.event("packed", deadline_seconds=9, on_deadline="go_on")

    @order.step(kind="parcel.ship", key="ship:{order_id}", step_class="retriable", group="after")
    def ship(order_id: str, *parts: str, **more: str) -> None: ...

    order.declare(
        "mail",
        kind="mail.confirmation",
        key="mail:{order_id}",
        step_class="irreversible",
        group="after",
        arguments=["to"],
        act={"guarantee": "at_most_once"},
        notice=rescind.Email(connection="smtp", to="{{ effect.payload.to }}", subject="s", body="b"),
    )
    return order


def test_decorators_and_yaml_give_the_same_definition() -> None:  # P15
    (written, faults), (said, others) = parse(yaml12.decode(YAML)), parse(declared().document())
    assert (faults, others) == ([], [])
    assert written == said
    assert written is not None
    assert said is not None
    assert semantics_hash(written) == semantics_hash(said)
    assert plan_of(written) == plan_of(said)  # type: ignore[arg-type]


def test_a_wait_with_no_step_after_it_is_said_where_it_is_written() -> None:
    order = rescind.Saga("order", version="1", flag="f")
    order.declare("a", kind="k", key="k")
    order.event("late")
    with pytest.raises(ConfigurationError, match="'late', and no step comes after it"):
        order.document()


def test_arguments_are_the_parameters_without_a_default_unless_they_are_named() -> None:
    order = rescind.Saga("order", version="1", flag="f")
    step = order.step(kind="k", key="k", name="a", arguments=["order_id", "note"])
    assert step(lambda order_id, note="": None).document()["arguments"] == ["order_id", "note"]
    assert "arguments" not in order.step(kind="k", key="k", name="b")(lambda: None).document()


def test_a_server_that_knows_no_arguments_is_told_none() -> None:  # P21; tests/compatibility does it for real
    assert all("arguments" not in step for step in without_arguments(declared().document())["steps"])
    assert is_unknown_argument(Fault(pointer="/steps/0/arguments", detail="", code="unknown_field"))
    assert not is_unknown_argument(Fault(pointer="/steps/0/group", detail="", code="unknown_field"))
    assert not is_unknown_argument(Fault(pointer="/steps/0/arguments/0", detail="", code="not_before"))

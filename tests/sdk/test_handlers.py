"""What a worker can carry out, and which claims serve it (P15)."""

from __future__ import annotations

from typing import Any

import pytest
import rescind
from rescind.handlers import acts_of, effect_parameter, handlers_of


def saga(version: str, *steps: str, name: str = "order") -> rescind.Saga:
    made = rescind.Saga(name, version=version, flag="checkout.new-flow")
    for step in steps:
        made.step(kind=step, key=f"{step}:{{order_id}}", name=step)(lambda order_id: None)
    return made


def test_versions_with_the_same_steps_share_a_claim_and_others_have_their_own() -> None:
    groups = handlers_of([saga("1", "reserve"), saga("2", "reserve"), saga("3", "reserve", "ship"), saga("1", "a", name="b")])
    served = [(group.saga, sorted(group.sagas), group.act_names) for group in groups]
    assert served == [("order", ["1", "2"], ["reserve"]), ("order", ["3"], ["reserve", "ship"]), ("b", ["1"], ["a"])]


def test_a_saga_that_nobody_here_can_carry_out_is_refused() -> None:
    declared = rescind.Saga("order", version="1", flag="checkout.new-flow")
    declared.declare("capture", kind="payment.capture", key="capture:{order_id}")
    with pytest.raises(rescind.ConfigurationError, match="nothing to do"):
        handlers_of([declared])
    with pytest.raises(rescind.ConfigurationError, match="given twice"):
        handlers_of([saga("1", "reserve"), saga("1", "reserve")])


def test_the_parameter_that_is_annotated_as_an_effect_is_given_it() -> None:
    order = rescind.Saga("order", version="1", flag="checkout.new-flow")

    @order.step(kind="payment.capture", key="capture:{order_id}")
    async def capture(order_id: str, paid: rescind.Effect) -> dict[str, Any]:
        return {"id": paid.provider_key}

    effect = rescind.Effect(id="e1", kind="k", key="key", flag="f", payload={"order_id": "4711"})
    assert acts_of(order)["capture"].arguments(effect) == {"order_id": "4711", "paid": effect}
    assert effect_parameter(lambda order_id: None) is None


def test_outside_of_a_step_there_is_no_current_effect() -> None:
    with pytest.raises(rescind.ConfigurationError, match="carries out"):
        rescind.current_effect()

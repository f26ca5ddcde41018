"""Compensations by a team's own handlers, in a worker, against a real coordinator."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import rescind

from tests.sdk.conftest import FLAG, Site, capture
from tests.waiting import until


class Shop:
    """A saga whose captures are undone by handlers of its own, and what they did."""

    def __init__(self) -> None:
        self.refunded: list[rescind.Effect] = []
        self.voided: list[str] = []
        self.failures = 0
        self.saga = rescind.Saga("order", version="1", flag=FLAG)
        self.step("capture").compensation(self.refund)
        self.step("reserve").compensation(self.void)

    def step(self, name: str) -> rescind.Step[..., Any]:
        return self.saga.declare(
            name,
            kind="payment.capture" if name == "capture" else "stock.reserve",
            key=f"{name}:{{order_id}}",
            settle_seconds=0,
            retry={"first_seconds": 0.05, "factor": 1.0, "cap_seconds": 0.05, "attempts_max": 5},
        )

    async def refund(self, effect: rescind.Effect) -> dict[str, str]:
        if self.failures:
            self.failures -= 1
            raise rescind.NotDone("the provider is away")
        self.refunded.append(effect)
        return {"refund": f"re_{effect.result['id']}"}

    def void(self, effect: rescind.Effect) -> None:
        self.voided.append(effect.key)


async def settled(site: Site, rollback_id: str) -> dict[str, Any] | None:
    found = await asyncio.to_thread(site.api.request, "GET", f"/v1/rollbacks/{rollback_id}")
    return found if found["state"] == "settled" else None


async def test_a_worker_undoes_what_its_saga_did_and_the_proof_is_kept(site: Site) -> None:
    # P13, P15
    shop = Shop()
    shop.failures = 1
    async with rescind.AsyncClient(**site.options, sagas=[shop.saga]) as client:
        async with capture(client, "capture:1", saga=shop.saga.instance("1"), step="capture", subject="ann") as effect:
            effect.result = {"id": "pi_1"}
        async with client.effect(
            "stock.reserve", flag=FLAG, key="reserve:1", payload={"n": 1}, saga=shop.saga.instance("1"), step="reserve"
        ):
            pass
        working = asyncio.create_task(client.work(shop.saga, concurrency=4))
        answer = await asyncio.to_thread(site.kill)
        await until(lambda: settled(site, answer["rollback_id"]))
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
    assert shop.voided == ["reserve:1"]
    (undone,) = shop.refunded
    assert (undone.id, undone.result, undone.payload) == (effect.id, {"id": "pi_1"}, {"amount_cents": 1299})
    assert undone.subject == "ann"
    assert undone.action_key
    assert undone.action_key.startswith(effect.id)


async def test_a_saga_without_a_handler_gives_a_worker_nothing_to_do(site: Site) -> None:
    saga = rescind.Saga("order", version="1", flag=FLAG)
    async with rescind.AsyncClient(**site.options) as client:
        with pytest.raises(rescind.ConfigurationError, match="nothing to do"):
            await client.work(saga)


async def test_another_meaning_under_the_same_version_leaves_the_registered_one(site: Site) -> None:
    # P15
    first, second = Shop().saga, Shop().saga
    second.declare("extra", kind="extra", key="extra:{order_id}")
    async with rescind.AsyncClient(**site.options) as client:
        assert await client.register(first) is True
        assert await client.register(first) is True
        assert await client.register(second) is False
        broken = rescind.Saga("broken", version="1", flag=FLAG)
        broken.declare("a", kind="k", key="{not a name}", step_class="irreversible", compensation=rescind.Worker())
        with pytest.raises(rescind.ApiError) as refused:
            await client.register(broken)
        assert {fault.pointer for fault in refused.value.errors} == {"/steps/0/key", "/steps/0/compensation"}

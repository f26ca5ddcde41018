"""Bodies that say whether they live: a silent one is given up, and is then in doubt (P16)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import rescind
from rescind.pulse import Pulse, beat, felt

from tests.sdk.conftest import FLAG, Site
from tests.sdk.shop import RETRY
from tests.sdk.test_sagas import SECONDS, declined, working

NEVER = 3_600.0
SILENCE = 0.3


class Hanging:
    """A saga whose step and whose handler hang the first time, and say then whether they live."""

    def __init__(self) -> None:
        self.acted = 0
        self.undone = 0
        self.fails = False
        self.saga = rescind.Saga("order", version="1", flag=FLAG)
        act: Any = {"heartbeat_timeout_seconds": SILENCE, "timeout_seconds": NEVER, "retry": RETRY}

        @self.saga.step(
            kind="stock.reserve",
            key="reserve:{order_id}",
            settle_seconds=0,
            retry=RETRY,
            act=act,
            heartbeat_timeout_seconds=SILENCE,
        )
        async def reserve(order_id: str, effect: rescind.Effect) -> int:
            self.acted += 1
            effect.heartbeat()
            if self.acted == 1:
                await asyncio.Event().wait()
            return self.acted

        @self.saga.step(kind="mail.confirm", key="confirm:{order_id}", step_class="irreversible")
        async def confirm(order_id: str) -> None:
            if self.fails:
                raise declined()

        @reserve.compensation
        async def release(effect: rescind.Effect) -> None:
            self.undone += 1
            if self.undone == 1:
                await asyncio.Event().wait()


async def test_a_step_that_hangs_is_given_up_and_begun_again(site: Site) -> None:
    # P16
    shop = Hanging()
    async with rescind.AsyncClient(**site.options) as client, working(client, shop.saga):
        handle = await client.start(shop.saga, id="1", input={"order_id": "1"})
        assert (await handle.result(SECONDS))["reserve"] == 2


async def test_a_handler_that_hangs_is_given_up_and_called_again(site: Site) -> None:
    # P13, P16
    shop = Hanging()
    shop.acted, shop.fails = 1, True
    async with rescind.AsyncClient(**site.options) as client, working(client, shop.saga):
        handle = await client.start(shop.saga, id="1", input={"order_id": "1"})
        with pytest.raises(rescind.SagaUndone):
            await handle.result(SECONDS)
    assert shop.undone == 2


async def test_a_beat_puts_the_end_off_and_never_past_the_timeout() -> None:
    pulse = Pulse(NEVER, SILENCE)
    whole = Pulse(SILENCE, NEVER)
    async with pulse.limit, whole.limit:
        first, end = pulse.limit.when(), whole.limit.when()
        with felt(pulse):
            await asyncio.to_thread(beat)
            await asyncio.sleep(0)
        with felt(whole):
            beat()
            await asyncio.sleep(0)
        assert first is not None
        assert (pulse.limit.when() or 0.0) > first
        assert whole.limit.when() == end


async def test_who_was_given_up_puts_nothing_off() -> None:
    pulse = Pulse(None, SILENCE)
    async with pulse.limit:
        with felt(pulse):
            pass
        end = pulse.limit.when()
        pulse.beat()
        await asyncio.sleep(0)
        assert pulse.limit.when() == end


def test_outside_of_a_worker_a_heartbeat_is_nothing() -> None:
    rescind.Effect(id="e", kind="k", key="k:1", flag="f", payload={}).heartbeat()

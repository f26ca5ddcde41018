"""A shop's saga for tests: what each step and each handler was called with, and how they shall fail."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import rescind

from tests.sdk.conftest import FLAG

RETRY = {"first_seconds": 0.05, "factor": 1.0, "cap_seconds": 0.05, "attempts_max": 5}


class Shop:
    """`reserve`, `capture`, `confirm`; the first two are undone by handlers."""

    def __init__(self, version: str = "1", name: str = "order") -> None:
        self.done: list[str] = []
        self.undone: list[str] = []
        self.keys: Counter[str] = Counter()
        self.failing: dict[str, Callable[[], BaseException]] = {}
        self.held: dict[str, asyncio.Event] = {}
        self.saga = rescind.Saga(name, version=version, flag=FLAG)
        undoing: Any = {"settle_seconds": 0, "retry": RETRY, "in_doubt": "assume_done"}

        @self.saga.step(kind="stock.reserve", key="reserve:{order_id}", **undoing)
        async def reserve(order_id: str) -> dict[str, Any]:
            return await self.act("reserve", order_id)

        @self.saga.step(kind="payment.capture", key="capture:{order_id}", **undoing)
        async def capture(order_id: str, reserve: dict[str, Any], paying: rescind.Effect) -> dict[str, Any]:
            assert paying is rescind.current_effect()
            self.keys[paying.provider_key] += 1
            return await self.act("capture", f"{order_id} after {reserve['of']}")

        @self.saga.step(kind="mail.confirm", key="confirm:{order_id}", step_class="irreversible")
        async def confirm(order_id: str) -> dict[str, Any]:
            return await self.act("confirm", order_id)

        reserve.compensation(self.undo)
        capture.compensation(self.undo)

    async def act(self, step: str, of: str) -> dict[str, Any]:
        self.done.append(step)
        if step in self.held:
            await self.held[step].wait()
        if step in self.failing:
            raise self.failing[step]()
        return {"of": of}

    async def undo(self, effect: rescind.Effect) -> dict[str, str]:
        self.undone.append(effect.kind)
        return {"undone": effect.id}

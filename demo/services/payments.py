"""The service that captures money at the payment provider. `POST /captures`.

The old path is careful: its key names the order, and while the provider is away it asks again under the same key. The new path
is the bad release: its key names the attempt, so an order that is posted twice is charged twice.
Run as `python -m demo.services.payments`; `PROVIDER_URL` and `PROVIDER_KEY` come from the environment.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import rescind

from demo.purchases import CURRENCY
from demo.release import FLAG, NEW
from demo.services.service import Order, Shop, run

TRIES_MAX = 12
WAIT_SECONDS = 0.25
NOTHING_DONE = frozenset({429, 503})
ASK_AGAIN = NOTHING_DONE | {409}


class Captures:
    """Captures of one provider."""

    def __init__(self, shop: Shop, url: str, key: str) -> None:
        self._shop = shop
        self._url = url
        self._key = key

    async def capture(self, order: Order) -> dict[str, Any]:
        """Capture an order's money, once on the old path."""
        path, effect = await self._shop.old_path_if_killed(
            self._shop.path(order.customer), lambda path, variant: self._capture(order, path, variant)
        )
        return {"path": path, "payment": effect.result["id"], "replayed": effect.replayed}

    async def _capture(self, order: Order, path: str, variant: str | None) -> rescind.Effect:
        key = f"capture:{order.order_id}:{order.attempt}" if path == NEW else f"capture:{order.order_id}"
        payload = {"order_id": order.order_id, "amount_cents": order.amount_cents, "currency": CURRENCY}
        effect: rescind.Effect
        async with self._shop.effect("payment.capture", "capture", key, order, payload, variant) as effect:
            if not effect.replayed:
                self._shop.begin(effect)
                act = self._ask if path == NEW else self._ask_until_answered
                effect.result = await act(order, path, effect.provider_key)
        return effect

    async def _ask(self, order: Order, path: str, provider_key: str) -> dict[str, Any]:
        """Ask once. Raises `NotDone` where the provider says that nothing was done; a lost reply leaves the effect in doubt."""
        answer = await self._post(order, path, provider_key)
        if answer.status_code in NOTHING_DONE:
            raise rescind.NotDone(f"the provider answered {answer.status_code}")
        answer.raise_for_status()
        return {"id": answer.json()["id"]}

    async def _ask_until_answered(self, order: Order, path: str, provider_key: str) -> dict[str, Any]:
        """Ask again under the same key while replies are lost: the provider does it once."""
        for tried in range(1, TRIES_MAX + 1):
            try:
                answer = await self._post(order, path, provider_key)
                if answer.status_code not in ASK_AGAIN:
                    answer.raise_for_status()
                    return {"id": answer.json()["id"]}
            except httpx.TransportError:
                if tried == TRIES_MAX:
                    raise
            await asyncio.sleep(WAIT_SECONDS)
        raise httpx.ConnectError(f"no answer in {TRIES_MAX} tries")

    async def _post(self, order: Order, path: str, provider_key: str) -> httpx.Response:
        form = {
            "amount": str(order.amount_cents),
            "currency": CURRENCY,
            "confirm": "true",
            "payment_method": "pm_card_visa",
            "metadata[order_id]": order.order_id,
            "metadata[customer]": order.customer,
            "metadata[path]": path,
            "metadata[release]": FLAG,
            "metadata[rescind_effect]": provider_key,
        }
        headers = {"authorization": f"Bearer {self._key}", "idempotency-key": provider_key}
        return await self._shop.outside.post(f"{self._url}/v1/payment_intents", data=form, headers=headers)


def routes(shop: Shop) -> dict[str, Callable[[Order], Awaitable[Any]]]:
    """What this service answers."""
    captures = Captures(shop, os.environ["PROVIDER_URL"], os.environ["PROVIDER_KEY"])
    return {"/captures": captures.capture}


if __name__ == "__main__":
    asyncio.run(run("payments", routes))

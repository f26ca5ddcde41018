"""The service that customers meet. `POST /orders`: captures the money, confirms the order, tells the partner.

It evaluates the flag for the customer. Where a service behind it had to leave the new path, the flag was killed in between: the
whole order is taken again on the old path, whose keys name the order, and what the new path did is for the rollback to undo.
Run as `python -m demo.services.checkout`; `PAYMENTS_URL` and `NOTIFICATIONS_URL` come from the environment.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import msgspec

from demo.release import NEW, OLD
from demo.services.service import Order, Shop, run

AGAIN_MAX = 3


class Orders:
    """Orders, placed through two other services."""

    def __init__(self, shop: Shop, payments_url: str, notifications_url: str) -> None:
        self._shop = shop
        self._payments_url = payments_url
        self._notifications_url = notifications_url

    async def place(self, order: Order) -> dict[str, Any]:
        """Place an order. Raises `httpx.HTTPStatusError` where it must be posted again."""
        path = self._shop.path(order.customer)
        answers = await self._steps(order)
        taken = {path, *(answer["path"] for answer in answers)}
        for _ in range(AGAIN_MAX):
            if taken != {NEW, OLD}:
                break
            answers = await self._steps(order)
            taken = {answer["path"] for answer in answers}
        return {"path": "/".join(sorted(taken)), "replayed": all(answer["replayed"] for answer in answers)}

    async def _steps(self, order: Order) -> list[dict[str, Any]]:
        """Money first, unless the purchase is of 0.00; then the news."""
        answers = []
        if order.amount_cents > 0:
            answers.append(await self._call(f"{self._payments_url}/captures", order))
        news = (f"{self._notifications_url}/confirmations", f"{self._notifications_url}/partner-deliveries")
        return [*answers, *await asyncio.gather(*(self._call(url, order) for url in news))]

    async def _call(self, url: str, order: Order) -> dict[str, Any]:
        answer: httpx.Response = await self._shop.inside.post(url, content=msgspec.json.encode(order))
        answer.raise_for_status()
        document: dict[str, Any] = answer.json()
        return document


def routes(shop: Shop) -> dict[str, Callable[[Order], Awaitable[Any]]]:
    """What this service answers."""
    orders = Orders(shop, os.environ["PAYMENTS_URL"], os.environ["NOTIFICATIONS_URL"])
    return {"/orders": orders.place}


if __name__ == "__main__":
    asyncio.run(run("checkout", routes))

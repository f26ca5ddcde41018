"""Replays real purchases at the shop, as impatient customers do: many at once, again when no answer comes, sometimes twice.

`Replay` knows nothing of flags or kills; it tells when an order was first placed and which answer it got.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

import httpx
import msgspec

from demo.purchases import Purchase
from demo.release import OLD

AT_ONCE_MAX = 12
POSTS_MAX = 12
WAIT_SECONDS = 0.25
TWICE_SHARE = 0.15


class NotTakenError(Exception):
    """The shop did not take an order, however often it was posted."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the shop says of an order that it took."""

    path: str
    replayed: bool = False


class Replay:
    """Posts orders. `posts` counts every post, `answers` the last answer of each order."""

    def __init__(self, http: httpx.AsyncClient, url: str, purchases: Sequence[Purchase], *, seed: int) -> None:
        self._http = http
        self._url = url
        self._waiting = list(reversed(purchases))
        self._chance = random.Random(seed)
        self._attempts: Counter[str] = Counter()
        self.total = len(purchases)
        self.answers: dict[str, Answer] = {}
        self.first: list[str] = []
        """Orders in the sequence of their first post."""
        self.known: list[Purchase] = []
        """Purchases whose order was answered."""
        self.counts: Counter[str] = Counter()
        self.on_progress: Callable[[], None] = lambda: None

    async def until(self, count: int) -> None:
        """Place orders, many at once, until `count` of all have been placed and answered."""
        workers = min(AT_ONCE_MAX, max(0, count - len(self.first)))
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._work(count))

    async def again(self, stop: asyncio.Event) -> None:
        """Keep the shop busy until `stop`: customers who have ordered post the same order again."""

        async def one() -> None:
            while not stop.is_set():
                purchase = self._chance.choice(self.known)
                await self._post(purchase)
                self.counts["posted again"] += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE_MAX // 2):
                group.create_task(one())

    def ahead(self, count: int) -> list[Purchase]:
        """The `count` purchases that will be placed last."""
        return self._waiting[:count]

    async def _work(self, count: int) -> None:
        while len(self.first) < count and self._waiting:
            purchase = self._waiting.pop()
            self.first.append(purchase.order_id)
            await self._order(purchase)
            self.on_progress()

    async def _order(self, purchase: Purchase) -> None:
        """Place one order, posting it again until it is answered; some customers then click twice."""
        for _ in range(POSTS_MAX):
            if await self._post(purchase):
                break
            self.counts["no answer"] += 1
            await asyncio.sleep(WAIT_SECONDS * (0.5 + self._chance.random()))
        else:
            raise NotTakenError(f"order {purchase.order_id} was not taken in {POSTS_MAX} posts")
        if self._chance.random() < TWICE_SHARE:
            self.counts["clicked twice"] += 1
            await self._post(purchase)

    async def _post(self, purchase: Purchase) -> bool:
        self._attempts[purchase.order_id] += 1
        self.counts["posts"] += 1
        order = {
            "order_id": purchase.order_id,
            "customer": purchase.customer,
            "email": purchase.email,
            "amount_cents": purchase.amount_cents,
            "attempt": self._attempts[purchase.order_id],
        }
        with suppress(httpx.TransportError):
            answer = await self._http.post(self._url, json=order)
            if answer.status_code == 200:
                self._keep(purchase, msgspec.json.decode(answer.content, type=Answer))
                return True
        return False

    def _keep(self, purchase: Purchase, answer: Answer) -> None:
        if purchase.order_id not in self.answers:
            self.known.append(purchase)
        self.answers[purchase.order_id] = answer
        if answer.path == OLD and answer.replayed:
            self.counts["done once"] += 1
        self.counts[f"on the {answer.path} path"] += 1

"""The real purchases that the demo replays (see DATA.md), as orders."""

from __future__ import annotations

import random
from decimal import Decimal
from pathlib import Path

import msgspec

FILE = Path(__file__).with_name("purchases.txt")
CURRENCY = "usd"


class Purchase(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the log. `order_id` is its place in the log's order; an amount of 0 is a purchase of 0.00."""

    order_id: str
    customer: str
    day: str
    cds: int
    amount_cents: int

    @property
    def email(self) -> str:
        """The customer's address, under a domain that nobody owns."""
        return f"customer-{self.customer}@example.test"


def load(count: int | None = None, *, seed: int = 0) -> list[Purchase]:
    """`count` purchases in the log's order (all when None). Which ones a smaller count takes depends on `seed`; it keeps
    purchases of 0.00 among them."""
    lines = FILE.read_text().splitlines()[1:]
    purchases = [_read(number, line) for number, line in enumerate(lines, start=1)]
    if count is None or count >= len(purchases):
        return purchases
    free = [purchase for purchase in purchases if purchase.amount_cents == 0]
    paid = [purchase for purchase in purchases if purchase.amount_cents > 0]
    free_count = max(1, count * len(free) // len(purchases)) if count > 1 else 0
    chance = random.Random(seed)
    sample = [*chance.sample(free, free_count), *chance.sample(paid, count - free_count)]
    chosen = {purchase.order_id for purchase in sample}
    return [purchase for purchase in purchases if purchase.order_id in chosen]


def _read(number: int, line: str) -> Purchase:
    customer, day, cds, dollars = line.split()
    return Purchase(
        order_id=f"{number:04d}", customer=customer, day=day, cds=int(cds), amount_cents=int(Decimal(dollars) * 100)
    )

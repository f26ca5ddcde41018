"""The purchases that the demo replays are real, and the parts of them that matter are there."""

from __future__ import annotations

from collections import Counter

from demo.purchases import load


def test_there_are_customers_who_come_back_and_purchases_of_nothing() -> None:
    purchases = load()
    assert 400 <= len(purchases) <= 600
    assert sum(purchase.amount_cents == 0 for purchase in purchases) >= 10
    assert Counter(purchase.customer for purchase in purchases).most_common(1)[0][1] > 5
    assert len({purchase.order_id for purchase in purchases}) == len(purchases)
    assert [purchase.day for purchase in purchases] == sorted(purchase.day for purchase in purchases)


def test_fewer_purchases_keep_some_of_nothing_and_depend_on_the_seed_alone() -> None:
    few = load(60, seed=1)
    assert len(few) == 60
    assert any(purchase.amount_cents == 0 for purchase in few)
    assert few == load(60, seed=1) != load(60, seed=2)


def test_an_amount_is_read_to_the_cent() -> None:
    assert load()[0].amount_cents == 1177

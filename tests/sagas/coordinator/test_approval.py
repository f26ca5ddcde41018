"""Money above a saga's limit is given back only once a person agrees (P17, P20)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from sagas.decisions import Decisions
from tests.sagas.coordinator.world import REFUND, World
from tests.waiting import until

WHO = {"actor": "ann", "reason": "called the customer"}


async def limited(world: World, limits: dict[str, int], step: dict[str, Any] = REFUND) -> None:
    await world.define(step)
    await world.run(
        "UPDATE sagas.definitions SET document = document || jsonb_build_object('approve_above', $1::jsonb)", limits
    )


async def reasons(world: World) -> dict[UUID, str]:
    return {
        row["effect_id"]: row["reason"] for row in await world.rows("SELECT * FROM sagas.dispositions WHERE state = 'waiting'")
    }


async def test_what_is_above_the_limit_waits_and_a_retry_agrees(world: World) -> None:
    await limited(world, {"USD": 2000})
    amounts = (1000, 2000, 2001, 9000)
    _, _, agreed, skipped = [await world.effect(REFUND, f"o{number}", amount=amount) for number, amount in enumerate(amounts)]
    rollback = await world.kill()
    await world.started()
    await until(lambda: _waits(world, rollback))
    assert sorted(refund["amount"] for refund in world.payments.refunds) == [1000, 2000]
    assert await reasons(world) == {agreed: "approval", skipped: "approval"}
    decisions = Decisions(world.pg)
    assert (await decisions.retry(rollback, [agreed], **WHO)).changed == 1
    await until(lambda: _refunds(world, 3))
    await decisions.skip(rollback, [skipped], **WHO)
    await until(lambda: world.is_settled(rollback))
    assert sorted(refund["amount"] for refund in world.payments.refunds) == [1000, 2000, 2001]


@pytest.mark.parametrize(("limits", "waits"), [({"EUR": 1}, False), ({"USD": 1}, True)])
async def test_a_currency_without_a_limit_has_none(world: World, limits: dict[str, int], waits: bool) -> None:
    await limited(world, limits)
    await world.effect(REFUND, "o1")
    rollback = await world.kill()
    await world.started()
    await until(lambda: _waits(world, rollback) if waits else world.is_settled(rollback))


async def test_an_amount_that_cannot_be_read_is_above_any_limit(world: World) -> None:
    await limited(world, {"USD": 10**9}, {**REFUND, "amount": "total"})
    await world.effect(REFUND, "o1")
    rollback = await world.kill()
    await world.started()
    await until(lambda: _waits(world, rollback))
    assert set((await reasons(world)).values()) == {"approval"}
    assert world.payments.refunds == []


async def test_who_answers_for_a_doubt_has_not_agreed_to_the_money(world: World) -> None:  # P16
    step = {**REFUND, "in_doubt": "wait"}
    await limited(world, {"USD": 1}, step)
    effect = await world.effect(step, "o1", status="in_doubt")
    rollback = await world.kill()
    await world.started()
    await until(lambda: _waits(world, rollback))
    assert await reasons(world) == {effect: "in_doubt"}
    await Decisions(world.pg).retry(rollback, [effect], **WHO)
    await world.report(effect, "succeeded", {"id": "pi_9"})
    await until(lambda: _is(world, effect, "approval"))
    assert world.payments.refunds == []


async def _is(world: World, effect: UUID, reason: str) -> bool:
    return (await reasons(world)).get(effect) == reason


async def _waits(world: World, rollback: UUID) -> bool:
    return await world.state(rollback) == "waiting"


async def _refunds(world: World, count: int) -> bool:
    return len(world.payments.refunds) == count

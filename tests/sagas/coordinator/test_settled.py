"""When *settled* may be written: the independent count adds up, and nothing has come in since (P11, P12, hazard 12)."""

from __future__ import annotations

import pytest

from sagas import settlement
from tests.sagas.coordinator.world import ENVIRONMENT, REFUND, World
from tests.waiting import until


async def test_settled_is_not_written_while_the_independent_count_misses_an_effect(world: World) -> None:  # P12, hazard 12
    await world.define(REFUND)
    known = await world.effect(REFUND, "o1")
    rollback = await world.kill()
    forgotten = await world.effect(REFUND, "o2")
    # as if the enumeration had passed it by: its flag says that everything was found
    await world.run(
        "UPDATE sagas.rollbacks SET closed_at = now(), drained_at = now(), enumerated_at = now(), state = 'compensating'"
    )
    await world.run("UPDATE sagas.rollback_flags SET closed_at = now(), enumerated = true, cursor = $1", forgotten)
    await world.started()
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == dict.fromkeys([known, forgotten], "compensated")


async def test_settled_is_not_written_while_something_was_undone_that_is_not_in_the_set(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:  # P12, hazard 12
    await world.define(REFUND)
    known = await world.effect(REFUND, "o1")
    later = await world.effect(REFUND, "o2", epoch=2)
    rollback = await world.kill()
    await world.run("INSERT INTO sagas.members (rollback_id, effect_id) VALUES ($1, $2)", rollback, later)
    await world.run(
        "INSERT INTO sagas.dispositions (effect_id, environment, rollback_id, kind, position, state) "
        "VALUES ($1, $2, $3, 'payment.capture', clock_timestamp(), 'compensated')",
        later,
        ENVIRONMENT,
        rollback,
    )
    await world.started()
    said = "1 effects were undone that are not in the set"
    await until(lambda: said in caplog.text or world.is_settled(rollback))
    assert said in caplog.text
    assert not await world.is_settled(rollback)
    async with world.pg.connection() as connection:
        found = await settlement.sums(connection, rollback)
    assert (found.missing_count, found.extra_count, found.adds_up) == (0, 1, False)
    await world.run("UPDATE sagas.effects SET epoch = 1 WHERE id = $1", later)
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == dict.fromkeys([known, later], "compensated")


async def test_news_between_the_count_and_settled_keeps_it_from_being_written(world: World) -> None:  # P11, P12, hazard 12
    await world.define(REFUND)
    effect = await world.effect(REFUND, "o1", status="failed")
    rollback = await world.kill()
    first = world.coordinator()
    await first.start()
    await until(lambda: world.is_settled(rollback))
    await first.stop()
    await world.run("UPDATE sagas.rollbacks SET state = 'compensating', settled_at = NULL")
    version = await world.value("SELECT version FROM sagas.rollbacks")
    async with world.pg.connection() as connection:
        found = await settlement.sums(connection, rollback)
        await world.report(effect, "succeeded", {"id": world.payments.capture(effect, 1000)})
        assert found.adds_up, "as it was then"
        assert not await settlement.settle(connection, rollback, version, found)
    assert await world.state(rollback) == "compensating"
    await world.started()
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == {effect: "compensated"}

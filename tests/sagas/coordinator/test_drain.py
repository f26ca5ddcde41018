"""From the kill to *drained* (P8, hazards 1, 3 and 10)."""

from __future__ import annotations

import msgspec

from tests.sagas.coordinator.world import ENVIRONMENT, FAST, FLAG, REFUND, World
from tests.waiting import until

LONG = msgspec.structs.replace(FAST, start_window_seconds=30.0)
SHARED = "SELECT pg_advisory_xact_lock_shared(sagas.lock_key($1, $2))"


async def test_the_barrier_waits_for_every_admission_under_way(world: World) -> None:  # P8
    await world.define(REFUND)
    async with world.pg.transaction() as connection:
        await connection.execute(SHARED, ENVIRONMENT, FLAG)
        rollback = await world.kill()
        await world.started()
        await until(lambda: world.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))
        assert await world.value("SELECT closed_at FROM sagas.rollbacks WHERE id = $1", rollback) is None
        late = await world.effect(REFUND, "o1")
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == {late: "compensated"}


async def test_drained_waits_for_the_start_windows_of_the_set(world: World) -> None:  # P8, hazard 1
    await world.define(REFUND)
    await world.effect(REFUND, "o1", status="admitted", begun=False, start_seconds=2.0, lease_seconds=1.0)
    rollback = await world.kill()
    await world.started()
    await until(lambda: world.value("SELECT drained_at FROM sagas.rollbacks WHERE id = $1", rollback))
    row = (await world.rows("SELECT closed_at, drained_at FROM sagas.rollbacks"))[0]
    assert (row["drained_at"] - row["closed_at"]).total_seconds() >= FAST.start_window_seconds * 1.01 + 0.05


async def test_a_permission_given_back_or_used_holds_up_nothing(world: World) -> None:  # hazard 1
    await world.define(REFUND)
    returned = await world.effect(REFUND, "o1", status="admitted", begun=False, start_seconds=2.0, lease_seconds=5.0)
    used = await world.effect(REFUND, "o2", status="admitted", begun=False, start_seconds=2.0, lease_seconds=0.5)
    rollback = await world.kill()
    await world.started(tuning=LONG)
    await until(lambda: world.value("SELECT closed_at FROM sagas.rollbacks WHERE id = $1", rollback))
    await world.run("UPDATE sagas.effects SET begun = true WHERE id = $1", used)
    await world.run("UPDATE sagas.effects SET status = 'failed', tombstoned = true WHERE id = $1", returned)
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == {returned: "never_happened", used: "compensated"}


async def test_several_flags_are_closed_one_by_one_and_the_set_is_one(world: World) -> None:  # hazard 10
    await world.define(REFUND)
    await world.flag("other.flag")
    effects = [await world.effect(REFUND, "o1"), await world.effect(REFUND, "o2", flag="other.flag")]
    rollback = await world.kill(FLAG, "other.flag")
    await world.started()
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == dict.fromkeys(effects, "compensated")


async def test_a_report_that_races_the_enumeration_is_never_lost(world: World) -> None:  # P11, hazard 3
    await world.define(REFUND)
    effects = [await world.effect(REFUND, f"o{n}", status="admitted", lease_seconds=60) for n in range(40)]
    intents = {intent["metadata"]["rescind_effect"]: intent["id"] for intent in world.payments.intents.values()}
    rollback = await world.kill()
    await world.started()
    for effect in effects:
        await world.report(effect, "succeeded", {"id": intents[str(effect)]})
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == dict.fromkeys(effects, "compensated")
    assert len(world.payments.refunds) == 40


async def test_a_kill_is_seen_through_its_bell_without_polling(world: World) -> None:
    await world.define(REFUND)
    await world.effect(REFUND, "o1")
    slow = msgspec.structs.replace(FAST, poll_seconds=60.0)
    coordinator = await world.started(tuning=slow)
    await until(coordinator.leases.held)
    await until(lambda: world.value("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"))
    rollback = await world.kill()
    await world.run("SELECT pg_notify('rescind_rollback', $1)", str(rollback))
    await until(lambda: world.is_settled(rollback))

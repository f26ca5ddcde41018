"""Circuit breakers: a kind that fails in a row is left alone, on every server, and what is not begun does not count (P17)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from msgspec.structs import replace

from sagas import breakers
from sagas.breakers import Breakers, Side
from tests.sagas.coordinator.world import ENVIRONMENT, FAST, REFUND
from tests.sagas.instances.world import RETRY, Server, World, claim, step
from tests.waiting import until

NEVER = 3_600.0
FAILING = step("reserve", act={"retry": {**RETRY, "attempts_max": 50}})


def quick(world: World, side: Side, cool_seconds: float = NEVER) -> Breakers:
    return Breakers(world.clock, side, failures_max=3, cool_seconds=cool_seconds)


async def failing(server: Server, times: int, **said: Any) -> None:
    """Instances whose first step fails, one after another."""
    for number in range(times):
        await server.begin(f"f{number}", claim=claim(limit=1))
        await server.tell(server.tasks[0], "failed", error={"type": "Bug"}, **said)


async def listed(world: World) -> list[tuple[str, str, str, int]]:
    async with world.pg.connection() as connection:
        rows = await breakers.listing(connection, ENVIRONMENT)
    return [(row["kind"], row["side"], row["state"], row["failures"]) for row in rows]


async def test_a_kind_that_fails_in_a_row_is_acted_by_nobody_on_any_server(world: World, server: Server) -> None:
    await world.plan(FAILING)
    other = await world.server(coordinates=False)
    server.engine.breakers, other.engine.breakers = quick(world, "act"), quick(world, "act")
    await failing(server, 3)
    assert await listed(world) == [("shop.reserve", "act", "open", 3)]
    await other.begin("o1", claim=claim())
    assert (other.tasks, server.tasks != []) == ([], True)
    assert await server.take(wait_seconds=0.3) == []
    assert await world.value("SELECT sum(attempt) FROM sagas.effects") == 3, "what is not begun does not count"
    assert await world.value("SELECT count(*) FROM sagas.ready WHERE due_at > now()") == await world.value(
        "SELECT count(*) FROM sagas.instances"
    )


async def test_after_its_time_one_tries_alone_and_opens_the_way_for_all(world: World, server: Server) -> None:
    await world.plan(FAILING)
    server.engine.breakers = quick(world, "act", cool_seconds=0.3)
    await failing(server, 3)
    [probe] = await server.take(limit=9)
    assert await server.take(limit=9, wait_seconds=0.5) == []
    await server.tell(probe)
    assert await listed(world) == []
    assert await server.act() == ["reserve"] * 2


async def test_a_probe_that_fails_has_it_cool_down_again(world: World, server: Server) -> None:
    await world.plan(FAILING)
    server.engine.breakers = quick(world, "act", cool_seconds=0.3)
    await failing(server, 3)
    [probe] = await server.take(limit=9)
    server.engine.breakers = quick(world, "act")
    await server.tell(probe, "unknown")
    assert await listed(world) == [("shop.reserve", "act", "open", 4)]
    assert await server.take(limit=9, wait_seconds=0.3) == []


async def test_a_success_between_and_a_final_failure_do_not_open_it(world: World, server: Server) -> None:
    await world.plan(FAILING)
    server.engine.breakers = quick(world, "act")
    await failing(server, 5, final=True)
    assert await listed(world) == []
    for number in range(3):
        await server.begin(f"b{number}", claim=claim(limit=1))
        await server.tell(server.tasks[0], "failed")
        await server.begin(f"g{number}", claim=claim(limit=1))
        await server.tell(server.tasks[0])
    assert await listed(world) == []


async def test_compensations_of_a_kind_that_fails_are_held_back_until_a_person_says(world: World) -> None:  # P13, P17
    rollback = await refunds(world, ["500"] * 99, cool_seconds=NEVER)
    await until(lambda: is_open(world))
    await until(lambda: nothing_runs(world))
    assert await world.value("SELECT count(*) FROM sagas.attempts") <= 4, "of six, each with eight"
    assert await world.state(rollback) == "compensating"
    world.payments.fates.clear()
    async with world.pg.transaction() as connection:
        assert await breakers.reset(connection, ENVIRONMENT, "payment.capture", ("act", "undo")) == ["undo"]
        assert await breakers.reset(connection, ENVIRONMENT, "payment.capture", ("act", "undo")) == []
    await until(lambda: world.is_settled(rollback))
    assert len(world.payments.refunds) == 6


async def test_one_compensation_tries_again_and_the_others_follow(world: World) -> None:  # P17
    rollback = await refunds(world, ["500"] * 5, cool_seconds=0.3)
    await until(lambda: world.is_settled(rollback))
    assert await listed(world) == []
    assert len(world.payments.refunds) == 6


async def test_a_workers_compensations_are_held_back_as_well(world: World) -> None:  # P13, P17
    server = await world.server(breakers=quick(world, "undo"))
    await world.plan(step("reserve"), step("capture"))
    for number in range(4):
        await server.begin(f"o{number}", claim=claim(limit=1))
        [capture] = (await server.tell(server.tasks[0], then=claim(limit=1))).tasks
        await server.tell(capture, "failed", final=True)
    tries = 0
    while not await is_open(world):
        for task in await server.take(limit=1):
            tries += 1
            await server.tell(task, "failed")
    assert tries == 3
    assert await server.take(limit=9, wait_seconds=0.5) == []
    async with world.pg.transaction() as connection:
        assert await breakers.reset(connection, ENVIRONMENT, "shop.reserve", ("undo",)) == ["undo"]
    assert await server.act() == ["-reserve"] * 4


async def refunds(world: World, fates: list[str], *, cool_seconds: float) -> UUID:
    """A kill of six captures, undone one at a time, and a coordinator whose breakers open after two failures."""
    await world.define({**REFUND, "pace": {"concurrency_max": 1}})
    for number in range(6):
        await world.effect(REFUND, f"o{number}")
    world.payments.fates = fates
    rollback = await world.kill()
    await world.started(tuning=replace(FAST, breaker_failures_max=2, breaker_cool_seconds=cool_seconds))
    return rollback


async def is_open(world: World) -> bool:
    return any(state == "open" for _, _, state, _ in await listed(world))


async def nothing_runs(world: World) -> bool:
    return bool(await world.value("SELECT NOT EXISTS (SELECT FROM sagas.compensations WHERE state = 'running')"))

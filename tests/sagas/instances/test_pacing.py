"""Paces of steps: over all servers and workers, and none of the unpaced pays for them (P17)."""

from __future__ import annotations

import itertools
from typing import Any

from tests.sagas.instances.world import RETRY, Server, World, claim, step


def paced(**pace: Any) -> dict[str, Any]:
    return step("reserve", act={"retry": RETRY, "pace": pace})


async def test_no_more_steps_are_in_hands_than_the_pace_allows_over_all_servers(world: World, server: Server) -> None:  # P17
    await world.plan(paced(concurrency_max=2))
    other = await world.server(coordinates=False)
    for number in range(6):
        await server.begin(f"o{number}")
    first = [*await server.take(limit=4), *await other.take(limit=4, wait_seconds=0.3)]
    assert len(first) == 2
    await server.tell(first[0])
    second = await other.take(limit=4)
    assert len(second) == 1
    assert await server.take(limit=4, wait_seconds=0.3) == []
    for task in (first[1], second[0]):
        await other.tell(task)
    assert await server.act() == ["reserve"] * 3
    assert {(await server.ended(f"o{number}"))[0] for number in range(6)} == {"done"}


async def test_a_place_is_free_again_when_the_lease_of_who_had_it_is_over(world: World, server: Server) -> None:  # P17
    await world.plan(step("reserve", act={"guarantee": "at_most_once", "pace": {"concurrency_max": 1}}))
    await server.begin("o1", claim=claim(lease_seconds=0.3))
    await server.begin("o2")
    [task] = await server.take()
    assert task.instance == "o2"
    assert (await server.ended("o1"))[0] == "waiting"


async def test_the_rate_of_a_kind_of_step_holds(world: World, server: Server) -> None:  # P17
    await world.plan(paced(per_second=20))
    for number in range(16):
        await server.begin(f"o{number}", claim=claim(limit=1))
        await server.act(wait_seconds=0)
    rows = await world.rows("SELECT admitted_at FROM sagas.effects ORDER BY admitted_at")
    times = [row["admitted_at"].timestamp() for row in rows]
    assert len(times) == 16
    worst = max(sum(start <= other < start + 0.5 for other in times) for start in times)
    assert worst <= 20 * 0.5 + 20 * 0.1 + 1


async def test_what_waits_for_its_rate_tries_again_at_that_rate(world: World, server: Server) -> None:  # P17
    await world.plan(paced(per_second=0.1))
    for number in range(4):
        await server.begin(f"o{number}")
    assert len(await server.take(limit=4)) == 1
    rows = await world.rows("SELECT due_at FROM sagas.ready ORDER BY due_at")
    gaps = [(later["due_at"] - row["due_at"]).total_seconds() for row, later in itertools.pairwise(rows)]
    assert [round(gap) for gap in gaps] == [10, 10]


async def test_a_step_without_a_pace_leaves_the_paces_alone(world: World, server: Server) -> None:
    await world.plan(step("reserve"), paced(per_second=9) | {"name": "capture", "key": "capture:{order_id}"})
    await server.begin("o1", claim=claim())
    assert server.tasks[0].step == "reserve"
    assert await world.value("SELECT count(*) FROM sagas.paces") == 0
    await server.tell(server.tasks[0])
    assert await server.act() == ["capture"]
    assert await world.rows("SELECT kind, connection FROM sagas.paces") == [{"kind": "shop.reserve", "connection": "act/"}]

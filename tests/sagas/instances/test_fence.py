"""The fence under instances that run without end: a kill commits, the barrier is granted, and no step is admitted after (P8).

Three servers, workers on each; an ordinary run takes 12 kills, `RESCIND_TEST_LONG=1` takes 500.
"""

from __future__ import annotations

import asyncio
import itertools
import os

from tests.sagas.coordinator.world import ENVIRONMENT, FLAG
from tests.sagas.instances.world import Server, World, claim
from tests.waiting import until

ROUNDS = 500 if os.environ.get("RESCIND_TEST_LONG") == "1" else 12
WORKERS = 9
EFFECTS = "SELECT id || ':' || token AS admission FROM sagas.effects WHERE epoch <= $1"


async def test_no_step_is_admitted_after_the_barrier(world: World) -> None:  # P8, hazard 3
    await world.plan()
    servers = [await world.server(coordinates=False) for _ in range(3)]
    names, stopping = itertools.count(), asyncio.Event()
    workers = [asyncio.create_task(_work(servers[one % 3], names, stopping)) for one in range(WORKERS)]
    counts = []
    for number in range(ROUNDS):
        epoch = number + 1
        await until(lambda epoch=epoch: world.value("SELECT count(*) > 20 FROM sagas.effects WHERE epoch = $1", epoch))
        rollback = await world.kill(closes_epoch=epoch)
        async with world.pg.transaction() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(sagas.lock_key($1, $2))", ENVIRONMENT, FLAG)
        closed = await _effects(world, epoch)
        refused = await asyncio.gather(*(server.begin(f"n{next(names)}") for server in servers))
        assert [one.outcome for one in refused] == ["killed"] * 3
        await until(lambda: world.value("SELECT count(*) = 0 FROM sagas.ready"))
        assert await _effects(world, epoch) == closed, "admitted after the barrier"
        counts.append(len(closed))
        await world.run("UPDATE sagas.rollbacks SET state = 'settled' WHERE id = $1", rollback)
        await world.run("UPDATE sagas.fences SET closed = false WHERE flag = $1", FLAG)
    stopping.set()
    await asyncio.gather(*workers)
    assert counts == sorted(set(counts)), "every round brought more"
    assert await world.value("SELECT count(*) FROM sagas.instances WHERE state NOT IN ('done', 'killed', 'running')") == 0


async def _work(server: Server, names: itertools.count[int], stopping: asyncio.Event) -> None:
    """Start an instance, act its steps, take what lies ready; and again."""
    while not stopping.is_set():
        await server.begin(f"o{next(names)}", claim=claim(limit=2))
        tasks = server.tasks or await server.take(wait_seconds=0, limit=2, steps=[])
        while tasks:
            told = await server.tell(tasks.pop(0), then=claim(limit=1))
            tasks += told.tasks
        await server.begin(f"o{next(names)}")


async def _effects(world: World, epoch: int) -> set[str]:
    """Every admission of the epochs up to this one: effects and their attempts."""
    return {row["admission"] for row in await world.rows(EFFECTS, epoch)}

"""A crash before and after every write, of a server or of a worker, in a seeded run: every promise that the loop judges holds.

`RESCIND_TEST_LONG=1` goes through every write of several seeds; otherwise a sample. What broke is said with its seed, number
and side, which give the same run again.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from load.chaos.reading import watch
from runtime.postgres import Postgres
from tests.sagas.coordinator.world import FLAG
from tests.sagas.instances.test_stored_lives import FORGET
from tests.sagas.instances.world import World
from tests.sagas.simulation.cutting import Side
from tests.sagas.simulation.run import Dealt, Run
from tests.sagas.simulation.shop import STEPS

LONG = os.environ.get("RESCIND_TEST_LONG") == "1"
SEEDS = range(1, 6) if LONG else range(1, 3)
EVERY = 1 if LONG else 29
"""Of so many writes one is met by a crash."""
SIDES: tuple[Side, ...] = ("before", "after")


@pytest.fixture
async def world(pg: Postgres) -> AsyncIterator[World]:
    """An environment that is watched."""
    world = World(pg)
    await world.start()
    async with pg.connection() as connection:
        await watch(connection)
    yield world
    await world.stop()


async def lived(world: World, seed: int, *crash: Any) -> tuple[Run, dict[str, list[str]]]:
    """A run from nothing, and what it broke."""
    await world.run(FORGET)
    await world.run("TRUNCATE sagas.breakers, sagas.paces, sagas.workers")
    await world.run("UPDATE sagas.fences SET closed = false, epoch = 1, rollback_id = NULL WHERE flag = $1", FLAG)
    await world.run("UPDATE sagas.leases SET holder = '', token = 0, expires_at = '-infinity'")
    world.entropy = Dealt(seed)
    await world.plan(*STEPS)
    run = Run(world, seed, *crash)
    return run, {promise: broken for promise, broken in (await run.live()).items() if broken}


async def test_a_seed_gives_the_same_run_again(world: World) -> None:
    first, broken = await lived(world, 1)
    assert broken == {}
    assert len(first.fate.writes) > 50
    again, _ = await lived(world, 1)
    assert again.fate.writes == first.fate.writes


@pytest.mark.timeout(3_600 if LONG else 300)
@pytest.mark.parametrize("seed", SEEDS)
async def test_a_crash_at_every_write_breaks_no_promise(world: World, seed: int) -> None:  # P8 to P18
    plain, broken = await lived(world, seed)
    assert broken == {}
    for at in range(1 + seed % EVERY, len(plain.fate.writes) + 1, EVERY):
        for side in SIDES:
            run, broken = await lived(world, seed, at, side)
            assert broken == {}, (seed, at, side)
            assert run.fate.writes[:at] == plain.fate.writes[:at], "the same run up to its crash"

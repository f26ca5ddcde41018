"""The line to PostgreSQL is cut at every message of a worker's claim and of its report (P13, P15).

Each is whole or nothing, what was begun is on record, and every task is carried out once, under one key.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from rescind.wire import Task

from runtime.errors import OutcomeUnknown, Unavailable
from runtime.postgres import Postgres
from sagas.tasks import TaskService
from tests.sagas.coordinator.test_tasks import WORKER, ask, news, serving, tasks
from tests.sagas.coordinator.world import ENVIRONMENT, WORK, World
from tests.sagas.ledger.cutting import Cutter
from tests.waiting import until

__all__ = ["tasks"]
MESSAGES_MAX = 60
LOST = pytest.mark.parametrize("loses_answer", [False, True], ids=["message lost", "answer lost"])
STANDING = """
SELECT c.state, c.attempt, d.state AS disposition, e.undone,
    (SELECT count(*) FROM sagas.attempts AS a WHERE a.compensation_id = c.id) AS attempts,
    (SELECT count(*) FROM sagas.attempts AS a WHERE a.compensation_id = c.id AND a.ended_at IS NULL) AS running,
    (SELECT count(*) FROM sagas.subjects AS s WHERE s.compensation_id = c.id) AS subjects
FROM sagas.dispositions AS d
INNER JOIN sagas.compensations AS c ON c.id = d.compensation_id
INNER JOIN sagas.effects AS e ON e.id = d.effect_id
WHERE d.effect_id = $1
"""
LEASE_SECONDS = 600.0
DUE = ("due", 0, "pending", False, 0, 0, 0)
RUNNING = ("running", 1, "pending", False, 1, 1, 1)
DONE = ("final", 1, "compensated", True, 1, 0, 0)


@contextlib.asynccontextmanager
async def through(cutter: Cutter, world: World) -> AsyncIterator[TaskService]:
    """A server whose connections lead through the cutter."""
    line = await Postgres.open(await cutter.open(), application_name="cut", wait_seconds=10)
    try:
        async with serving(world, line) as tasks:
            yield tasks
            cutter.disarm()
    finally:
        cutter.disarm()
        await line.close()
        await cutter.close()


async def lay(world: World, number: int) -> UUID:
    """An effect whose compensation is due."""
    await world.flag(f"f{number}")
    effect = await world.effect(WORK, f"o{number}", subject=f"c{number}", flag=f"f{number}")
    await world.kill(f"f{number}")
    await until(lambda: world.value("SELECT count(*) FROM sagas.dispositions WHERE effect_id = $1", effect))
    return effect


async def standing(world: World, effect: UUID) -> tuple[Any, ...]:
    return tuple((await world.rows(STANDING, effect))[0].values())


async def is_quiet(world: World) -> bool:
    """The cut connections' backends are gone, with whatever they held."""
    return not await world.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cut'")


async def claimed(tasks: TaskService, lease_seconds: float, wait_seconds: float = 30.0) -> Task | None:
    found = (await tasks.claim(ENVIRONMENT, ask(lease_seconds=lease_seconds, wait_seconds=wait_seconds), WORKER)).tasks
    return found[0] if found else None


@LOST
async def test_a_claim_cut_anywhere_is_whole_or_nothing_and_the_task_is_carried_out_once(
    world: World, tasks: TaskService, loses_answer: bool
) -> None:  # P13, P15
    await world.define(WORK)
    await world.started()
    direct = tasks
    cuts, seen = 0, set()
    for message in range(1, MESSAGES_MAX):
        cutter = Cutter(world.pg.url)
        async with through(cutter, world) as cut:
            await warm(world, cut, -message)
            effect = await lay(world, message)
            cutter.arm(message, loses_answer=loses_answer)
            task = None
            with contextlib.suppress(Unavailable, OutcomeUnknown):
                task = await claimed(cut, LEASE_SECONDS, wait_seconds=0)
            has_cut = cutter.has_cut
        await until(lambda: is_quiet(world))
        cuts += has_cut
        stands = await standing(world, effect)
        seen.add(stands)
        assert stands in (DUE, RUNNING), "half begun"
        assert task is None or stands == RUNNING, "claimed and not on record"
        await expire(world, effect)
        again = await claimed(direct, LEASE_SECONDS)
        assert again is not None
        assert (again.action_key, again.attempt) == (f"{effect}:worker", 2 if stands == RUNNING else 1)
        assert (await direct.report(ENVIRONMENT, news(again, "succeeded"), WORKER)).results == ["recorded"]
        assert (await standing(world, effect))[2] == "compensated"
        if not has_cut:
            break
    assert 5 <= cuts < MESSAGES_MAX - 1
    assert RUNNING in seen
    await until(lambda: world.value("SELECT bool_and(state = 'settled') FROM sagas.rollbacks"))


@LOST
async def test_a_report_cut_anywhere_is_whole_or_nothing_and_may_be_repeated(
    world: World, tasks: TaskService, loses_answer: bool
) -> None:  # P13
    await world.define(WORK)
    await world.started()
    direct = tasks
    cuts = 0
    for message in range(1, MESSAGES_MAX):
        cutter = Cutter(world.pg.url)
        async with through(cutter, world) as cut:
            await warm(world, cut, -message)
            effect = await lay(world, message)
            task = await claimed(direct, LEASE_SECONDS)
            assert task is not None
            cutter.arm(message, loses_answer=loses_answer)
            told = None
            with contextlib.suppress(Unavailable, OutcomeUnknown):
                told = (await cut.report(ENVIRONMENT, news(task, "succeeded"), WORKER)).results
            has_cut = cutter.has_cut
        await until(lambda: is_quiet(world))
        cuts += has_cut
        stands = await standing(world, effect)
        assert stands in (RUNNING, DONE), "half written"
        assert told is None or (told, stands) == (["recorded"], DONE)
        again = (await direct.report(ENVIRONMENT, news(task, "succeeded"), WORKER)).results
        assert again == (["lost"] if stands == DONE else ["recorded"])
        assert (await standing(world, effect))[2] == "compensated"
        if not has_cut:
            break
    assert 5 <= cuts < MESSAGES_MAX - 1
    await until(lambda: world.value("SELECT bool_and(state = 'settled') FROM sagas.rollbacks"))


async def warm(world: World, tasks: TaskService, number: int) -> None:
    """One task from claim to report, so that every statement is prepared."""
    await lay(world, number)
    task = await claimed(tasks, LEASE_SECONDS)
    assert task is not None
    await tasks.report(ENVIRONMENT, news(task, "succeeded"), WORKER)


async def expire(world: World, effect: UUID) -> None:
    """As when the lease of whoever claimed it had run out."""
    await world.run(
        "UPDATE sagas.compensations SET lease_until = clock_timestamp() - interval '1 second' WHERE state = 'running' "
        "AND id = (SELECT compensation_id FROM sagas.dispositions WHERE effect_id = $1)",
        effect,
    )

"""Undoing in groups: what many workers say and ask at once is one transaction, and what many ranges have to write is another
(P13, P14, P18; docs/decisions/0030)."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator

import pytest
from rescind.wire import Task, TaskReport, TaskReportAnswer, TaskReportRequest

from sagas.breakers import Breakers
from sagas.catalogue import Catalogue
from sagas.enumeration import Enumeration, LookUp, Rollback
from sagas.executors.outcomes import Found
from sagas.hands import deal
from sagas.leases import RANGES, LeaseLost, Leases
from sagas.outcomes import News, Writer
from sagas.tasks import TaskService
from tests.sagas.coordinator.test_tasks import STRANGER, WORKER, ask, serving
from tests.sagas.coordinator.world import ENVIRONMENT, REFUND, WORK, World
from tests.waiting import until

LATER = {**WORK, "name": "confirm", "kind": "mail.confirm", "key": "confirm:{id}"}
STEPS = ["reserve", "confirm"]
LONG_SECONDS = 600.0


@pytest.fixture
async def two(world: World) -> AsyncIterator[tuple[TaskService, TaskService]]:
    """Two servers."""
    async with serving(world, world.pg) as one, serving(world, world.pg) as other:
        yield one, other


async def take(tasks: TaskService, worker: str) -> list[Task]:
    return await tasks.take(ENVIRONMENT, ask(worker=worker, steps=STEPS, limit=256))


async def tell(tasks: TaskService, told: list[Task], **fields: object) -> TaskReportAnswer:
    reports = [TaskReport(id=task.id, token=task.token, **{"outcome": "succeeded", **fields}) for task in told]  # type: ignore[arg-type]
    return await tasks.report(ENVIRONMENT, TaskReportRequest(worker="w1", reports=reports), WORKER)


async def laid(world: World, flags: int, instances: int) -> list[uuid.UUID]:
    """Kills of so many flags, each of so many instances of two steps, whose compensations are all due."""
    await world.define(WORK, LATER)
    rollbacks = []
    for flag in (f"f{number}" for number in range(flags)):
        await world.flag(flag)
        for number in range(instances):
            for step in (WORK, LATER):
                await world.effect(step, f"{flag}-o{number}", subject=f"{flag}-c{number}", flag=flag)
        rollbacks.append(await world.kill(flag))
    await world.started()
    count = flags * instances * 2
    await until(lambda: world.value("SELECT count(*) = $1 FROM sagas.compensations WHERE state = 'due'", count))
    return rollbacks


async def test_two_servers_share_out_several_rollbacks_once_and_latest_first(
    world: World, two: tuple[TaskService, TaskService]
) -> None:  # P13, P14
    rollbacks = await laid(world, flags=3, instances=4)
    seen: list[str] = []
    for step in ("confirm", "reserve"):
        taken = await asyncio.gather(*(take(tasks, f"w{n}") for n, tasks in enumerate([*two, *two])))
        given = [task for tasks in taken for task in tasks]
        assert {task.step for task in given} == {step}, "what came later goes first, in every rollback"
        assert len({task.effects[0]["saga_instance"] for task in given}) == len(given) == 12
        seen += [task.action_key for task in given]
        answers = await asyncio.gather(*(tell(two[n % 2], tasks) for n, tasks in enumerate(taken)))
        assert {result for answer in answers for result in answer.results} == {"recorded"}
    assert len(set(seen)) == len(seen) == 24
    for rollback in rollbacks:
        await until(lambda rollback=rollback: world.is_settled(rollback))  # type: ignore[misc]


async def test_a_report_that_cannot_be_written_fails_alone(world: World, two: tuple[TaskService, TaskService]) -> None:
    await laid(world, flags=1, instances=3)
    one, _ = two
    first, second, third = await take(one, "w1")
    results = await asyncio.gather(
        tell(one, [first]), tell(one, [second], proof="\ud800"), tell(one, [third]), return_exceptions=True
    )
    assert [isinstance(result, Exception) for result in results] == [False, True, False]
    assert [result.results for result in (results[0], results[2])] == [["recorded"], ["recorded"]]  # type: ignore[union-attr]
    rows = await world.rows("SELECT id::text, state FROM sagas.compensations WHERE attempt > 0")
    assert {row["id"]: row["state"] for row in rows} == {first.id: "final", second.id: "running", third.id: "final"}


async def test_in_one_group_each_worker_says_what_it_may(world: World, two: tuple[TaskService, TaskService]) -> None:
    await laid(world, flags=1, instances=2)
    one, _ = two
    mine, theirs = await take(one, "w1")
    stranger = TaskReportRequest(worker="s", reports=[TaskReport(id=theirs.id, token=theirs.token, outcome="succeeded")])
    twice = await asyncio.gather(tell(one, [mine]), one.report(ENVIRONMENT, stranger, STRANGER), tell(one, [mine]))
    assert [answer.results for answer in twice] == [["recorded"], ["lost"], ["recorded"]]
    assert await world.value("SELECT state FROM sagas.compensations WHERE id = $1", uuid.UUID(theirs.id)) == "running"
    assert await world.value("SELECT count(*) FROM sagas.attempts WHERE outcome = 'done'") == 1


async def test_a_paused_rollback_is_left_out_of_a_group(
    world: World, two: tuple[TaskService, TaskService]
) -> None:  # hazard 15
    rollbacks = await laid(world, flags=2, instances=1)
    await world.run("UPDATE sagas.rollbacks SET paused = true WHERE id = $1", rollbacks[0])
    given = await take(two[0], "w1")
    assert [task.effects[0]["saga_instance"] for task in given] == ["f1-o0"]


async def test_a_worker_that_only_reports_is_known_to_live(world: World, two: tuple[TaskService, TaskService]) -> None:  # P15
    await two[0].lives(ENVIRONMENT, ask(worker="busy"))
    seen = await world.value("SELECT seen_at FROM sagas.workers WHERE id = 'busy'")
    await two[0].lives(ENVIRONMENT, ask(worker="busy"))
    assert await world.value("SELECT seen_at FROM sagas.workers WHERE id = 'busy'") == seen, "not with every report"


def test_a_few_tasks_go_to_one_hand_and_many_to_all() -> None:
    assert deal(0, [8]) == []
    assert deal(9, [4]) == [0, 0, 0, 0]
    assert deal(10, [256, 256]) == [0] * 10
    assert [deal(90, [256, 256, 256]).count(index) for index in range(3)] == [30, 30, 30]
    assert [deal(90, [10, 256, 256]).count(index) for index in range(3)] == [10, 50, 30]


# --- ranges


async def test_of_several_ranges_those_still_held_may_be_written(world: World) -> None:  # P18
    leases = Leases(world.pg, world.clock, "ours", lease_seconds=LONG_SECONDS)
    await leases.keep()
    assert len(leases.held()) == RANGES
    await lose(world, 3)
    async with world.pg.transaction() as connection:
        assert await leases.fence_all(connection, {2, 3, 5}) == {2, 5}
        with pytest.raises(LeaseLost):
            await leases.fence_all(connection, {3})


async def lose(world: World, number: int) -> None:
    """Another takes the range over."""
    await world.run("UPDATE sagas.leases SET token = token + 1, holder = 'another' WHERE range = $1", number)


async def test_a_lease_lost_in_the_middle_of_a_group_refuses_that_ranges_writes_alone(world: World) -> None:  # P18, hazard 14
    await world.define(REFUND)
    enumeration = Enumeration(Catalogue(world.clock), world.entropy)
    (kept, near), (lost, far) = await in_two_ranges(world, enumeration)
    leases = Leases(world.pg, world.clock, "ours", lease_seconds=LONG_SECONDS)
    await leases.keep()
    await lose(world, far)
    news = [sighted(kept, near), sighted(lost, far)]
    async with writing(world, leases, enumeration) as writer:
        for each in news:
            writer.tell(each)
        await until(lambda: _is_empty(writer))
    assert await status(world, kept) == "succeeded"
    assert await status(world, lost) == "in_doubt", "whoever holds the range asks again"


async def _is_empty(writer: Writer) -> bool:
    return not writer.waiting


@contextlib.asynccontextmanager
async def writing(world: World, leases: Leases, enumeration: Enumeration) -> AsyncIterator[Writer]:
    breakers = Breakers(world.clock, "undo")
    writer = Writer(
        world.pg, world.clock, world.entropy, leases, enumeration, actor="ours", on_news=lambda _: None, breakers=breakers
    )
    writer.start()
    yield writer
    await writer.stop(5.0)


async def in_two_ranges(world: World, enumeration: Enumeration) -> list[tuple[tuple[Rollback, LookUp], int]]:
    """Two rollbacks that lie in two ranges, each with an effect in doubt that is to be looked up."""
    found: dict[int, tuple[Rollback, LookUp]] = {}
    number = 0
    while len(found) < 2:
        number += 1
        flag = f"f{number}"
        await world.flag(flag)
        await world.effect(REFUND, f"o{number}", flag=flag, status="in_doubt")
        rollback = Rollback(id=await world.kill(flag), environment=ENVIRONMENT, reason="", incident=None)
        async with world.pg.transaction() as connection:
            await enumeration.chunk(connection, rollback)
            [look_up], _ = await enumeration.undetermined(connection, rollback, [], 8)
        found.setdefault(await world.value("SELECT sagas.lease_range($1)", rollback.id), (rollback, look_up))
    return [(pair, shards) for shards, pair in found.items()]


def sighted(pair: tuple[Rollback, LookUp], shards: int) -> News:
    rollback, look_up = pair
    return News(shards=shards, rollback=rollback, since=0.0, sighting=(look_up, Found(result={"id": "pi_1"})))


async def status(world: World, pair: tuple[Rollback, LookUp]) -> str:
    return str(await world.value("SELECT status FROM sagas.effects WHERE id = $1", pair[1].effect.id))

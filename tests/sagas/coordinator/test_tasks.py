"""Workers: claims, reports and heartbeats (P13, P14, P15)."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator

import pytest
from rescind.wire import Task, TaskClaim, TaskHeartbeat, TaskReport, TaskReportRequest

from runtime.postgres import Postgres
from runtime.problem import Problem
from runtime.tokens import Principal
from sagas.decisions import Decisions
from sagas.tasks import TaskService
from tests.sagas.coordinator.world import ENVIRONMENT, LONELY, MAIL, WORK, World
from tests.waiting import until

WORKER = Principal(id="w", name="worker", environment=ENVIRONMENT, scopes=frozenset({"work:order"}))
STRANGER = Principal(id="s", name="stranger", environment=ENVIRONMENT, scopes=frozenset({"work:other"}))


@pytest.fixture
async def tasks(world: World) -> AsyncIterator[TaskService]:
    async with serving(world, world.pg) as tasks:
        yield tasks


@contextlib.asynccontextmanager
async def serving(world: World, pg: Postgres) -> AsyncIterator[TaskService]:
    """The parts of a server that answer workers, over this database."""
    tasks = TaskService(pg, world.clock, world.entropy)
    await tasks.start()
    try:
        yield tasks
    finally:
        await tasks.stop()


def ask(**changes: object) -> TaskClaim:
    fields = {"worker": "w1", "saga": "order", "versions": ["1"], "steps": ["reserve"], "wait_seconds": 5.0} | changes
    return TaskClaim(**fields)  # type: ignore[arg-type]


def news(task: Task, outcome: str, **fields: object) -> TaskReportRequest:
    report = TaskReport(id=task.id, token=task.token, outcome=outcome, **fields)  # type: ignore[arg-type]
    return TaskReportRequest(worker="w1", reports=[report])


async def test_a_worker_claims_carries_out_and_reports(world: World, tasks: TaskService) -> None:  # P15
    await world.define(WORK)
    effect = await world.effect(WORK, "o1", subject="c1")
    rollback = await world.kill()
    await world.started()
    claimed = (await tasks.claim(ENVIRONMENT, ask(), WORKER)).tasks
    assert [(task.step, task.version, task.action_key) for task in claimed] == [("reserve", "1", f"{effect}:worker")]
    assert claimed[0].effects[0]["payload"]["amount_cents"] == 1000
    assert claimed[0].effects[0]["saga_instance"] == "o1"
    answer = await tasks.report(ENVIRONMENT, news(claimed[0], "succeeded", proof={"released": 1}), WORKER)
    assert answer.results == ["recorded"]
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == {effect: "compensated"}
    assert (await tasks.report(ENVIRONMENT, news(claimed[0], "succeeded"), WORKER)).results == ["lost"]


async def test_a_claim_waits_for_work_and_ends_empty_without(world: World, tasks: TaskService) -> None:
    await world.define(WORK)
    assert (await tasks.claim(ENVIRONMENT, ask(wait_seconds=0.05), WORKER)).tasks == []
    waiting = asyncio.create_task(tasks.claim(ENVIRONMENT, ask(wait_seconds=10), WORKER))
    await world.effect(WORK, "o1")
    await world.kill()
    await world.started()
    assert len((await waiting).tasks) == 1


async def test_a_worker_serves_only_the_versions_and_steps_it_names(world: World, tasks: TaskService) -> None:  # P15
    await world.define(WORK, version="1")
    await world.define(WORK, version="2")
    await world.effect(WORK, "o1", version="1")
    await world.kill()
    await world.started()
    await until(lambda: world.value("SELECT count(*) FROM sagas.compensations"))
    assert (await tasks.claim(ENVIRONMENT, ask(versions=["2"], wait_seconds=0.1), WORKER)).tasks == []
    assert (await tasks.claim(ENVIRONMENT, ask(steps=["other"], wait_seconds=0.1), WORKER)).tasks == []
    assert len((await tasks.claim(ENVIRONMENT, ask(), WORKER)).tasks) == 1


async def test_what_no_live_worker_serves_waits_for_a_person_until_one_appears(world: World, tasks: TaskService) -> None:  # P15
    await world.define(WORK)
    effect = await world.effect(WORK, "o1")
    rollback = await world.kill()
    await world.started(tuning=LONELY)
    await until(lambda: _in(world, rollback, "waiting"))
    assert await world.value("SELECT reason FROM sagas.dispositions WHERE effect_id = $1", effect) == "no_worker"
    task = (await tasks.claim(ENVIRONMENT, ask(), WORKER)).tasks[0]
    await tasks.report(ENVIRONMENT, news(task, "succeeded"), WORKER)
    await until(lambda: world.is_settled(rollback))


async def test_a_silent_worker_loses_its_lease_and_the_task_goes_to_another(world: World, tasks: TaskService) -> None:  # P13
    await world.define(WORK)
    await world.effect(WORK, "o1")
    rollback = await world.kill()
    await world.started()
    first = (await tasks.claim(ENVIRONMENT, ask(lease_seconds=0.2), WORKER)).tasks[0]
    second = (await tasks.claim(ENVIRONMENT, ask(worker="w2"), WORKER)).tasks[0]
    assert second.action_key == first.action_key
    assert (second.attempt, second.token != first.token) == (2, True)
    assert (await tasks.report(ENVIRONMENT, news(first, "succeeded"), WORKER)).results == ["lost"]
    assert (await tasks.report(ENVIRONMENT, news(second, "succeeded"), WORKER)).results == ["recorded"]
    await until(lambda: world.is_settled(rollback))
    assert await world.value("SELECT count(*) FROM sagas.attempts WHERE outcome = 'lost'") == 1


async def test_an_interrupted_task_that_is_done_at_most_once_waits_and_its_late_proof_counts(
    world: World, tasks: TaskService
) -> None:  # P13
    await world.define({**WORK, "guarantee": "at_most_once"})
    await world.effect(WORK, "o1")
    rollback = await world.kill()
    await world.started()
    task = (await tasks.claim(ENVIRONMENT, ask(lease_seconds=0.2), WORKER)).tasks[0]
    await until(lambda: _in(world, rollback, "waiting"))
    assert (await tasks.claim(ENVIRONMENT, ask(wait_seconds=0.2), WORKER)).tasks == []
    assert (await tasks.report(ENVIRONMENT, news(task, "succeeded", proof="seen"), WORKER)).results == ["recorded"]
    await until(lambda: world.is_settled(rollback))


async def test_a_heartbeat_keeps_the_lease(world: World, tasks: TaskService) -> None:  # P13
    await world.define(WORK)
    await world.effect(WORK, "o1")
    await world.kill()
    await world.started()
    task = (await tasks.claim(ENVIRONMENT, ask(lease_seconds=0.3), WORKER)).tasks[0]
    name = f"{task.id}:{task.token}"
    for _ in range(6):
        held = await tasks.heartbeat(ENVIRONMENT, TaskHeartbeat(worker="w1", tasks=[name], lease_seconds=0.3), WORKER)
        assert held == [task.id]
        assert (await tasks.claim(ENVIRONMENT, ask(worker="w2", wait_seconds=0.1), WORKER)).tasks == []


async def test_a_failed_task_is_tried_again(world: World, tasks: TaskService) -> None:  # P13
    await world.define(WORK)
    await world.effect(WORK, "o1")
    rollback = await world.kill()
    await world.started()
    for outcome in ("failed", "unknown", "succeeded"):
        task = (await tasks.claim(ENVIRONMENT, ask(), WORKER)).tasks[0]
        await tasks.report(ENVIRONMENT, news(task, outcome, error={"type": "Busy"}), WORKER)
    await until(lambda: world.is_settled(rollback))


async def test_only_who_may_work_for_a_saga_claims_and_reports(world: World, tasks: TaskService) -> None:
    await world.define(WORK)
    await world.effect(WORK, "o1")
    await world.kill()
    await world.started()
    with pytest.raises(Problem) as caught:
        await tasks.claim(ENVIRONMENT, ask(), STRANGER)
    assert caught.value.status == 403
    task = (await tasks.claim(ENVIRONMENT, ask(), WORKER)).tasks[0]
    assert (await tasks.report(ENVIRONMENT, news(task, "succeeded"), STRANGER)).results == ["lost"]
    assert (
        await tasks.heartbeat(ENVIRONMENT, TaskHeartbeat(worker="w1", tasks=["x:y", f"{task.id}:{task.token}"]), STRANGER) == []
    )


async def _in(world: World, rollback: uuid.UUID, state: str) -> bool:
    return await world.state(rollback) == state


async def test_what_stands_behind_a_question_waits_too_and_goes_on_with_the_answer(world: World, tasks: TaskService) -> None:
    """P14: the subject is in the hands of an attempt of which nobody knows whether it acted. P11: it settles after all."""
    once = {**WORK, "name": "charge", "kind": "shop.charge", "guarantee": "at_most_once"}
    await world.define(WORK, once)
    earlier = await world.effect(WORK, "o1", subject="c1", completed_at=await world.ago(5))
    later = await world.effect(once, "o1", subject="c1")
    rollback = await world.kill()
    await world.started()
    steps = ["reserve", "charge"]
    [task] = (await tasks.claim(ENVIRONMENT, ask(steps=steps), WORKER)).tasks
    assert task.step == "charge"
    await tasks.report(ENVIRONMENT, news(task, "unknown"), WORKER)
    await until(lambda: _in(world, rollback, "waiting"))
    assert await world.dispositions(rollback) == {later: "waiting", earlier: "pending"}
    again = await world.kill(closes_epoch=2)  # names the same effects, which the first one undoes
    await until(lambda: _in(world, again, "waiting"))
    assert (await tasks.claim(ENVIRONMENT, ask(steps=steps, wait_seconds=0.2), WORKER)).tasks == []
    await Decisions(world.pg).skip(rollback, [later], actor="ann", reason="looked")
    [task] = (await tasks.claim(ENVIRONMENT, ask(steps=steps), WORKER)).tasks
    assert task.step == "reserve"
    for one in (rollback, again):
        await until(lambda one=one: _in(world, one, "compensating"))  # type: ignore[misc]
    await tasks.report(ENVIRONMENT, news(task, "succeeded"), WORKER)
    for one in (rollback, again):
        await until(lambda one=one: world.is_settled(one))  # type: ignore[misc]


async def test_a_worker_behind_a_circle_of_merged_mails_gets_its_turn(world: World, tasks: TaskService) -> None:  # P14
    other = {**MAIL, "name": "thanks", "kind": "mail.thanks"}
    await world.define(WORK, MAIL, other)
    for instance, (first, second) in {"o1": (MAIL, other), "o2": (other, MAIL)}.items():
        await world.effect(WORK, instance, completed_at=await world.ago(3))
        await world.effect(first, instance, subject="c1", completed_at=await world.ago(2))
        await world.effect(second, instance, subject="c1", completed_at=await world.ago(1))
    rollback = await world.kill()
    await world.started()
    for _ in range(2):
        [task] = (await tasks.claim(ENVIRONMENT, ask(limit=1), WORKER)).tasks
        await tasks.report(ENVIRONMENT, news(task, "succeeded"), WORKER)
    await until(lambda: world.is_settled(rollback))
    assert await world.value("SELECT count(*) FROM sagas.attempts WHERE relaxed") == 1

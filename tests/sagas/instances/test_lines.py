"""Instances of one subject, one after another in the order in which they were started (docs/decisions/0032)."""

from __future__ import annotations

import asyncio

import pytest
from rescind.wire import InstanceStartRequest, Task

from sagas import lines
from sagas.instances.search import Filter, page
from tests.sagas.coordinator.world import ENVIRONMENT
from tests.sagas.instances.world import ANYONE, CAPTURE, RESERVE, Server, World, claim, step
from tests.waiting import until

REASON = "SELECT reason FROM sagas.instances WHERE id = $1"
STATE = "SELECT state FROM sagas.instances WHERE id = $1"
LEADS = "SELECT l.leads FROM sagas.lines l JOIN sagas.instances i USING (uid) WHERE i.id = $1"


@pytest.fixture
async def ordered(world: World) -> World:
    await world.plan(RESERVE, CAPTURE, ordered_by_subject=True)
    return world


async def begin(server: Server, *identities: str, subject: str = "anna") -> None:
    """Start them, one after another."""
    for identity in identities:
        assert (await server.begin(identity, subject=subject)).outcome == "started"


async def take(server: Server, **fields: object) -> list[Task]:
    """What there is to take, without waiting for more."""
    return await server.take(wait_seconds=0, **fields)


async def test_a_later_one_begins_when_the_earlier_has_ended(ordered: World, server: Server) -> None:
    await begin(server, "o1", "o2", "o3")
    order = [(task.instance, task.step) for task in await follow(server, 6)]
    assert order == [(name, step) for name in ("o1", "o2", "o3") for step in ("reserve", "capture")]
    assert await ordered.value("SELECT count(*) FROM sagas.lines") == 0
    assert await ordered.value("SELECT count(*) FROM sagas.strays") == 0


async def test_other_subjects_do_not_wait(ordered: World, server: Server) -> None:
    await begin(server, "o1")
    await begin(server, "o2", subject="berta")
    assert {task.instance for task in await take(server)} == {"o1", "o2"}


async def test_who_waits_says_after_whom_and_is_found_by_it(ordered: World, server: Server) -> None:
    await begin(server, "o1", "o2", "o3")
    shown = await server.shown("o3")
    assert (shown["state"], shown["reason"], shown["after_count"]) == ("running", "in_line", 2)
    assert [(one["id"], one["leads"]) for one in shown["after"]] == [("o1", True), ("o2", False)]
    assert (await server.shown("o1"))["after"] == []
    async with ordered.pg.transaction() as connection:
        found = await page(connection, ENVIRONMENT, "order", Filter(cause="in_line"), below=None, limit=10)
        running = await page(connection, ENVIRONMENT, "order", Filter(status="running"), below=None, limit=10)
    assert [row["id"] for row in found.rows] == ["o3", "o2"]
    assert [row["id"] for row in running.rows] == ["o3", "o2", "o1"]


async def test_a_batch_keeps_its_order_and_a_start_without_a_subject_is_refused(ordered: World, server: Server) -> None:
    one = {"version": "1", "input": {"order_id": "x"}, "variant": "on", "subject": "anna"}
    request = InstanceStartRequest(instances=[{**one, "id": f"o{number}"} for number in range(5)])
    await server.instances.start(ENVIRONMENT, "order", request, ANYONE)
    ids = await ordered.rows("SELECT i.id FROM sagas.lines l JOIN sagas.instances i USING (uid) ORDER BY l.position")
    assert [row["id"] for row in ids] == [f"o{number}" for number in range(5)]
    refused = await server.begin("o9")
    assert (refused.outcome, (refused.error or {})["pointer"]) == ("invalid", "/subject")


async def test_cancelling_one_that_waits_ends_it_at_once_and_moves_nobody(ordered: World, server: Server) -> None:
    await begin(server, "o1", "o2", "o3")
    assert (await server.say("o2", "cancel")).state == "undone"
    assert await ordered.value(LEADS, "o3") is False
    assert [task.instance for task in await follow(server, 4)] == ["o1", "o1", "o3", "o3"]


async def test_one_that_waits_for_a_person_holds_the_others_until_it_is_mended(ordered: World, server: Server) -> None:
    await ordered.plan(step("reserve", act={"in_doubt": "wait"}), version="2", ordered_by_subject=True)
    await server.begin("o1", version="2", subject="anna")
    await begin(server, "o2")
    [task] = await server.take(versions=["1", "2"])
    await server.tell(task, "unknown")
    shown = await server.shown("o2")
    assert [(one["id"], one["state"], one["reason"]) for one in shown["after"]] == [("o1", "waiting", "in_doubt")]
    assert await take(server) == []
    await server.say("o1", "skip", "reserve")
    assert [task.instance for task in await follow(server, 2)] == ["o2", "o2"]


async def test_a_person_lets_one_overtake_and_the_others_wait_for_both(ordered: World, server: Server) -> None:
    await begin(server, "o1", "o2", "o3")
    assert (await server.say("o3", "overtake")).changed
    assert not (await server.say("o3", "overtake")).changed
    assert not (await server.say("o1", "overtake")).changed
    assert ("overtake", "tests", "because") in {
        (one["fact"], one["by_whom"], one["reason"]) for one in (await server.shown("o3"))["history"]
    }
    first = await take(server)
    assert {task.instance for task in first} == {"o1", "o3"}
    await finish(server, next(task for task in first if task.instance == "o1"))
    assert await ordered.value(LEADS, "o2") is False, "o3 still runs"
    await finish(server, next(task for task in first if task.instance == "o3"))
    assert [task.instance for task in await follow(server, 2)] == ["o2", "o2"]


async def test_an_earlier_one_holds_until_it_is_undone(ordered: World, server: Server) -> None:  # P14
    await begin(server, "o1", "o2")
    [reserve] = await take(server)
    [capture] = (await server.tell(reserve, then=claim())).tasks
    await server.tell(capture, "failed", final=True)
    [undo] = await server.take()
    assert (undo.verb, undo.step) == ("undo", "reserve")
    assert await ordered.value(LEADS, "o2") is False
    await server.tell(undo)
    assert [task.instance for task in await follow(server, 2)] == ["o2", "o2"]


async def test_a_killed_one_holds_until_its_effects_are_decided(ordered: World, server: Server) -> None:  # P12
    await ordered.flag("other")
    await ordered.plan(RESERVE, CAPTURE, saga="reminder", flag="other", ordered_by_subject="order")
    await begin(server, "o1")
    await server.begin("r1", saga="reminder", subject="anna")
    [reserve] = await take(server)
    await server.tell(reserve)
    await ordered.kill()
    assert await take(server, steps=[]) == []
    assert await ordered.value(STATE, "o1") == "killed"
    assert await ordered.value(LEADS, "r1") is False
    [undo] = await server.take()
    assert undo.verb == "undo"
    assert await ordered.value(LEADS, "r1") is False
    await server.tell(undo)
    await until(lambda: ordered.value(LEADS, "r1"))
    await until(lambda: ordered.value("SELECT reason IS NULL FROM sagas.instances WHERE id = 'r1'"))


async def test_a_killed_one_without_effects_holds_nobody(ordered: World, server: Server) -> None:
    await ordered.plan(RESERVE, CAPTURE, saga="reminder", ordered_by_subject="order")
    await begin(server, "o1", "o2")
    await ordered.kill()
    assert await server.act() == []
    await until(lambda: ordered.value("SELECT bool_and(state = 'killed') FROM sagas.instances"))
    await until(lambda: ordered.value("SELECT count(*) = 0 FROM sagas.lines"))


async def test_lifted_they_stand_in_line_again(ordered: World, server: Server) -> None:  # P17
    await ordered.know()
    await begin(server, "o1", "o2", "o3")
    await ordered.kill_flags()
    assert await server.act() == []
    await until(lambda: ordered.value("SELECT count(*) = 0 FROM sagas.lines"))
    await ordered.lift_flag()
    await until(lambda: ordered.value("SELECT bool_and(state = 'running') FROM sagas.instances"))
    order = [(task.instance, task.step) for task in await follow(server, 6)]
    assert sorted(order[::2]) == [("o1", "reserve"), ("o2", "reserve"), ("o3", "reserve")]
    assert [name for name, _ in order[::2]] == [name for name, _ in order[1::2]], "no two of them beside each other"
    assert await ordered.value("SELECT count(*) FROM sagas.lines") == 0


async def test_the_lead_is_not_lost_when_whoever_passed_it_on_dies(ordered: World) -> None:  # P18
    first = await ordered.server(coordinates=False)
    await begin(first, "o1", "o2")
    uid = await ordered.value("SELECT uid FROM sagas.instances WHERE id = 'o1'")
    async with ordered.pg.transaction() as connection:  # all that is left of who dies after this commit
        await lines.leave(connection, [uid])
    assert await ordered.value(LEADS, "o2") is True
    assert await ordered.value(REASON, "o2") == "in_line"
    await first.say("o1", "pause")
    second = await ordered.server()
    assert [task.instance for task in await follow(second, 2)] == ["o2", "o2"]


@pytest.fixture
async def other(world: World) -> Server:
    """A second server."""
    return await world.server()


async def test_two_servers_start_and_end_at_once_and_nobody_is_lost_or_runs_beside_another(
    ordered: World, server: Server, other: Server
) -> None:
    """Hazard 10: starts beside ends of the same subjects, on both."""
    servers, names = (server, other), [f"o{number}" for number in range(40)]
    busy: dict[str, str] = {}

    async def start(number: int) -> None:
        await servers[number % 2].begin(names[number], subject=f"s{number % 3}")

    async def work(one: Server, worker: str) -> None:
        while await ordered.value("SELECT count(*) < 40 OR bool_or(state = 'running') FROM sagas.instances"):
            tasks = await one.take(wait_seconds=0.1, worker=worker, limit=4)
            for task in tasks:
                subject, instance = task.effects[0]["subject"], str(task.instance)
                assert busy.setdefault(subject, instance) == instance, "two of one subject at once"
                if task.step == "capture":
                    del busy[subject]
                await one.tell(task)

    async with asyncio.TaskGroup() as group:
        for number in range(len(names)):
            group.create_task(start(number))
        for number, one in enumerate(servers * 2):
            group.create_task(work(one, f"w{number}"))
    assert await ordered.value("SELECT count(*) FROM sagas.instances WHERE state = 'done'") == len(names)
    assert await ordered.value("SELECT count(*) FROM sagas.lines") == 0


async def finish(server: Server, task: Task) -> None:
    """Act a task and what follows of its instance."""
    while True:
        await server.tell(task)
        tasks = await server.take(instance=task.instance, wait_seconds=0)
        if not tasks:
            return
        [task] = tasks


async def follow(server: Server, count: int) -> list[Task]:
    """Act so many tasks, one after another; what they were."""
    done: list[Task] = []
    while len(done) < count:
        tasks = await server.take()
        assert tasks, f"nobody may begin after {[(task.instance, task.step) for task in done]}"
        for task in tasks:
            await server.tell(task)
            done.append(task)
    return done

"""Workers and processes that fall silent: the coordinator takes their steps on, by what the definition says (P13, P16, P18)."""

from __future__ import annotations

import asyncio

from rescind.wire import TaskHeartbeat

from runtime.postgres import Postgres
from tests.sagas.coordinator.world import ENVIRONMENT
from tests.sagas.instances.world import ANYONE, CONFIRM, ORDER, RESERVE, Server, World, claim, step
from tests.waiting import until

PIVOT = step("capture", **{"class": "pivot"})
AFTER = step("confirm", "capture", **{"class": "retriable"})


async def test_a_step_whose_worker_fell_silent_is_begun_again_under_the_same_effect(
    world: World, server: Server
) -> None:  # P13
    await world.plan()
    await server.begin("o1", claim=claim(lease_seconds=0.2))
    [lost] = server.tasks
    [again] = await server.take()
    assert (again.id, again.attempt, again.token != lost.token) == (lost.id, 2, True)
    assert (await server.tell(lost, "failed")).results == ["lost"]
    assert (await server.tell(again)).results == ["recorded"]
    assert await server.act() == ["capture", "confirm"]


async def test_at_most_once_waits_for_a_person_when_its_worker_is_gone(world: World, server: Server) -> None:  # P13
    await world.plan(step("reserve", act={"guarantee": "at_most_once"}), CONFIRM | {"arguments": ["order_id"]})
    await server.begin("o1", claim=claim(lease_seconds=0.2))
    assert (await server.ended("o1"))[0] == "waiting"
    assert (await server.shown("o1"))["reason"] == "in_doubt"
    assert await server.take(wait_seconds=0.2) == []
    await server.tell(server.tasks[0])
    assert await server.act() == ["confirm"]


async def test_a_heartbeat_keeps_a_step(world: World, server: Server) -> None:
    await world.plan()
    await server.begin("o1", claim=claim(lease_seconds=0.3))
    [task] = server.tasks
    beat = TaskHeartbeat(worker="w1", tasks=[f"{task.id}:{task.token}"], lease_seconds=30)
    assert await server.work.heartbeat(ENVIRONMENT, beat, ANYONE) == [task.id]
    assert await server.take(wait_seconds=0.8) == []
    assert (await server.tell(task)).results == ["recorded"]
    assert await server.work.heartbeat(ENVIRONMENT, beat, ANYONE) == []


async def test_a_run_whose_process_died_in_a_step_before_the_pivot_is_undone(world: World, server: Server) -> None:  # P18
    await world.plan(RESERVE, PIVOT, AFTER)
    await server.begin("o1", run_by="w1", claim=claim(instance="o1", lease_seconds=0.2))
    await until(lambda: world.value("SELECT laid FROM sagas.instances"))
    assert (await server.shown("o1"))["error"]["reason"] == "taken_over"
    assert (await server.ended("o1"))[0] == "waiting"
    await server.tell(server.tasks[0])
    assert await server.act(worker="w2") == ["-reserve"]
    await until(lambda: world.value("SELECT state = 'undone' FROM sagas.instances"))


async def test_a_run_whose_process_died_past_the_pivot_goes_forward_on_any_worker(world: World, server: Server) -> None:  # P18
    await world.plan(RESERVE, PIVOT, AFTER)
    mine = claim(instance="o1", lease_seconds=0.3)
    await server.begin("o1", run_by="w1", lease_seconds=0.3, claim=mine)
    [capture] = (await server.tell(server.tasks[0], then=mine)).tasks
    await server.tell(capture)
    assert await server.take(worker="w2", wait_seconds=0) == []
    assert await server.act(worker="w2", wait_seconds=3.0) == ["confirm"]
    assert (await server.ended("o1"))[0] == "done"


async def test_a_run_whose_process_never_came_for_its_first_step_is_undone(world: World, server: Server) -> None:  # P18
    await world.plan()
    await server.begin("o1", run_by="w1", lease_seconds=0.2)
    assert (await server.ended("o1"))[0] == "undone"


async def test_a_cancel_past_the_pivot_is_refused_and_says_so(world: World, server: Server) -> None:
    await world.plan(RESERVE, PIVOT, AFTER)
    await server.begin("o1", claim=claim())
    [capture] = (await server.tell(server.tasks[0], then=claim())).tasks
    await server.tell(capture)
    heard = await server.say("o1", "cancel")
    assert (heard.changed, heard.state, heard.why) == (False, "running", "past_pivot")
    assert await server.act() == ["confirm"]


async def test_what_is_killed_with_a_step_in_a_silent_hand_is_let_go_of(world: World, server: Server) -> None:  # P18
    await world.plan()
    await server.begin("o1", claim=claim(lease_seconds=0.3))
    await world.kill()
    await server.say("o1", "pause")
    assert (await server.ended("o1"))[0] == "killed"
    assert await world.value("SELECT count(*) FROM sagas.moving") == 0


async def test_a_key_that_is_anothers_is_not_acted_under_and_a_person_decides(world: World, server: Server) -> None:  # P9
    await world.plan()
    await server.begin("o1")
    await server.begin("o2", input={"order_id": "o1"})
    tasks = await server.take(instance="o1")
    while tasks:
        tasks = (await server.tell(tasks[0], then=claim(instance="o1"))).tasks
    assert await server.take(wait_seconds=0) == []
    assert (await server.ended("o2"))[0] == "waiting"
    shown = await server.shown("o2")
    assert (shown["reason"], shown["error"]["step"]) == ("key_in_use", "reserve")
    assert (await server.say("o2", "cancel")).changed
    assert (await server.ended("o2"))[0] == "undone"


async def test_two_servers_hand_each_step_out_once(world: World, server: Server, database_url: str) -> None:  # P9, P18
    await world.plan()
    other = await world.server(await Postgres.open(database_url, application_name="other", size_max=10))
    names = [f"o{number}" for number in range(40)]
    await asyncio.gather(*(one.begin(name) for name, one in zip(names, [server, other] * 20, strict=True)))
    done = await asyncio.gather(*(one.act(worker=f"w{number}", limit=3) for number, one in enumerate([server, other] * 3)))
    assert sorted(step for one in done for step in one) == sorted(["reserve", "capture", "confirm"] * 40)
    assert await world.value("SELECT count(*) FROM sagas.instances WHERE state = 'done'") == 40
    assert await world.value("SELECT count(*) FROM sagas.effects WHERE attempt = 1 AND status = 'succeeded'") == 120
    assert await world.value("SELECT count(*) FROM sagas.ready") + await world.value("SELECT count(*) FROM sagas.moving") == 0
    await other.stop()
    world.servers.remove(other)
    await other.pg.close()


async def test_a_server_that_holds_no_lease_takes_no_step_over(world: World) -> None:  # P18
    idle = await world.server(coordinates=False)
    await world.plan(*ORDER)
    await idle.begin("o1", claim=claim(lease_seconds=0.1))
    assert await idle.take(wait_seconds=0.5) == []
    assert not await idle.keeper.round()
    await world.server()
    assert [task.attempt for task in await idle.take()] == [2]

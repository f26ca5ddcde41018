"""A kill that is lifted before it has taken anything of an instance lets it go on (P8, P17, docs/decisions/0029)."""

from __future__ import annotations

from typing import Any

from rescind.wire import Task

from tests.sagas.coordinator.world import ENVIRONMENT, FLAG
from tests.sagas.instances.test_leases import AFTER, PIVOT
from tests.sagas.instances.world import ANYONE, RESERVE, Server, World, claim, step
from tests.waiting import until

OTHER = "shipping.new-flow"


async def stopped(world: World, server: Server, identity: str = "o1", **fields: Any) -> Task:
    """An instance that has done its first step, and is stopped by a kill with the second in a hand that reported it."""
    await world.know(FLAG, OTHER)
    await server.begin(identity, claim=claim(instance=identity), **fields)
    [capture] = (await server.tell(server.tasks[0], then=claim(instance=identity))).tasks
    return capture


async def is_running(world: World, identity: str = "o1") -> bool:
    return bool(await world.value("SELECT state = 'running' FROM sagas.instances WHERE id = $1", identity))


async def test_lifted_in_grace_it_goes_on_where_it_stood_and_its_history_says_by_whom(world: World, server: Server) -> None:
    await world.plan()
    capture = await stopped(world, server)
    rollback = await world.kill_flags()
    assert (await server.tell(capture, then=claim())).tasks == []
    assert (await server.ended("o1"))[0] == "killed"
    assert await world.lift_flag() == [rollback]
    assert await server.act() == ["confirm"]
    assert (await server.ended("o1"))[0] == "done"
    assert await server.history("o1") == [("stopped", "rescind", None), ("lifted", "alex", "a mistake")]
    details = [one["detail"] for one in (await server.shown("o1"))["history"]]
    assert details == [
        {"flag": FLAG, "rollbacks": [str(rollback)]},
        {"flag": FLAG, "epoch": 3, "revision": "1.2"},
    ]
    assert await world.value("SELECT array_agg(epoch ORDER BY id) FROM sagas.effects") == [1, 1, 3]
    assert await world.value("SELECT count(*) FROM sagas.stopped") == 0


async def test_one_that_had_done_nothing_goes_on_whenever_the_kill_is_lifted(world: World, server: Server) -> None:
    await world.plan()
    await world.know()
    await server.begin("o1")
    rollback = await world.kill_flags(grace=0)
    assert await server.take(wait_seconds=0) == []
    await until(lambda: world.is_settled(rollback))
    assert await world.lift_flag() == []
    assert await server.act() == ["reserve", "capture", "confirm"]


async def test_what_a_kill_has_taken_stays_its_matter(world: World, server: Server) -> None:  # P12, P14
    await world.plan()
    capture = await stopped(world, server)
    rollback = await world.kill_flags(grace=0)
    await server.tell(capture)
    assert await server.act() == ["-capture", "-reserve"]
    await until(lambda: world.is_settled(rollback))
    await world.lift_flag()
    await until(lambda: world.value("SELECT count(*) = 0 FROM sagas.stopped"))
    assert await server.act(wait_seconds=0) == []
    assert (await server.ended("o1"))[0] == "killed"


async def test_what_a_forced_lift_leaves_to_the_kill_does_not_go_on_before_it_is_taken(
    world: World, server: Server
) -> None:  # hazard 13
    await world.plan()
    capture = await stopped(world, server)
    await server.coordinator.stop()
    rollback = await world.kill_flags()
    await world.run("UPDATE sagas.rollback_flags SET cursor = '00000000-0000-0000-0000-000000000001'")
    await world.lift_flag(force=True)
    assert (await server.tell(capture, then=claim())).tasks == []
    assert (await server.ended("o1"))[0] == "killed"
    await world.run("UPDATE sagas.rollbacks SET grace_seconds = 0")
    server.coordinator = await world.started()
    assert await server.act() == ["-capture", "-reserve"]
    await until(lambda: world.is_settled(rollback))


async def test_it_goes_on_once_the_last_of_the_kills_that_stopped_it_is_lifted(world: World, server: Server) -> None:  # P8
    await world.plan()
    await world.flag(OTHER)
    capture = await stopped(world, server)
    await world.effect({"name": "extra", "kind": "shop.extra"}, "o1", flag=OTHER)
    await world.kill_flags()
    await world.kill_flags(OTHER)
    await server.tell(capture)
    assert (await server.ended("o1"))[0] == "killed"
    await world.lift_flag()
    await until(lambda: world.value("SELECT count(*) = 1 FROM sagas.stopped WHERE flag = $1 AND epoch = 3", FLAG))
    assert (await server.ended("o1"))[0] == "killed"
    await world.lift_flag(OTHER)
    assert await server.act() == ["confirm"]
    assert (await server.history("o1"))[-1] == ("lifted", "alex", "a mistake")


async def test_killed_again_right_after_the_lift_it_stays_stopped_until_that_is_lifted_too(
    world: World, server: Server
) -> None:
    await world.plan()
    capture = await stopped(world, server)
    await world.kill_flags()
    await server.tell(capture)
    await server.keeper.stop()
    await world.lift_flag()
    await world.kill_flags()
    await server.keeper.start()
    assert await server.take(wait_seconds=0.3) == []
    assert (await server.ended("o1"))[0] == "killed"
    await world.lift_flag()
    assert await server.act() == ["confirm"]
    assert await world.value("SELECT max(epoch) FROM sagas.effects") == 5


async def test_what_went_on_is_undone_whole_by_a_later_kill(world: World, server: Server) -> None:  # P12, P14
    await world.plan()
    capture = await stopped(world, server)
    await world.kill_flags()
    await server.tell(capture)
    await world.lift_flag()
    [confirm] = await server.take()
    rollback = await world.kill_flags(grace=0)
    await server.tell(confirm)
    assert await server.act() == ["-confirm", "-capture", "-reserve"]
    await until(lambda: world.is_settled(rollback))
    assert (await server.ended("o1"))[0] == "killed"


async def test_it_goes_on_by_another_server_than_the_one_that_lifted(world: World) -> None:  # P18
    await world.plan()
    lifts = await world.server(coordinates=False)
    capture = await stopped(world, lifts)
    await world.kill_flags()
    await lifts.tell(capture)
    await world.lift_flag()
    await lifts.stop()
    world.servers.remove(lifts)
    after = await world.server()
    assert await after.act() == ["confirm"]


async def test_of_a_run_it_is_taken_over_as_from_a_process_that_is_gone(world: World, server: Server) -> None:  # P18
    await world.plan(RESERVE, PIVOT, AFTER)
    for name in ("before", "past"):
        capture = await stopped(world, server, name, run_by="w1")
        if name == "past":
            await server.tell(capture)
    await world.kill_flags(by="kill_v2")  # of this release it would let the second go on
    await server.tell(capture)
    await until(lambda: world.value("SELECT count(*) = 1 FROM sagas.instances WHERE state = 'killed'"))
    await server.take(wait_seconds=0, instance="before")
    await world.run("UPDATE sagas.effects SET lease_until = clock_timestamp() WHERE status = 'admitted'")
    await until(lambda: world.value("SELECT count(*) = 2 FROM sagas.instances WHERE state = 'killed'"))
    await world.lift_flag()
    assert sorted(await server.act(worker="w2")) == ["-reserve", "confirm"]
    assert (await server.ended("past"))[0] == "done"
    await until(lambda: world.value("SELECT state = 'waiting' FROM sagas.instances WHERE id = 'before'"))
    assert (await server.shown("before"))["error"]["reason"] == "taken_over"


async def test_a_step_that_was_given_back_under_the_kill_is_begun_anew(world: World, server: Server) -> None:  # hazard 4
    once = {"retry": {"attempts_max": 1}}
    await world.plan(RESERVE, step("capture", act=once))
    capture = await stopped(world, server)
    await world.kill_flags()
    await server.tell(capture, "not_started")
    assert await world.value("SELECT tombstoned FROM sagas.effects WHERE id = $1", capture.id)
    await world.lift_flag()
    [again] = await server.take()
    assert (again.step, again.id != capture.id) == ("capture", True)
    await server.tell(again)
    assert (await server.ended("o1"))[0] == "done"


async def test_a_step_in_doubt_goes_by_its_own_ways(world: World, server: Server) -> None:  # P16
    await world.plan(RESERVE, step("capture", act={"guarantee": "at_most_once", "in_doubt": "wait"}))
    capture = await stopped(world, server)
    await world.kill_flags()
    await server.tell(capture, "unknown")
    assert (await server.ended("o1"))[0] == "killed"
    await world.lift_flag()
    await until(lambda: world.value("SELECT state = 'waiting' AND reason = 'in_doubt' FROM sagas.instances"))
    assert await server.take(wait_seconds=0) == []


async def test_a_step_in_doubt_that_is_begun_again_is_the_same_effect_under_the_open_epoch(
    world: World, server: Server
) -> None:  # P13: a worker's client begins nothing of an epoch that is over
    await world.plan()
    capture = await stopped(world, server)
    await world.kill_flags()
    await server.tell(capture, "unknown")
    await world.lift_flag()
    [again] = await server.take()
    assert (again.id, again.attempt, again.effects[0]["epoch"]) == (capture.id, 2, 3)


async def test_what_is_said_to_it_while_it_is_stopped_is_kept(world: World, server: Server) -> None:
    waits = [{"name": "cool", "before": "reserve", "delay_seconds": 3600}, {"name": "paid", "before": "reserve", "event": True}]
    await world.plan(RESERVE, waits=waits)
    await world.know()
    await server.begin("o1")
    await server.begin("o2")
    until_then = await world.value("SELECT min(at) FROM sagas.waits")
    await world.kill_flags()
    for name in ("o1", "o2"):
        await server.say(name, "pause")
        assert (await server.ended(name))[0] == "killed"
        assert (await server.say(name, "resume")).changed
    told: Any = {"payload": {}, "event_id": "e1", "principal": ANYONE}
    assert (await server.instances.event(ENVIRONMENT, "order", "o1", "paid", **told)).changed
    assert (await server.say("o2", "cancel")).changed
    await world.lift_flag()
    await until(lambda: is_running(world))
    assert await world.value("SELECT min(at) FROM sagas.waits") == until_then
    await world.run("UPDATE sagas.waits SET at = clock_timestamp()")
    assert await server.act() == ["reserve"]
    assert (await server.ended("o2"))[0] == "undone"


async def test_a_narrowed_kill_stops_and_lets_go_those_it_covers(world: World, server: Server) -> None:  # hazard 9
    await world.plan()
    for name, region in (("eu", "eu"), ("us", "us")):
        await stopped(world, server, name, attributes={"region": region})
    await world.kill_flags(scope={"region": "eu"})
    await world.run("UPDATE sagas.effects SET lease_until = clock_timestamp() WHERE status = 'admitted'")
    await until(lambda: world.value("SELECT count(*) = 1 FROM sagas.instances WHERE state = 'killed' AND id = 'eu'"))
    assert await server.act() == ["capture", "confirm"]
    await world.lift_flag()
    assert await server.act() == ["capture", "confirm"]


async def test_what_a_kill_says_it_does_not_undo_goes_on(world: World, server: Server) -> None:  # P12: `since`, and `none`
    await world.plan()
    capture = await stopped(world, server)
    rollback = await world.kill_flags(grace=0, since_at=await world.value("SELECT clock_timestamp()"))
    await server.tell(capture)
    await until(lambda: world.is_settled(rollback))
    await world.lift_flag()
    assert await server.act() == ["confirm"]
    confirm = await stopped(world, server, "o2")
    none = await world.kill_flags(compensate="none")
    await server.tell(confirm)
    await until(lambda: world.is_settled(none))
    await world.lift_flag()
    assert await server.act() == ["confirm"]


async def test_an_environment_that_was_restored_lets_them_go_on_too(world: World, server: Server) -> None:  # P2
    await world.plan()
    capture = await stopped(world, server)
    seen = "('production', 1, 40, '[]', 'kim')"
    await world.run(f"SELECT rollbacks.recover_v1{seen}")
    await server.tell(capture)
    assert (await server.ended("o1"))[0] == "killed"
    await world.run("SELECT rollbacks.restored_v1('production', 1, 40, '[]', 'kim', 'mended')")
    assert await server.act() == ["confirm"]
    assert (await server.history("o1"))[-1] == ("lifted", "rescind", None)

"""A killed flag stops its instances; its rollback undoes their effects, once, also what was being undone already (P8, P12)."""

from __future__ import annotations

from server.rollbacks import record
from tests.sagas.coordinator.world import ENVIRONMENT, FLAG
from tests.sagas.instances.test_undoing import fails
from tests.sagas.instances.world import Server, World, claim, step
from tests.waiting import until


async def test_nothing_is_begun_under_a_killed_flag_but_the_off_variant_goes_on(world: World, server: Server) -> None:  # P8
    await world.plan()
    await world.kill()
    assert (await server.begin("o1")).outcome == "killed"
    assert await world.value("SELECT count(*) FROM sagas.instances") == 0
    assert (await server.begin("o2", variant="off")).outcome == "started"
    assert await server.act() == ["reserve", "capture", "confirm"]


async def test_a_kill_in_the_middle_stops_the_instance_and_undoes_what_it_did(world: World, server: Server) -> None:  # P8, P12
    await world.plan()
    await server.begin("o1", claim=claim())
    [capture] = (await server.tell(server.tasks[0], then=claim())).tasks
    rollback = await world.kill()
    assert (await server.tell(capture, then=claim())).tasks == []
    assert (await server.ended("o1"))[0] == "killed"
    assert await server.act() == ["-capture", "-reserve"]
    await until(lambda: world.is_settled(rollback))
    assert await world.value("SELECT count(*) FROM sagas.rollbacks") == 1
    assert (await server.begin("o1")).state == "killed"


async def test_what_lies_ready_is_refused_and_the_instance_is_killed(world: World, server: Server) -> None:  # P8
    await world.plan()
    await server.begin("o1")
    await world.kill()
    assert await server.take(wait_seconds=0) == []
    assert (await server.ended("o1"))[0] == "killed"
    assert await world.value("SELECT count(*) FROM sagas.ready") == 0
    assert await world.effects_of("o1") == []


async def test_the_last_report_after_the_kill_does_not_make_it_done(world: World, server: Server) -> None:  # P11
    await world.plan()
    await server.begin("o1", claim=claim())
    [capture] = (await server.tell(server.tasks[0], then=claim())).tasks
    [confirm] = (await server.tell(capture, then=claim())).tasks
    await world.kill()
    await server.tell(confirm)
    assert (await server.ended("o1"))[0] == "killed"


async def test_a_kill_that_names_what_is_being_undone_waits_for_it_and_reports_it(
    world: World, server: Server
) -> None:  # hazard 11
    await world.plan()
    await server.begin("o1")
    await server.act(fails("capture"), steps=["nothing"])
    await until(lambda: world.value("SELECT count(*) = 2 FROM sagas.dispositions"))
    rollback = await world.kill()
    await until(lambda: world.value("SELECT count(*) = 1 FROM sagas.members WHERE rollback_id = $1", rollback))
    tasks = await server.take()
    assert [task.step for task in tasks] == ["reserve"]
    await server.tell(tasks[0])
    assert (await server.ended("o1"))[0] == "undone"
    await until(lambda: world.is_settled(rollback))
    assert list((await world.dispositions(rollback)).values()) == ["compensated"]
    assert await world.value("SELECT count(*) FROM sagas.compensations") == 1


async def test_an_instance_turning_back_under_a_kill_leaves_its_effects_to_the_kill(
    world: World, server: Server
) -> None:  # hazard 11
    await world.plan()
    await server.begin("o1", claim=claim())
    [capture] = (await server.tell(server.tasks[0], then=claim())).tasks
    await server.say("o1", "cancel")
    rollback = await world.kill()
    await until(lambda: world.value("SELECT count(*) FROM sagas.dispositions"))
    await server.tell(capture)
    assert sorted(await server.act()) == ["-capture", "-reserve"]
    assert (await server.ended("o1"))[0] == "undone"
    await until(lambda: world.is_settled(rollback))
    assert await world.value("SELECT count(*) FROM sagas.compensations") == 2
    assert await world.value("SELECT count(*) FROM sagas.compensations WHERE rollback_id = $1", rollback) >= 1


async def test_what_an_older_server_took_for_settled_undoes_the_next_instance(world: World, server: Server) -> None:  # P21
    await world.plan()
    for name in [f"o{number}" for number in range(24)]:  # some share a standing rollback
        await server.begin(name, claim=claim(instance=name))
        await server.tell(server.tasks[0])
        await server.say(name, "cancel")
        await server.act(instance=name)
        assert (await server.ended(name))[0] == "undone"
        await world.run("UPDATE sagas.rollbacks SET state = 'settled' WHERE carries = 'instances'")


async def test_the_standing_rollback_is_nobodys_to_list_or_settle(world: World, server: Server) -> None:
    await world.plan()
    await server.begin("o1")
    await server.act(fails("capture"))
    assert (await server.ended("o1"))[0] == "undone"
    standing = await world.value("SELECT id FROM sagas.rollbacks WHERE carries = 'instances'")
    async with world.pg.connection() as connection:
        assert await record.load(connection, standing) is None
        assert await record.listing(connection, environment=None, after=None, state=None, flag=None, limit=10) == []
        assert await record.latest(connection, ENVIRONMENT) == []
    assert await world.state(standing) == "compensating"


async def test_a_step_done_under_another_flag_meanwhile_brings_its_lock_along(
    world: World, server: Server
) -> None:  # hazards 3, 13
    await world.plan()
    await world.flag("other")
    await server.begin("o1", claim=claim())
    await world.effect({"name": "extra", "kind": "shop.extra"}, "o1", flag="other")
    [capture] = (await server.tell(server.tasks[0], then=claim())).tasks
    rollback = await world.kill("other")
    assert (await server.tell(capture, then=claim())).tasks == []
    assert (await server.ended("o1"))[0] == "killed"
    assert await world.state(rollback) != "settled"


async def test_a_lifted_kill_that_took_only_what_never_happened_lets_the_instance_go_on(
    world: World, server: Server
) -> None:  # P12
    """It goes on under the next epoch once the rollback has looked, and is not stopped again by what it took."""
    await world.plan(step("reserve", act={"retry": {"first_seconds": 0.01, "cap_seconds": 0.01, "attempts_max": 5}}))
    await server.begin("o1", claim=claim())
    await server.tell(server.tasks[0], "failed")
    rollback = await world.kill()
    await world.run("UPDATE sagas.fences SET closed = false, epoch = epoch + 1, rollback_id = NULL WHERE flag = $1", FLAG)
    await until(lambda: world.is_settled(rollback))
    assert list((await world.dispositions(rollback)).values()) == ["never_happened"]
    assert await server.act() == ["reserve"]
    assert (await server.ended("o1"))[0] == "done"


async def test_a_lifted_kill_that_would_take_only_what_never_happened_stops_nobody(world: World) -> None:  # P12, P17
    """Its step is tried again, under the next epoch, before the rollback looks: there is nothing for it to undo then."""
    server = await world.server(coordinates=False)
    await world.plan(step("reserve", act={"retry": {"first_seconds": 0.01, "cap_seconds": 0.01, "attempts_max": 5}}))
    await server.begin("o1", claim=claim())
    await server.tell(server.tasks[0], "failed")
    rollback = await world.kill()
    await world.run("UPDATE sagas.fences SET closed = false, epoch = epoch + 1, rollback_id = NULL WHERE flag = $1", FLAG)
    [again] = await server.take()
    await world.started()
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == {}
    await server.tell(again)
    assert (await server.ended("o1"))[0] == "done"
    assert await world.value("SELECT array_agg(epoch) FROM sagas.effects") == [3]

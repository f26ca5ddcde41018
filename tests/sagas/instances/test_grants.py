"""What a kill lets go on by name, in its own transaction: it joins the set, and the rollback waits for it (P8, P12, P14)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from rescind.wire import Task

from server.rollbacks import record
from server.rollbacks.preview import PreviewContinues, Previews
from server.rollbacks.requests import since_of
from tests.sagas.coordinator.world import ENVIRONMENT, FLAG
from tests.sagas.instances.test_leases import AFTER, PIVOT
from tests.sagas.instances.world import CAPTURE, CONFIRM, RESERVE, Server, World, claim
from tests.waiting import until

ORDER = (RESERVE, CAPTURE, CONFIRM)
FINISHES = 'UPDATE sagas.definitions SET document = document || \'{"on_kill": "finish_then_compensate"}\''


async def finishing(world: World, *steps: dict[str, Any]) -> None:
    """A saga whose running instances finish before a kill undoes them."""
    await world.know()
    await world.plan(*(steps or ORDER))
    await world.run('UPDATE sagas.definitions SET document = document || \'{"on_kill": "finish_then_compensate"}\'')


async def begun(server: Server, identity: str = "o1", **fields: Any) -> Task:
    """An instance that has done its first step; the second is in a hand."""
    await server.begin(identity, claim=claim(instance=identity), **fields)
    [capture] = (await server.tell(server.tasks[0], then=claim(instance=identity))).tasks
    return capture


async def going_on(world: World, rollback: UUID) -> tuple[dict[str, int], dict[str, int]]:
    """How many instances a rollback waits for, by state, and the steps that continued."""
    async with world.pg.connection() as connection:
        found = await record.load(connection, rollback)
    assert found is not None
    if found.continuing is None:
        return {}, {}
    return {one.state: one.instances for one in found.continuing.instances}, found.continuing.continued


async def test_it_finishes_and_is_undone_then_and_the_rollback_waits_for_it(world: World, server: Server) -> None:
    await finishing(world)
    capture = await begun(server)
    rollback = await world.kill_flags(grace=0)
    await until(lambda: world.value("SELECT count(*) = 2 FROM sagas.dispositions WHERE reason = 'continues'"))
    [confirm] = (await server.tell(capture, then=claim())).tasks
    assert (confirm.step, confirm.continued, confirm.effects[0]["epoch"]) == ("confirm", True, 1)
    await until(lambda: world.value("SELECT count(*) = 3 FROM sagas.dispositions WHERE reason = 'continues'"))
    assert await going_on(world, rollback) == ({"running": 1}, {"shop.confirm": 1})
    assert await world.state(rollback) == "compensating"
    await server.tell(confirm)
    assert (await server.ended("o1"))[0] == "done"
    assert await server.act() == ["-confirm", "-capture", "-reserve"]
    await until(lambda: world.is_settled(rollback))
    assert await going_on(world, rollback) == ({}, {"shop.confirm": 1})
    assert set((await world.dispositions(rollback)).values()) == {"compensated"}


async def test_past_its_pivot_it_goes_on_and_before_it_stops(world: World, server: Server) -> None:
    await world.know()
    await world.plan(RESERVE, PIVOT, AFTER)
    before, past = await begun(server, "before"), await begun(server, "past")
    await server.tell(past, "succeeded")
    rollback = await world.kill_flags(grace=0)
    assert (await server.tell(before, then=claim(acts=["reserve"]))).tasks == []
    assert (await server.ended("before"))[0] == "killed", "its pivot was completed, but not before the kill"
    await until(lambda: world.value("SELECT count(*) = 2 FROM sagas.dispositions WHERE reason = 'continues'"))
    done = await server.act()
    assert sorted(done) == ["-capture", "-capture", "-confirm", "-reserve", "-reserve", "confirm"]
    assert done.index("confirm") < done.index("-confirm")
    assert (await server.ended("past"))[0] == "done"
    await until(lambda: world.is_settled(rollback))


async def test_a_preview_says_how_many_would_go_on(world: World, server: Server) -> None:  # P19
    await world.know()
    await world.plan(RESERVE, PIVOT, AFTER)
    for name in ("a", "b", "c"):
        capture = await begun(server, name)
    await server.tell(capture)
    await server.begin("d")
    previews = Previews(world.pg)
    found = await previews.preview(ENVIRONMENT, FLAG, scope={}, since=since_of(None))
    assert found.continues == [PreviewContinues(saga="order", version="1", past_pivot=True, instances=1)]
    await world.run(FINISHES)
    found = await previews.preview(ENVIRONMENT, FLAG, scope={}, since=since_of(None))
    assert found.continues == [PreviewContinues(saga="order", version="1", past_pivot=False, instances=3)]


async def test_one_that_has_begun_nothing_is_stopped_all_the_same(world: World, server: Server) -> None:
    await finishing(world)
    await server.begin("o1")
    await world.kill_flags()
    assert await server.take(wait_seconds=0) == []
    assert (await server.ended("o1"))[0] == "killed"


async def test_lifted_in_grace_it_has_gone_on_and_nothing_is_undone(world: World, server: Server) -> None:  # P17
    await finishing(world)
    capture = await begun(server)
    rollback = await world.kill_flags()
    [confirm] = (await server.tell(capture, then=claim())).tasks
    assert await world.lift_flag() == [rollback]
    await server.tell(confirm)
    assert (await server.ended("o1"))[0] == "done"
    assert await world.value("SELECT count(*) FROM sagas.dispositions") == 0


async def test_lifted_too_late_it_goes_on_and_is_undone_whole(world: World, server: Server) -> None:  # P14
    await finishing(world)
    capture = await begun(server)
    rollback = await world.kill_flags(grace=0)
    await until(lambda: world.value("SELECT count(*) = 2 FROM sagas.dispositions WHERE reason = 'continues'"))
    await world.lift_flag(force=True)
    [confirm] = (await server.tell(capture, then=claim())).tasks
    await server.tell(confirm)
    assert await server.act() == ["-confirm", "-capture", "-reserve"]
    await until(lambda: world.is_settled(rollback))


async def test_one_that_turns_back_while_it_goes_on_is_undone_once(world: World, server: Server) -> None:  # P13, hazard 11
    await finishing(world)
    capture = await begun(server)
    rollback = await world.kill_flags(grace=0)
    await until(lambda: world.value("SELECT count(*) = 2 FROM sagas.dispositions WHERE reason = 'continues'"))
    await server.tell(capture, "failed", final=True)
    assert await server.act() == ["-reserve"]
    assert (await server.ended("o1"))[0] == "undone"
    await until(lambda: world.is_settled(rollback))
    assert sorted((await world.dispositions(rollback)).values()) == ["compensated", "never_happened"]


async def test_a_step_given_back_goes_on_as_the_next_generation(world: World, server: Server) -> None:  # hazard 4
    await finishing(world)
    capture = await begun(server)
    rollback = await world.kill_flags(grace=0)
    await until(lambda: world.value("SELECT count(*) = 2 FROM sagas.dispositions WHERE reason = 'continues'"))
    await server.tell(capture, "not_started")
    [again] = await server.take()
    assert (again.step, again.id != capture.id, again.continued) == ("capture", True, True)
    await server.tell(again)
    assert await server.act() == ["confirm", "-confirm", "-capture", "-reserve"]
    await until(lambda: world.is_settled(rollback))


async def test_a_worker_that_knows_no_grants_is_handed_none(world: World, server: Server) -> None:  # P21
    await finishing(world)
    capture = await begun(server)
    await world.kill_flags()
    assert (await server.tell(capture, then=claim(continues=False))).tasks == []
    assert await server.take(wait_seconds=0, continues=False) == []
    assert [task.step for task in await server.take()] == ["confirm"]


async def test_a_kill_by_a_server_of_the_last_release_grants_nothing(world: World, server: Server) -> None:  # P21
    await finishing(world)
    capture = await begun(server)
    rollback = await world.kill_flags(grace=0, by="kill_v2")
    await server.tell(capture)
    assert (await server.ended("o1"))[0] == "killed"
    assert await server.act() == ["-capture", "-reserve"]
    await until(lambda: world.is_settled(rollback))


async def test_a_second_kill_that_grants_nothing_stops_what_went_on(world: World, server: Server) -> None:
    await finishing(world)
    capture = await begun(server)
    first = await world.kill_flags(grace=0)
    await until(lambda: world.value("SELECT count(*) = 2 FROM sagas.dispositions WHERE reason = 'continues'"))
    await world.lift_flag(force=True)
    second = await world.kill_flags(grace=0, by="kill_v2")
    await server.tell(capture)
    assert (await server.ended("o1"))[0] == "killed"
    assert await server.act() == ["-capture", "-reserve"]
    await until(lambda: world.is_settled(first))
    await until(lambda: world.is_settled(second))


async def test_a_grant_is_of_the_kill_that_closed_the_flag_and_of_its_scope(world: World, server: Server) -> None:  # hazard 9
    await finishing(world)
    await world.plan(*ORDER, version="2")
    await world.kill_flags(scope={"region": "eu"}, compensate="hold")
    await world.kill_flags()
    rows = await world.rows("SELECT flag, version, pivot, scope_key FROM sagas.grants")
    assert [(row["flag"], row["version"], row["pivot"]) for row in rows] == [(FLAG, "1", None)] * 2
    assert sorted(row["scope_key"] for row in rows) == ["", '{"region": "eu"}']


async def test_cancelled_the_rollback_leaves_what_went_on_once_it_has_ended(world: World, server: Server) -> None:
    await finishing(world)
    capture = await begun(server)
    rollback = await world.kill_flags(grace=0)
    await until(lambda: world.value("SELECT count(*) = 2 FROM sagas.dispositions WHERE reason = 'continues'"))
    await world.run(
        "UPDATE sagas.rollbacks SET cancelled_by = 'kim', cancelled_reason = 'leave it', version = version + 1 WHERE id = $1",
        rollback,
    )
    [confirm] = (await server.tell(capture, then=claim())).tasks
    await server.tell(confirm)
    assert (await server.ended("o1"))[0] == "done"
    await until(lambda: world.is_settled(rollback))
    assert set((await world.dispositions(rollback)).values()) == {"skipped"}

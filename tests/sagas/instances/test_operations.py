"""One verb for many: previewed, paced, carried out once, resumed by whoever comes, cancelled, and told as it is (P18, P20)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from runtime.postgres import Postgres
from runtime.problem import Problem
from sagas.instances import bulk as carrying
from sagas.instances.bulk import Bulk
from sagas.instances.operations import COUNTED_MAX, Asked, Operations
from sagas.instances.search import Filter
from sagas.instances.turns import Turn
from tests.sagas.coordinator.world import ENVIRONMENT
from tests.sagas.instances.test_search import CROWD
from tests.sagas.instances.world import CAPTURE, RESERVE, RETRY, Server, World, step
from tests.waiting import until

BOSS = [{"name": "boss", "before": "capture", "approval": True}]
AUDITED = "SELECT action, reason FROM runtime.audit WHERE action LIKE 'operation.%' OR action LIKE 'instance.%' ORDER BY id"


@pytest.fixture
async def shop(world: World, server: Server) -> Server:
    """Instances that wait for a person's approval after their first step."""
    await world.plan(RESERVE, step("capture", **{"class": "pivot"}), step("confirm", "capture"), waits=BOSS)
    return server


def bulk(server: Server, pg: Postgres | None = None) -> Bulk:
    return Bulk(pg or server.pg, server.world.clock, server.engine, server.instances, server.coordinator.leases)


@asynccontextmanager
async def carried_out(server: Server) -> AsyncIterator[None]:
    one = bulk(server)
    await one.start()
    yield
    await one.stop()


async def begin(server: Server, verb: str, **fields: Any) -> str:
    asked = Asked(verb=verb, saga="order", reason="the depot burnt down", **{"per_second": 1_000.0, **fields})  # type: ignore[arg-type]
    return str((await Operations(server.pg).begin(ENVIRONMENT, asked, actor="ann"))["id"])


async def ended(server: Server, identity: str) -> dict[str, Any]:
    async def over() -> bool:
        return (await Operations(server.pg).one(ENVIRONMENT, identity))["ended_at"] is not None

    await until(over)
    return await Operations(server.pg).one(ENVIRONMENT, identity)


async def start(server: Server, count: int, **fields: Any) -> None:
    for number in range(count):
        await server.begin(f"o{number:03}", **fields)
    await server.act()


async def test_paused_and_then_cancelled_it_is_paused_no_more(world: World, server: Server) -> None:
    await world.plan()
    await server.begin("o1")
    [reserve] = await server.take()
    await server.tell(reserve)
    assert (await server.say("o1", "pause")).paused
    assert (await server.say("o1", "cancel")).changed
    assert await server.act() == ["-reserve"]
    assert (await server.ended("o1"))[0] == "undone"
    assert (await server.shown("o1"))["paused"] is False
    assert await world.rows("SELECT state FROM sagas.strays") == await world.rows("SELECT 'undone' AS state")


async def test_every_instance_that_is_meant_is_cancelled_and_the_others_are_told_why_not(world: World, shop: Server) -> None:
    await start(shop, 70)
    for number in range(3):
        await shop.say(f"o{number:03}", "skip", "boss")
    await shop.act(lambda task: {"outcome": "failed", "final": True} if task.step == "confirm" and task.verb == "act" else None)
    await shop.say("o003", "cancel")
    async with carried_out(shop):
        told = await ended(shop, await begin(shop, "cancel"))
    assert (told["state"], told["estimated"], told["is_exact"], told["left"]) == ("done", 70, True, 0)
    assert told["done"] == 66
    assert sum(told["refused"].values()) == 4
    assert told["refused"]["past_pivot"] == 3
    await shop.act()
    states = await world.rows("SELECT state, count(*) AS n FROM sagas.instances GROUP BY state ORDER BY state")
    assert [(row["state"], row["n"]) for row in states] == [("undone", 67), ("waiting", 3)]
    history = (await shop.shown("o042"))["history"]
    assert [(one["fact"], one["by_whom"], one["reason"], one["detail"]) for one in history] == [
        ("cancel", "ann", "the depot burnt down", {"operation": str(told["id"])})
    ]
    audited = [(row["action"], row["reason"]) for row in await world.rows(AUDITED)]
    assert audited.count(("operation.begin", "the depot burnt down")) == 1
    assert [action for action, _ in audited].count("instance.cancel") == 1, "one by hand; the operation stands for the others"


async def test_a_second_time_nothing_changes_and_that_is_said(world: World, shop: Server) -> None:
    await start(shop, 3)
    async with carried_out(shop):
        first = await ended(shop, await begin(shop, "pause", filter=Filter(status="running")))
        again = await ended(shop, await begin(shop, "pause"))
        other = await ended(shop, await begin(shop, "resume", filter=Filter(paused=True)))
    assert [(one["done"], one["refused"]) for one in (first, again, other)] == [(3, {}), (0, {"paused": 3}), (3, {})]
    facts = await world.rows("SELECT fact, count(*) AS n FROM sagas.facts GROUP BY fact ORDER BY fact")
    assert [(row["fact"], row["n"]) for row in facts] == [("pause", 3), ("resume", 3)]


async def test_what_is_started_after_it_began_is_left_alone(shop: Server) -> None:
    await start(shop, 2)
    identity = await begin(shop, "pause")
    await shop.begin("late")
    async with carried_out(shop):
        assert (await ended(shop, identity))["done"] == 2
    assert not (await shop.shown("late"))["paused"]


async def test_undoings_that_wait_for_a_person_are_tried_again_and_say_so(world: World, server: Server) -> None:
    await world.plan({**RESERVE, "retry": {**RETRY, "attempts_max": 1}}, CAPTURE, waits=BOSS)
    await start(server, 2)
    async with carried_out(server):
        await ended(server, await begin(server, "cancel"))
        await server.act(lambda task: {"outcome": "failed"} if task.verb == "undo" else None)
        await until(lambda: all_stand(server, "waiting"))
        told = await ended(server, await begin(server, "retry", filter=Filter(status="waiting", cause="attempts_exhausted")))
        again = await ended(server, await begin(server, "retry"))
    assert (told["done"], told["refused"], again["done"], sum(again["refused"].values())) == (2, {}, 0, 2)
    await server.act()
    await until(lambda: all_stand(server, "undone"))
    [_, retried] = (await server.shown("o001"))["history"]
    assert (retried["fact"], retried["by_whom"], retried["detail"]["operation"]) == ("retry", "ann", str(told["id"]))


async def all_stand(server: Server, state: str) -> bool:
    return bool(await server.world.value("SELECT bool_and(state = $1) FROM sagas.instances", state))


@pytest.mark.parametrize("cut", ["before", "within"])
async def test_a_coordinator_that_dies_in_a_chunk_leaves_all_of_it_or_nothing(
    world: World, shop: Server, cut: str
) -> None:  # P18
    await start(shop, 40)
    identity = await begin(shop, "pause", per_second=64.0)
    await until(lambda: leased(shop))
    one = bulk(shop)
    await one.round()
    before = await Operations(shop.pg).one(ENVIRONMENT, identity)
    assert 0 < before["done"] == carrying.CHUNK_MAX / 4 == await world.value("SELECT count(*) FROM sagas.facts")
    flush = shop.engine.flush

    class Dies(Exception):  # noqa: N818 - what happened
        pass

    class Cut:
        """The engine of a process that dies in the middle of a flush."""

        plans = shop.engine.plans

        async def flush(self, connection: Any, turns: list[Turn], **fields: Any) -> Any:
            if cut == "before":
                raise Dies

            async def seal(connection: Any, heard: Any) -> None:
                await fields["seal"](connection, heard)
                raise Dies

            return await flush(connection, turns, lock=fields["lock"], seal=seal)

    await world.run("UPDATE sagas.operations SET next_at = now()")
    await Bulk(shop.pg, world.clock, Cut(), shop.instances, shop.coordinator.leases).round()  # type: ignore[arg-type]
    assert (await Operations(shop.pg).one(ENVIRONMENT, identity))["done"] == before["done"]
    assert await world.value("SELECT count(*) FROM sagas.facts") == before["done"]
    async with carried_out(shop):
        told = await ended(shop, identity)
    assert (told["done"], told["refused"]) == (40, {})
    assert await world.value("SELECT count(*) FROM sagas.facts") == 40


async def leased(server: Server) -> bool:
    return len(server.coordinator.leases.held()) == 16


async def test_two_that_hold_the_same_operation_do_it_once(world: World, shop: Server) -> None:
    await start(shop, 8)
    identity = await begin(shop, "pause", per_second=8.0)
    await until(lambda: leased(shop))
    one = bulk(shop)
    async with shop.pg.connection() as connection:
        [stale] = await connection.fetch(carrying.QUERIES.standing, shop.coordinator.leases.held(), 10)
    await one._chunk(stale)
    with pytest.raises(carrying.Ended):
        await one._chunk(stale)
    assert (await Operations(shop.pg).one(ENVIRONMENT, identity))["done"] == 2


async def test_a_cancelled_one_touches_nothing_more(world: World, shop: Server) -> None:
    await start(shop, 12)
    identity = await begin(shop, "pause", per_second=8.0)
    await until(lambda: leased(shop))
    one = bulk(shop)
    await one.round()
    told = await Operations(shop.pg).cancel(ENVIRONMENT, identity, actor="bob", reason="wrong filter")
    again = await Operations(shop.pg).cancel(ENVIRONMENT, identity, actor="eve", reason="me too")
    assert (told["changed"], again["changed"], again["cancelled_by"]) == (True, False, "bob")
    await world.run("UPDATE sagas.operations SET next_at = now()")
    await one.round()
    assert (again["state"], again["done"], again["left"]) == ("cancelled", 2, 10)
    assert await world.value("SELECT count(*) FROM sagas.instances WHERE paused") == 2


async def test_its_pace_holds_for_whoever_carries_it_out(world: World, shop: Server) -> None:
    await start(shop, 4)
    identity = await begin(shop, "pause", per_second=0.1)
    await until(lambda: leased(shop))
    for _ in range(3):
        await bulk(shop).round()
    assert (await Operations(shop.pg).one(ENVIRONMENT, identity))["done"] == 1


async def test_a_preview_counts_to_its_limit_and_then_says_that_it_estimates(world: World, shop: Server) -> None:
    await start(shop, 1)
    few = await Operations(shop.pg).preview(ENVIRONMENT, Asked(verb="cancel", saga="order", reason="x"))
    assert (few.estimated, few.is_exact, few.sample) == (1, True, ["o000"])
    await world.run(CROWD, ENVIRONMENT, COUNTED_MAX * 2)
    await world.run("ANALYZE sagas.instances")
    many = await Operations(shop.pg).preview(ENVIRONMENT, Asked(verb="cancel", saga="order", reason="x"))
    assert not many.is_exact
    assert COUNTED_MAX <= many.estimated <= COUNTED_MAX * 4


async def test_what_can_be_meant_for_nobody_is_refused(shop: Server) -> None:
    for fields, code in (
        ({"verb": "skip"}, "invalid"),
        ({"verb": "skip", "step": "bos"}, "unknown_step"),
        ({"verb": "cancel", "saga": "ordr"}, "unknown_saga"),
    ):
        with pytest.raises(Problem) as refused:
            await Operations(shop.pg).preview(ENVIRONMENT, Asked(**{"saga": "order", "reason": "x", **fields}))  # type: ignore[arg-type]
        assert refused.value.code == code

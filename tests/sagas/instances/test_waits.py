"""Waits: delays, events and approvals before a step, with a deadline and what it means (P18)."""

from __future__ import annotations

from typing import Any

import pytest
from rescind.wire import Task

from runtime.problem import Problem
from sagas.instances.turns import Heard
from tests.sagas.coordinator.world import ENVIRONMENT
from tests.sagas.instances.world import ANYONE, ORDER, RESERVE, Server, World, claim, step


async def told(server: Server, name: str, event_id: str | None = None, payload: Any = None) -> Heard:
    return await server.instances.event(ENVIRONMENT, "order", "o1", name, payload=payload, event_id=event_id, principal=ANYONE)


async def decided(server: Server, name: str, approve: bool) -> Heard:
    return await server.instances.approval(
        ENVIRONMENT, "order", "o1", name, approve=approve, principal=ANYONE, reason="as asked"
    )


async def test_a_delay_holds_a_step_back_until_it_has_passed(world: World, server: Server) -> None:
    await world.plan(*ORDER, waits=[{"name": "cool", "before": "capture", "delay_seconds": 0.3}])
    await server.begin("o1", claim=claim())
    assert (await server.tell(server.tasks[0], then=claim())).tasks == []
    assert await world.value("SELECT count(*) FROM sagas.moving") == 0
    assert [wait["name"] for wait in (await server.shown("o1"))["waits"]] == ["cool"]
    assert await server.act(wait_seconds=3.0) == ["capture", "confirm"]
    assert [fact["fact"] for fact in (await server.shown("o1"))["history"]] == ["ended"]


async def test_an_event_lets_it_go_on_once_however_often_it_is_told(world: World, server: Server) -> None:
    await world.plan(*ORDER, waits=[{"name": "paid", "before": "capture", "event": True}])
    await server.begin("o1")
    assert await server.act() == ["reserve"]
    assert (await told(server, "paid", "e1")).changed
    assert not (await told(server, "paid", "e1")).changed
    assert await server.act() == ["capture", "confirm"]
    assert await world.value("SELECT count(*) FROM sagas.waits") == 0


async def test_an_event_told_before_it_is_waited_for_counts(world: World, server: Server) -> None:
    await world.plan(*ORDER, waits=[{"name": "paid", "before": "capture", "event": True}])
    await server.begin("o1")
    assert (await told(server, "paid")).changed
    assert await server.act() == ["reserve", "capture", "confirm"]


async def test_a_step_is_given_what_the_event_brought_that_ended_the_wait(world: World, server: Server) -> None:  # P10
    paid = [{"name": "paid", "before": "capture", "event": True, "deadline_seconds": 60, "on_deadline": "go_on"}]
    await world.plan(RESERVE, step("capture", "paid"), step("confirm", "paid"), waits=paid)
    await server.begin("o1")
    assert (await told(server, "paid", "e1", {"by": "anna"})).changed
    assert (await told(server, "paid", "e2", {"by": "berta"})).changed
    given: dict[str, Any] = {}
    assert await server.act(lambda task: given.update({task.step: task.effects[0]["payload"]})) == [
        "reserve", "capture", "confirm",
    ]  # fmt: skip
    assert given["capture"] == given["confirm"] == {"order_id": "o1", "paid": {"by": "anna"}}


async def test_an_event_that_comes_after_its_skip_brings_nothing(world: World, server: Server) -> None:
    await world.plan(RESERVE, step("capture", "paid"), waits=[{"name": "paid", "before": "capture", "event": True}])
    await server.begin("o1")
    assert await server.act() == ["reserve"]
    await server.say("o1", "skip", "paid")
    [capture] = await server.take()
    assert capture.effects[0]["payload"] == {"order_id": "o1", "paid": None}
    await told(server, "paid", "e1", {"by": "anna"})
    [again] = (await server.tell(capture, "failed", then=claim(wait_seconds=0))).tasks or await server.take()
    assert again.effects[0]["payload"] == {"order_id": "o1", "paid": None}


async def test_a_refusal_turns_it_back_and_the_first_word_stands(world: World, server: Server) -> None:  # P20
    await world.plan(*ORDER, waits=[{"name": "boss", "before": "confirm", "approval": True}])
    await server.begin("o1")
    assert await server.act() == ["reserve", "capture"]
    assert (await decided(server, "boss", False)).changed
    assert not (await decided(server, "boss", True)).changed
    assert await server.act() == ["-capture", "-reserve"]
    assert (await server.ended("o1"))[0] == "undone"
    assert (await server.shown("o1"))["history"][0]["by_whom"] == "tests"
    assert await world.value("SELECT count(*) FROM runtime.audit WHERE action = 'instance.refused'") == 1


@pytest.mark.parametrize(("on_deadline", "ends"), [("undo", "undone"), ("go_on", "done")])
async def test_a_deadline_that_passes_means_what_the_definition_says(
    world: World, server: Server, on_deadline: str, ends: str
) -> None:
    wait = {"name": "paid", "before": "capture", "event": True, "deadline_seconds": 0.2, "on_deadline": on_deadline}
    await world.plan(*ORDER, waits=[wait])
    await server.begin("o1")
    await server.act(wait_seconds=3.0)
    assert (await server.ended("o1"))[0] == ends
    assert not (await told(server, "paid")).changed


async def test_a_wait_there_is_not_is_refused_with_the_nearest_name(world: World, server: Server) -> None:
    await world.plan(*ORDER, waits=[{"name": "paid", "before": "capture", "event": True}])
    await server.begin("o1")
    with pytest.raises(Problem) as refused:
        await told(server, "payd")
    assert (refused.value.status, refused.value.suggestion) == (404, "paid")


async def test_pause_hands_nothing_out_until_it_is_resumed(world: World, server: Server) -> None:
    await world.plan()
    await server.begin("o1", claim=claim())
    heard = await server.say("o1", "pause")
    assert (heard.changed, heard.paused) == (True, True)
    assert not (await server.say("o1", "pause")).changed
    assert (await server.tell(server.tasks[0], then=claim())).tasks == []
    assert await server.take(wait_seconds=0) == []
    assert (await server.say("o1", "resume")).changed
    assert await server.act() == ["capture", "confirm"]


async def test_who_waits_for_a_person_is_tried_again_or_skipped_by_name(world: World, server: Server) -> None:  # P16, P20
    wary = {**ORDER[1], "act": {"guarantee": "at_most_once", "in_doubt": "wait"}}
    await world.plan(ORDER[0], wary, ORDER[2])

    def doubts(task: Task) -> dict[str, Any] | None:
        return {"outcome": "unknown"} if task.step == "capture" else None

    await server.begin("o1")
    assert await server.act(doubts) == ["reserve", "capture"]
    assert (await server.say("o1", "retry")).changed
    assert await server.act(doubts) == ["capture"]
    assert await world.effects_of("o1") == [("reserve", "succeeded", 1), ("capture", "in_doubt", 2)]
    assert (await server.say("o1", "skip", "capture")).state == "running"
    assert not (await server.say("o1", "skip", "capture")).changed
    assert await server.act() == ["confirm"]
    assert (await server.ended("o1"))[0] == "done"
    shown = await server.shown("o1")
    assert [(fact["fact"], fact["name"]) for fact in shown["history"]] == [("retry", "capture"), ("skip", "capture")]


async def test_skip_names_a_step_and_an_unknown_verb_is_not_found(world: World, server: Server) -> None:
    await world.plan()
    await server.begin("o1")
    for verb, name, status in (("skip", "", 422), ("skip", "captur", 404), ("cancle", "", 404)):
        with pytest.raises(Problem) as refused:
            await server.say("o1", verb, name)
        assert refused.value.status == status

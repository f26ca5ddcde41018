"""Instances that go forward: started once, handed out step by step, done with their results (P8, P9, P10)."""

from __future__ import annotations

from rescind.wire import Task

from tests.sagas.instances.world import RESERVE, Server, World, claim, step


async def test_a_saga_goes_step_by_step_and_ends_with_its_results(world: World, server: Server) -> None:  # P10
    await world.plan()
    assert (await server.begin("o1")).outcome == "started"
    assert await server.act() == ["reserve", "capture", "confirm"]
    results = {name: {"of": name} for name in ("reserve", "capture", "confirm")}
    assert await server.ended("o1") == ("done", results)
    assert [row[1:] for row in await world.effects_of("o1")] == [("succeeded", 1)] * 3


async def test_the_answer_to_a_report_brings_the_next_step_with_what_it_is_given(world: World, server: Server) -> None:  # P8
    await world.plan()
    await server.begin("o1", claim=claim())
    [reserve] = server.tasks
    assert (reserve.verb, reserve.step, reserve.instance, reserve.attempt) == ("act", "reserve", "o1", 1)
    assert reserve.effects[0]["payload"] == {"order_id": "o1"}
    [capture] = (await server.tell(reserve, then=claim())).tasks
    [confirm] = (await server.tell(capture, proof={"id": "pi_1"}, then=claim())).tasks
    assert confirm.effects[0]["payload"] == {"order_id": "o1", "capture": {"id": "pi_1"}}
    assert (confirm.start_within_ms, confirm.action_key) == (2000, confirm.id)
    assert await world.value("SELECT count(*) FROM sagas.ready") == 0
    await server.tell(confirm)
    assert (await server.ended("o1"))[0] == "done"
    assert await world.value("SELECT count(*) FROM sagas.moving") == 0


async def test_starting_it_again_answers_with_what_there_is_and_another_one_is_a_conflict(world: World, server: Server) -> None:
    await world.plan()
    assert (await server.begin("o1")).outcome == "started"
    again = await server.begin("o1")
    assert (again.outcome, again.state) == ("exists", "running")
    assert (await server.begin("o1", input={"order_id": "o2"})).outcome == "conflict"
    assert await server.act() == ["reserve", "capture", "confirm"]
    assert (await server.begin("o1")).state == "done"


async def test_an_input_that_lacks_what_a_step_is_given_is_refused_with_its_place(world: World, server: Server) -> None:
    await world.plan()
    refused = await server.begin("o1", input={})
    assert refused.outcome == "invalid"
    assert (refused.error or {})["pointer"] == "/input/order_id"
    assert ((await server.begin("o1", version="7")).error or {})["code"] == "unknown_version"
    assert await world.value("SELECT count(*) FROM sagas.instances") == 0


async def test_a_step_that_failed_is_tried_again_under_the_same_effect(world: World, server: Server) -> None:  # P9
    await world.plan()

    def answers(task: Task) -> dict[str, object] | None:
        return {"outcome": "failed", "error": {"type": "Busy"}} if task.step == "capture" and task.attempt < 3 else None

    await server.begin("o1")
    assert await server.act(answers) == ["reserve", "capture", "capture", "capture", "confirm"]
    assert (await server.ended("o1"))[0] == "done"
    assert await world.effects_of("o1") == [
        ("reserve", "succeeded", 1),
        ("capture", "succeeded", 3),
        ("confirm", "succeeded", 1),
    ]
    shown = await server.shown("o1")
    assert [one["error"] for one in shown["steps"][1]["attempts"]] == [{"type": "Busy"}] * 2


async def test_steps_of_one_group_run_beside_each_other(world: World, server: Server) -> None:
    await world.plan(RESERVE, step("left", group="both"), step("right", group="both"), step("confirm", "left"))
    await server.begin("o1", claim=claim())
    beside = (await server.tell(server.tasks[0], then=claim())).tasks
    assert [task.step for task in beside] == ["left", "right"]
    assert (await server.tell(beside[0], then=claim())).tasks == []
    assert [task.step for task in (await server.tell(beside[1], then=claim())).tasks] == ["confirm"]

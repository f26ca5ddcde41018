"""What became of a step in doubt, by the team's own look-up: for the instance that cannot go on, and for its undoing (P16)."""

from __future__ import annotations

from typing import Any

from rescind.wire import Task, TaskHeartbeat

from tests.sagas.coordinator.world import ENVIRONMENT
from tests.sagas.instances.world import ANYONE, CAPTURE, RETRY, Server, World, claim, step
from tests.waiting import until

RESERVE = step("reserve", act={"retry": RETRY, "in_doubt": "look_up"})
AT_MOST_ONCE = step("reserve", act={"retry": RETRY, "in_doubt": "look_up", "guarantee": "at_most_once"})
FOUND = {"outcome": "succeeded", "proof": {"id": "r_1"}}
ABSENT = {"outcome": "failed", "error": {"type": "NotDone", "detail": "nobody knows of it"}}
NOBODY_KNOWS = {"outcome": "unknown", "error": {"type": "Timeout", "detail": "no answer"}}


async def in_doubt(world: World, server: Server, reserve: dict[str, Any] = RESERVE) -> None:
    """An instance whose first step raised."""
    await world.plan(reserve, CAPTURE)
    await server.begin("o1", claim=claim())
    await server.tell(server.tasks[0], "unknown", error={"type": "Timeout"})


def answers(*said: dict[str, Any]) -> Any:
    """Answers to look-ups, one after another."""
    left = iter(said)
    return lambda task: next(left) if task.verb == "look_up" else None


async def test_what_the_look_up_found_is_the_steps_result_and_nothing_is_done_twice(
    world: World, server: Server
) -> None:  # P16
    await in_doubt(world, server)
    assert await server.act(answers(FOUND)) == ["?reserve", "capture"]
    assert await server.ended("o1") == ("done", {"reserve": {"id": "r_1"}, "capture": {"of": "capture"}})
    assert await world.effects_of("o1") == [("reserve", "succeeded", 1), ("capture", "succeeded", 1)]
    assert await world.value("SELECT count(*) FROM sagas.look_ups") == 0


async def test_what_provably_never_was_is_begun_again_under_the_same_effect(
    world: World, server: Server
) -> None:  # P16, hazard 7
    await in_doubt(world, server, AT_MOST_ONCE)
    assert await server.act(answers(ABSENT)) == ["?reserve", "reserve", "capture"]
    assert (await server.ended("o1"))[0] == "done"
    assert await world.effects_of("o1") == [("reserve", "succeeded", 2), ("capture", "succeeded", 1)]


async def test_who_cannot_say_yet_is_asked_again_and_then_a_person_with_what_was_said(
    world: World, server: Server
) -> None:  # P16
    await in_doubt(world, server)
    assert await server.act(answers(*[NOBODY_KNOWS] * 3)) == ["?reserve"] * 3
    shown = await server.shown("o1")
    assert (shown["state"], shown["reason"]) == ("waiting", "look_up_exhausted")
    assert shown["steps"][0]["look_up"]["said"] == NOBODY_KNOWS["error"]
    assert await world.value("SELECT count(*) FROM sagas.attempts WHERE verb = 'look_up'") == 3
    assert (await server.say("o1", "skip", "reserve")).changed
    assert await server.act() == ["capture"]


async def test_a_look_up_waits_for_the_lease_and_the_settle_delay_of_a_silent_attempt(world: World, server: Server) -> None:
    """P8, hazard 2: before, "not done" would be no proof."""
    await world.plan(step("reserve", act={"retry": RETRY, "in_doubt": "look_up"}, settle_seconds=3600), CAPTURE)
    await server.begin("o1", claim=claim(lease_seconds=0.2))
    await until(lambda: world.value("SELECT count(*) FROM sagas.look_ups"))
    assert await server.take(wait_seconds=0) == []
    assert await world.value(
        "SELECT l.due_at = e.lease_until + interval '1 hour' FROM sagas.look_ups l JOIN sagas.effects e ON e.id = l.effect_id"
    )


async def test_not_done_is_no_proof_while_the_body_lives_after_all(world: World, server: Server) -> None:  # P8, hazard 2
    await in_doubt(world, server)
    [asked] = await server.take()
    await world.run("UPDATE sagas.effects SET lease_until = clock_timestamp() + interval '1 hour', status = 'admitted'")
    assert (await server.tell(asked, **ABSENT)).results == ["recorded"]
    assert await world.effects_of("o1") == [("reserve", "admitted", 1)]


async def test_who_looks_up_keeps_its_lease_and_who_falls_silent_is_followed_by_another(world: World, server: Server) -> None:
    await in_doubt(world, server)
    [lost] = await server.take(lease_seconds=0.2)
    beat = TaskHeartbeat(worker="w1", tasks=[f"{lost.id}:{lost.token}"], lease_seconds=0.3)
    assert await server.work.heartbeat(ENVIRONMENT, beat, ANYONE) == [lost.id]
    [again] = await server.take()
    assert (again.verb, again.id) == ("look_up", lost.id)
    assert (await server.tell(lost, **ABSENT)).results == ["lost"], "its question is another's"
    assert (await server.tell(again, **FOUND)).results == ["recorded"]
    assert await world.effects_of("o1") == [("reserve", "succeeded", 1)]


async def test_an_answer_about_an_attempt_that_a_person_followed_by_another_changes_nothing(
    world: World, server: Server
) -> None:  # hazard 2
    await in_doubt(world, server)
    [asked] = await server.take()
    assert (await server.say("o1", "retry", "reserve")).changed
    [second] = await server.take()
    assert (second.verb, second.attempt) == ("act", 2)
    assert (await server.tell(asked, **ABSENT)).results == ["lost"]
    assert await world.effects_of("o1") == [("reserve", "admitted", 2)]


async def test_a_look_up_is_proof_of_every_attempt_before_it(world: World, server: Server) -> None:  # P10, P16
    await in_doubt(world, server)
    await server.say("o1", "retry", "reserve")
    [second] = await server.take(look_ups=[])
    await server.tell(second, "failed")
    assert await world.effects_of("o1") == [("reserve", "in_doubt", 2)], "the first may have acted"
    asked: Task
    [asked] = await server.take()
    await server.tell(asked, **ABSENT)
    assert await world.effects_of("o1") == [("reserve", "failed", 2)]
    [third] = await server.take()
    await server.tell(third, "failed")
    assert await world.effects_of("o1") == [("reserve", "failed", 3)], "none of the three did it"


async def test_undoing_settles_its_doubt_by_the_same_look_up(world: World, server: Server) -> None:  # P16
    await in_doubt(world, server)
    await server.say("o1", "cancel")
    assert await server.act(answers(FOUND)) == ["?reserve", "-reserve"]
    assert (await server.ended("o1"))[0] == "undone"
    assert await world.undone("o1") == [("reserve", "compensated")]


async def test_what_never_happened_gets_a_tombstone_and_no_compensation(world: World, server: Server) -> None:  # P16
    await in_doubt(world, server)
    await world.kill()
    assert await server.act(answers(ABSENT)) == ["?reserve"]
    assert await world.undone("o1") == [("reserve", "never_happened")]
    assert await world.value("SELECT tombstoned FROM sagas.effects")


async def test_a_kill_beside_a_question_asks_it_once_and_hears_the_answer(
    world: World, server: Server
) -> None:  # P11, P16, hazard 3
    await in_doubt(world, server)
    [asked] = await server.take()
    await world.kill()
    await until(lambda: world.value("SELECT count(*) FROM sagas.dispositions WHERE state = 'pending'"))
    assert await server.take(wait_seconds=0) == []
    await world.run("UPDATE sagas.dispositions SET judge_at = 'infinity'")
    await server.tell(asked, **FOUND)
    [undo] = await server.take()
    await server.tell(undo)
    assert await world.undone("o1") == [("reserve", "compensated")]


async def test_an_undoing_that_nobody_can_say_for_waits_and_is_asked_anew_by_retry(world: World, server: Server) -> None:  # P16
    await in_doubt(world, server)
    await server.say("o1", "cancel")
    assert await server.act(answers(*[NOBODY_KNOWS] * 3)) == ["?reserve"] * 3
    assert await world.value("SELECT reason FROM sagas.dispositions WHERE state = 'waiting'") == "look_up_exhausted"
    await until(lambda: world.value("SELECT state = 'waiting' FROM sagas.instances"))
    assert (await server.say("o1", "retry")).changed
    assert await server.act(answers(FOUND)) == ["?reserve", "-reserve"]


async def test_without_a_worker_that_can_say_an_undoing_waits_for_a_person_until_one_comes(world: World) -> None:  # P15
    server = await world.server(no_worker_seconds=0.3)
    await in_doubt(world, server)
    await server.say("o1", "cancel")
    await until(lambda: world.value("SELECT reason = 'no_worker' FROM sagas.dispositions"))
    assert await server.act(answers(FOUND)) == ["?reserve", "-reserve"]


async def test_a_process_that_dies_while_its_instance_is_looked_up_is_taken_over(world: World, server: Server) -> None:  # P18
    await world.plan(RESERVE, CAPTURE)
    await server.begin("o1", run_by="gone", lease_seconds=0.2, claim=claim(worker="gone", instance="o1"))
    await server.tell(server.tasks[0], "unknown")
    await until(lambda: world.value("SELECT run_by IS NULL FROM sagas.instances"))
    assert await server.act(answers(FOUND)) == ["?reserve", "-reserve"]
    assert (await server.ended("o1"))[0] == "undone"


# --- the other ways out of doubt -------------------------------------------------------------------------------------


async def test_what_is_assumed_done_goes_on_without_a_result(world: World, server: Server) -> None:  # P16
    await in_doubt(world, server, step("reserve", act={"in_doubt": "assume_done"}))
    assert await server.act() == ["capture"]
    assert await world.effects_of("o1") == [("reserve", "in_doubt", 1), ("capture", "succeeded", 1)]


async def test_what_is_done_at_most_once_waits_for_a_person_and_is_not_begun_again(world: World, server: Server) -> None:  # P13
    await in_doubt(world, server, step("reserve", act={"guarantee": "at_most_once"}))
    assert await server.act() == []
    shown = await server.shown("o1")
    assert (shown["state"], shown["reason"]) == ("waiting", "in_doubt")


async def test_the_same_key_is_used_again_inside_the_providers_window_and_not_after(world: World, server: Server) -> None:
    """P16, hazard 7."""
    again = step("reserve", act={"retry": RETRY}, provider_window_seconds=86_400)
    await in_doubt(world, server, again)
    [second] = await server.take()
    assert (second.verb, second.attempt) == ("act", 2)
    await world.run("UPDATE sagas.effects SET id = uuidv7(interval '-2 days')")
    effect = await world.value("SELECT id FROM sagas.effects")
    second = Task(**{name: getattr(second, name) for name in second.__struct_fields__ if name != "id"}, id=str(effect))
    await server.tell(second, "unknown")
    assert (await server.shown("o1"))["error"]["reason"] == "provider_window_passed"
    assert (await server.shown("o1"))["state"] != "running"

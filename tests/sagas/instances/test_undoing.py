"""Instances that turn back: undone in reverse by the one machine that undoes, in the name of no kill (P13, P14, P16)."""

from __future__ import annotations

import asyncio

from rescind.wire import Task

from sagas.leases import RANGES
from tests.sagas.instances.world import RESERVE, Server, World, claim, step
from tests.waiting import until


def fails(name: str, **fields: object):  # type: ignore[no-untyped-def]
    """Answers of a worker of which this step fails for good."""

    def answers(task: Task) -> dict[str, object] | None:
        if task.verb == "act" and task.step == name:
            return {"outcome": "failed", "final": True, "error": {"type": "Declined"}, **fields}
        return None

    return answers


async def test_what_was_done_is_undone_latest_first_and_then_it_is_undone(world: World, server: Server) -> None:  # P14
    await world.plan()
    await server.begin("o1")
    assert await server.act(fails("confirm")) == ["reserve", "capture", "confirm", "-capture", "-reserve"]
    assert (await server.ended("o1"))[0] == "undone"
    assert set(await world.undone("o1")) == {
        ("reserve", "compensated"), ("capture", "compensated"), ("confirm", "never_happened"),
    }  # fmt: skip
    shown = await server.shown("o1")
    assert shown["error"] == {"step": "confirm", "reason": "failed", "error": {"type": "Declined", "final": True}}
    assert await world.value("SELECT count(*) FROM sagas.moving") == 0
    assert await world.value("SELECT state FROM sagas.rollbacks") == "compensating"


async def test_a_cancel_undoes_and_the_second_one_changes_nothing(world: World, server: Server) -> None:
    await world.plan()
    await server.begin("o1", claim=claim())
    await server.tell(server.tasks[0])
    heard = await server.say("o1", "cancel")
    assert (heard.changed, heard.state) == (True, "undoing")
    assert not (await server.say("o1", "cancel")).changed
    assert await server.act() == ["-reserve"]
    assert (await server.ended("o1"))[0] == "undone"
    assert [(fact["fact"], fact["by_whom"], fact["reason"]) for fact in (await server.shown("o1"))["history"]] == [
        ("cancel", "tests", "because")
    ]
    assert not (await server.say("o1", "cancel")).changed


async def test_nothing_is_undone_while_a_step_is_in_a_workers_hands(world: World, server: Server) -> None:  # P8
    await world.plan()
    await server.begin("o1", claim=claim())
    [capture] = (await server.tell(server.tasks[0], then=claim())).tasks
    assert (await server.say("o1", "cancel")).state == "undoing"
    assert await server.take(wait_seconds=0.3) == []
    await server.tell(capture)
    assert await server.act() == ["-capture", "-reserve"]
    assert (await server.ended("o1"))[0] == "undone"


async def test_a_step_in_doubt_is_settled_by_its_undoing(world: World, server: Server) -> None:  # P16
    doubtful = step("capture", act={"guarantee": "at_most_once", "in_doubt": "wait"}, in_doubt="assume_done")
    await world.plan(RESERVE, doubtful)
    await server.begin("o1")
    assert await server.act(lambda task: {"outcome": "unknown"} if task.step == "capture" and task.verb == "act" else None) == [
        "reserve",
        "capture",
    ]
    assert await server.ended("o1") == ("waiting", None)
    assert (await server.shown("o1"))["reason"] == "in_doubt"
    await server.say("o1", "cancel")
    assert await server.act() == ["-capture", "-reserve"]
    assert (await server.ended("o1"))[0] == "undone"


async def test_an_undoing_that_waits_for_a_person_says_why_and_goes_on_when_told(world: World, server: Server) -> None:
    await world.plan({**RESERVE, "retry": {"attempts_max": 1}}, step("capture"))
    await server.begin("o1")

    def answers(task: Task) -> dict[str, object] | None:
        if task.verb == "undo":
            return {"outcome": "failed", "error": {"type": "Broken"}}
        return fails("capture")(task)  # type: ignore[no-any-return]

    assert await server.act(answers) == ["reserve", "capture", "-reserve"]
    assert (await server.ended("o1"))[0] == "waiting"
    assert (await server.shown("o1"))["reason"] == "attempts_exhausted"
    assert (await server.say("o1", "retry")).changed
    assert await server.act() == ["-reserve"]
    await until(lambda: _stands(server, "o1", "undone"))


async def test_an_instance_of_the_off_variant_is_undone_too_when_it_fails(world: World, server: Server) -> None:
    await world.plan()
    await server.begin("o1", variant="off")
    assert await server.act(fails("confirm")) == ["reserve", "capture", "confirm", "-capture", "-reserve"]
    assert (await server.ended("o1"))[0] == "undone"


async def test_late_news_of_a_step_is_undone_too(world: World, server: Server) -> None:  # P11
    await world.plan()
    await server.begin("o1", claim=claim())
    [reserve] = server.tasks
    await server.tell(reserve, "failed", final=True)
    await until(lambda: _stands(server, "o1", "undone"))
    await server.tell(reserve, "succeeded")
    assert await server.act() == ["-reserve"]
    await until(lambda: _stands(server, "o1", "undone"))
    assert await world.undone("o1") == [("reserve", "compensated")]


async def _stands(server: Server, identity: str, state: str) -> bool:
    return bool((await server.shown(identity))["state"] == state)


async def test_money_above_the_limit_waits_in_an_instances_own_undoing_too(world: World, server: Server) -> None:  # P17
    capture = step("reserve", "amount_cents", currency_code="USD")
    await world.plan(capture, step("confirm"))
    await world.run(
        "UPDATE sagas.definitions SET document = document || jsonb_build_object('approve_above', $1::jsonb)", {"USD": 9}
    )
    await server.begin("o1", claim=claim(), input={"order_id": "o1", "amount_cents": 10})
    [confirm] = (await server.tell(server.tasks[0], then=claim())).tasks
    await server.tell(confirm, "failed", final=True)
    assert (await server.ended("o1"))[0] == "waiting"
    assert (await server.shown("o1"))["reason"] == "approval"
    await server.say("o1", "retry")
    assert await server.act() == ["-reserve"]
    assert (await server.ended("o1"))[0] == "undone"


async def test_what_turns_back_is_undone_by_its_own_worker_without_a_coordinator(world: World) -> None:  # P14
    server = await world.server(coordinates=False)
    await world.plan()
    await server.begin("o1", claim=claim())
    tasks, done = server.tasks, []
    while tasks:
        [task] = tasks
        done.append((task.verb, task.step))
        outcome = "failed" if done[-1] == ("act", "confirm") else "succeeded"
        tasks = (await server.tell(task, outcome, final=outcome == "failed", then=claim())).tasks
    assert done == [("act", "reserve"), ("act", "capture"), ("act", "confirm"), ("undo", "capture"), ("undo", "reserve")]
    assert (await server.shown("o1"))["state"] == "undone", "said with the last of it, not by a later look"
    assert await world.value("SELECT count(*) FROM sagas.moving") == 0
    assert await world.value("SELECT array_agg(state) FROM sagas.strays") == ["undone"]


async def test_what_turns_back_with_nothing_done_has_ended_at_once(world: World) -> None:
    server = await world.server(coordinates=False)
    await world.plan()
    await server.begin("o1", claim=claim())
    await server.tell(server.tasks[0], "failed", final=True)
    assert (await server.shown("o1"))["state"] == "undone"
    assert await world.undone("o1") == [("reserve", "never_happened")]


async def test_a_server_lays_what_turns_back_in_a_range_of_its_own(world: World, server: Server) -> None:
    await world.plan()
    await until(lambda: _holds(server))
    for number in range(4):
        await server.begin(f"o{number}")
    assert (await server.act(fails("confirm"))).count("-reserve") == 4
    ranges = await world.rows("SELECT DISTINCT sagas.lease_range(rollback_id) AS range FROM sagas.dispositions")
    assert [row["range"] for row in ranges] == [min(server.coordinator.leases.held())]


async def _holds(server: Server) -> bool:
    return bool(server.coordinator.leases.held())


async def test_an_undoing_behind_a_question_of_its_own_waits_for_a_person(world: World, server: Server) -> None:  # P14, P16
    """The earlier step's subject is in the hands of the later one's attempt, of which nobody knows whether it acted."""
    await world.plan(RESERVE, {**step("capture"), "guarantee": "at_most_once"}, step("confirm"))
    await server.begin("o1", subject="c1")

    def answers(task: Task) -> dict[str, object] | None:
        if (task.verb, task.step) == ("undo", "capture"):
            return {"outcome": "unknown"}
        return fails("confirm")(task)  # type: ignore[no-any-return]

    for _ in ("reserve", "capture", "confirm", "-capture"):
        [task] = await server.take()
        await server.tell(task, **(answers(task) or {"outcome": "succeeded"}))  # type: ignore[arg-type]
    assert (await server.ended("o1"))[0] == "waiting"
    assert await world.undone("o1") == [("reserve", "pending"), ("confirm", "never_happened"), ("capture", "waiting")]
    assert (await server.say("o1", "retry")).changed
    assert await server.act() == ["-capture", "-reserve"]
    await until(lambda: _stands(server, "o1", "undone"))


async def test_a_look_that_waited_says_how_it_stands_then(world: World) -> None:  # P11: late news comes between look and lock
    await world.plan(ordered_by_subject=True)
    server = await world.server(coordinates=False)
    await server.coordinator.start()
    try:
        await until(lambda: len(server.coordinator.leases.held()) == RANGES)
        await server.begin("o1", claim=claim(), subject="anna")
        await server.tell(server.tasks[0], "failed", final=True)
        async with world.pg.transaction() as connection:
            await connection.execute("SELECT FROM sagas.instances FOR UPDATE")
            looking = asyncio.create_task(server.keeper.round())
            await until(lambda: world.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
            await connection.execute("UPDATE sagas.effects SET status = 'succeeded'")
        await looking
        assert await _stands(server, "o1", "undoing")
        assert await world.value("SELECT count(*) FROM sagas.lines") == 1
    finally:
        await server.coordinator.stop()

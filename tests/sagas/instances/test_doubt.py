"""What a later attempt did not do says nothing of an earlier one whose outcome is not known (P10, P16, hazard 2)."""

from __future__ import annotations

from rescind.wire import Task

from tests.sagas.instances.world import RESERVE, Server, World, claim, step
from tests.waiting import until

HARMLESS = step("reserve", in_doubt="assume_done")


async def second_attempt(world: World, server: Server, reserve: dict[str, object]) -> tuple[Task, Task]:
    """A step whose first worker fell silent, in the hands of another."""
    await world.plan(reserve, step("capture"))
    await server.begin("o1", claim=claim(lease_seconds=0.2))
    [again] = await server.take()
    assert again.attempt == 2
    return server.tasks[0], again


async def test_given_back_after_a_silent_attempt_it_is_undone_as_what_may_have_happened(
    world: World, server: Server
) -> None:  # P16
    _, again = await second_attempt(world, server, HARMLESS)
    await world.kill()
    assert (await server.tell(again, "not_started")).results == ["recorded"]
    assert await server.act() == ["-reserve"]
    assert await world.undone("o1") == [("reserve", "compensated")]


async def test_failed_after_a_silent_attempt_it_turns_back_and_a_person_decides(world: World, server: Server) -> None:  # P10
    _, again = await second_attempt(world, server, RESERVE)
    assert (await server.tell(again, "failed", final=True)).results == ["recorded"]
    await until(lambda: world.value("SELECT state = 'waiting' FROM sagas.instances"))
    shown = await server.shown("o1")
    assert (shown["reason"], shown["error"]["reason"]) == ("in_doubt", "failed")
    assert await world.undone("o1") == [("reserve", "waiting")]


async def test_a_failure_of_the_silent_attempt_as_well_is_proof(world: World, server: Server) -> None:  # P10
    lost, again = await second_attempt(world, server, RESERVE)
    assert (await server.tell(lost, "failed")).results == ["lost"]
    await server.tell(again, "failed", final=True)
    await until(lambda: world.value("SELECT state = 'undone' FROM sagas.instances"))
    assert await world.undone("o1") == [("reserve", "never_happened")]


async def test_a_failure_that_is_tried_again_with_success_ends_as_done(world: World, server: Server) -> None:
    _, again = await second_attempt(world, server, RESERVE)
    await server.tell(again, "failed")
    assert await server.act() == ["reserve", "capture"]
    assert (await server.ended("o1"))[0] == "done"

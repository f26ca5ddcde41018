"""The line to PostgreSQL is cut at every message of a start and of a report that goes on: whole or nothing, and in the end
every step done, in one effect (P9, P10, hazard 6)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from runtime.errors import OutcomeUnknown, Unavailable
from runtime.postgres import Postgres
from tests.sagas.instances.world import Server, World, claim
from tests.sagas.ledger.cutting import Cutter
from tests.waiting import until

MESSAGES_MAX = 60
SHORT = 0.2


@contextlib.asynccontextmanager
async def through(cutter: Cutter, world: World) -> AsyncIterator[Server]:
    """A server whose connections lead through the cutter."""
    postgres = await Postgres.open(await cutter.open(), application_name="cut", wait_seconds=10)
    server = Server(world, postgres, world.clock, coordinates=False, writers=1)
    await server.start()
    try:
        yield server
    finally:
        cutter.disarm()
        await server.stop()
        await postgres.close()
        await cutter.close()


async def _is_quiet(world: World) -> bool:
    return not await world.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cut'")


@pytest.mark.parametrize("loses_answer", [False, True], ids=["message lost", "answer lost"])
async def test_a_report_that_goes_on_is_whole_or_nothing(world: World, server: Server, loses_answer: bool) -> None:  # P10
    await world.plan()
    cuts = 0
    for message in range(1, MESSAGES_MAX):
        name, cutter = f"o{message}", Cutter(world.pg.url)
        await server.begin(name, claim=claim(lease_seconds=SHORT * 10))
        [reserve] = server.tasks
        answer: Any = None
        async with through(cutter, world) as cut:
            await _warm(server, cut, f"w{message}")
            cutter.arm(message, loses_answer=loses_answer)
            with contextlib.suppress(Unavailable, OutcomeUnknown):
                answer = await cut.tell(reserve, then=claim(lease_seconds=SHORT))
            has_cut = cutter.has_cut
        await until(lambda: _is_quiet(world))
        cuts += has_cut
        nothing, whole = [("reserve", "admitted", 1)], [("reserve", "succeeded", 1), ("capture", "admitted", 1)]
        rows = await world.effects_of(name)
        assert [row[:2] for row in rows] in ([row[:2] for row in nothing], [row[:2] for row in whole]), "half done"
        if answer is not None:
            assert rows[0][1] == "succeeded"
        assert (await server.tell(reserve)).results == ["recorded"]
        await _done(world, server, name)
        if not has_cut:
            break
    assert 8 <= cuts < MESSAGES_MAX - 1


@pytest.mark.parametrize("loses_answer", [False, True], ids=["message lost", "answer lost"])
async def test_a_start_is_whole_or_nothing_and_may_be_repeated(world: World, server: Server, loses_answer: bool) -> None:  # P10
    await world.plan()
    cuts = 0
    for message in range(1, MESSAGES_MAX):
        name, cutter = f"o{message}", Cutter(world.pg.url)
        async with through(cutter, world) as cut:
            await _warm(server, cut, f"w{message}")
            cutter.arm(message, loses_answer=loses_answer)
            with contextlib.suppress(Unavailable, OutcomeUnknown):
                await cut.begin(name, claim=claim(lease_seconds=SHORT))
            has_cut = cutter.has_cut
        await until(lambda: _is_quiet(world))
        cuts += has_cut
        begun = await world.value("SELECT count(*) FROM sagas.instances WHERE id = $1", name)
        assert len(await world.effects_of(name)) == begun, "half done"
        assert (await server.begin(name)).outcome == ("exists" if begun else "started")
        await _done(world, server, name)
        if not has_cut:
            break
    assert 5 <= cuts < MESSAGES_MAX - 1


async def _warm(server: Server, cut: Server, name: str) -> None:
    """Statements prepared and definitions read, so that what is cut is the turn."""
    await server.begin(name, claim=claim())
    tasks = server.tasks
    while tasks:
        tasks = (await cut.tell(tasks[0], then=claim())).tasks
    await cut.begin(f"{name}b", claim=claim())
    tasks = cut.tasks
    while tasks:
        tasks = (await server.tell(tasks[0], then=claim())).tasks


async def _done(world: World, server: Server, name: str) -> None:
    """All steps, each in one effect that succeeded; one whose answer was lost is begun again when its lease has run out."""

    async def is_done() -> bool:
        await server.act(instance=name, wait_seconds=0.3)
        return (await server.ended(name, 0.0))[0] == "done"

    await until(is_done)
    rows = await world.effects_of(name)
    assert [row[:2] for row in rows] == [("reserve", "succeeded"), ("capture", "succeeded"), ("confirm", "succeeded")]
    assert sum(row[2] for row in rows) <= 4, "a step was admitted more often than it was lost"

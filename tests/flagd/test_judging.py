"""No edit holds up a kill: changes are judged before they take the environment's row, again where it moved (P1, P5, P19)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest
from rescind import wire

from flagd.core import changes, flagset
from flagd.judging import JUDGEMENTS_MAX
from runtime.problem import Problem
from tests.flagd.world import PRODUCTION, World, definition, flag
from tests.waiting import until

REFERS = definition(targeting={"if": [{"$ref": "staff"}, "on", "off"]})
STAFF = {"in": [{"var": "email"}, ["a@example.com"]]}
WAITS = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype IN ('tuple', 'transactionid')"
TURNS = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"


class Between:
    """Does something while a change is judged, after it has read what is held: once, or as often as it is judged."""

    def __init__(self, act: Callable[[], Coroutine[Any, Any, object]], times: int = 1) -> None:
        self._act = act
        self._times = times
        self._loop = asyncio.get_running_loop()
        self.count = 0

    def __call__(self, held: Mapping[str, changes.HeldFlag], evaluators: Mapping[str, Any]) -> list[wire.Fault]:
        self.count += 1
        if self.count <= self._times:
            asyncio.run_coroutine_threadsafe(self._act(), self._loop).result()
        return []


async def edit(world: World, between: Between, *operations: changes.Operation, **given: Any) -> wire.Revision:
    async with world.service.transaction() as connection:
        return await world.service.write(connection, PRODUCTION, operations, actor="test", objections=between, **given)


async def waits(world: World, query: str) -> bool:
    async with world.pg.connection() as connection:
        return bool(await connection.fetchval(query))


async def put_as_an_older_server(world: World, changed: wire.Flag) -> None:
    """A revision of its own that waits for no turn."""
    async with world.pg.transaction() as connection:
        await connection.execute("UPDATE flagd.environments SET revision = revision + 1 WHERE name = $1", PRODUCTION)
        await connection.execute(
            "UPDATE flagd.flags SET document = $2, changed_revision = changed_revision + 1 WHERE key = $1", changed.key, changed
        )


def put_segment(rule: dict[str, Any]) -> changes.PutSegment:
    return changes.PutSegment(name="staff", rule=rule)


async def test_a_kill_commits_while_an_edit_of_what_thousands_share_is_judged(world: World) -> None:  # P5, P19
    await world.apply([put_segment(STAFF), *(changes.Put(flag=flag(f"f{n}", definition=REFERS)) for n in range(500))])
    killed: list[wire.Revision] = []

    async def kill() -> None:
        killed.append(await world.kill("f0"))

    between = Between(kill)
    revision = await edit(world, between, put_segment({"in": [{"var": "email"}, ["b@example.com"]]}))
    assert (killed, revision, between.count) == ([wire.Revision(1, 2)], wire.Revision(1, 3), 2), "the kill first"


async def test_a_kill_commits_while_an_import_is_judged(world: World) -> None:  # P5, P19
    await world.put(*(flag(f"f{n}") for n in range(500)))
    document, faults = flagset.read({"flags": {f"f{n}": definition(defaultVariant="off") for n in range(500)}})
    assert document is not None, faults
    killed: list[wire.Revision] = []

    async def kill() -> None:
        killed.append(await world.kill("f0"))

    puts = [changes.Put(flag=one) for one in document.flags]
    revision = await edit(world, Between(kill), *puts, document=document, pointers=document.pointers)
    assert (killed, revision) == ([wire.Revision(1, 2)], wire.Revision(1, 3))
    await world.replicas.refresh(PRODUCTION)
    snapshot = (await world.replicas.get(PRODUCTION)).snapshot
    assert [bool(snapshot.flags[key].kills) for key in ("f0", "f1")] == [True, False]


async def test_what_a_kill_forbids_meanwhile_is_refused(world: World) -> None:  # P1, P4
    await world.put(flag("f"))

    async def kill() -> None:
        await world.kill("f")

    inverted = flag("f", definition=definition(variants={"on": False, "off": True}))
    with pytest.raises(Problem) as refused:
        await edit(world, Between(kill), changes.Put(flag=inverted))
    assert refused.value.code == "killed"
    assert (await world.service.flag(PRODUCTION, "f")).stored.flag.definition == definition()


async def test_an_edit_that_would_break_what_was_written_meanwhile_is_refused(world: World) -> None:  # P1, P21
    await world.apply([put_segment(STAFF), changes.Put(flag=flag("f"))])

    async def refer() -> None:
        await put_as_an_older_server(world, flag("f", definition=REFERS))

    between = Between(refer)
    with pytest.raises(Problem) as refused:
        await edit(world, between, changes.DeleteSegment(name="staff"))
    assert refused.value.code == "in_use"
    assert "staff" in (await world.service.segments(PRODUCTION)).rules


async def test_whoever_waits_for_the_row_judges_again_if_it_moved(world: World, other: World) -> None:  # P1
    await world.apply([put_segment(STAFF), changes.Put(flag=flag("f"))])
    async with other.pg.transaction() as connection:
        await connection.execute("SELECT FROM flagd.environments WHERE name = $1 FOR UPDATE", PRODUCTION)
        deleting = asyncio.create_task(world.apply([changes.DeleteSegment(name="staff")]))
        await until(lambda: waits(world, WAITS))
        await connection.execute("UPDATE flagd.environments SET revision = revision + 1 WHERE name = $1", PRODUCTION)
        await connection.execute("UPDATE flagd.flags SET document = $1 WHERE key = 'f'", flag("f", definition=REFERS))
    with pytest.raises(Problem) as refused:
        await deleting
    assert refused.value.code == "in_use"


async def test_those_who_edit_take_turns_and_none_is_judged_twice(world: World, other: World) -> None:
    await world.put(flag("f"), flag("g"))
    waiting: list[asyncio.Task[wire.Revision]] = []

    async def edit_elsewhere() -> None:
        waiting.append(asyncio.create_task(other.put(flag("g", owner="second"))))
        await until(lambda: waits(world, TURNS))

    between = Between(edit_elsewhere)
    first = await edit(world, between, changes.Put(flag=flag("f", owner="first")))
    assert (first, await waiting[0], between.count) == (wire.Revision(1, 2), wire.Revision(1, 3), 1)


async def test_an_edit_that_kills_overtake_again_and_again_is_refused_and_holds_up_none(world: World) -> None:  # P19
    await world.put(flag("f"), flag("g"))
    kills: list[wire.Revision] = []

    async def kill_or_lift() -> None:
        kills.append(await (world.lift("g") if len(kills) % 2 else world.kill("g")))

    between = Between(kill_or_lift, JUDGEMENTS_MAX)
    with pytest.raises(Problem) as refused:
        await edit(world, between, changes.Put(flag=flag("f", owner="late")))
    assert (refused.value.status, refused.value.code) == (409, "overtaken")
    assert between.count == len(kills) == JUDGEMENTS_MAX
    assert await world.put(flag("f", owner="late")) == wire.Revision(1, JUDGEMENTS_MAX + 2)

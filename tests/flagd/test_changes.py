"""Changes against a real database: atomic, gap-free, under kills (P1, P4)."""

from __future__ import annotations

import asyncio

import pytest
from rescind import wire

from flagd.core.changes import Archive, Put
from flagd.writing import AUDIT_ENTRIES_MAX
from runtime.postgres import Postgres
from runtime.problem import Problem
from runtime.queries import all_queries
from tests.flagd.world import PRODUCTION, World, definition, flag

WRITERS = 20


async def test_every_named_query_prepares(pg: Postgres) -> None:
    async with pg.connection() as connection:
        for origin, name, text in all_queries(["flagd"]):
            assert await connection.prepare(text), (origin, name)


async def test_revisions_are_gap_free_under_concurrent_writers(world: World) -> None:  # P1
    async def write(number: int) -> wire.Revision:
        return await world.put(flag(f"flag-{number % 3}", owner=str(number)))

    revisions = await asyncio.gather(*(write(number) for number in range(WRITERS)))
    assert sorted(revision.n for revision in revisions) == list(range(1, WRITERS + 1))
    async with world.pg.connection() as connection:
        recorded = await connection.fetch("SELECT revision, keys FROM flagd.revisions ORDER BY revision")
    assert [row["revision"] for row in recorded] == list(range(1, WRITERS + 1))


async def test_a_refused_change_takes_no_revision(world: World) -> None:  # P1
    await world.put(flag("a"))
    with pytest.raises(Problem):
        await world.apply([Put(flag=flag("b")), Archive(key="nowhere")])
    assert await world.put(flag("c")) == wire.Revision(1, 2)
    replica = await world.replicas.get(PRODUCTION)
    assert set(replica.snapshot.flags) == {"a", "c"}


async def test_no_reader_ever_sees_half_a_change(world: World) -> None:  # P1
    def pair(value: bool) -> list[wire.Flag]:
        default = "on" if value else "off"
        return [flag(key, definition=definition(defaultVariant=default, targeting={})) for key in ("a", "b")]

    await world.put(*pair(True))
    replica = await world.replicas.get(PRODUCTION)
    done = asyncio.Event()
    torn = []

    async def read() -> int:
        count = 0
        while not done.is_set():
            snapshot = replica.snapshot
            sides = {snapshot.flags[key].definition["defaultVariant"] for key in ("a", "b")}
            torn.extend([snapshot.revision] if len(sides) > 1 else [])
            count += 1
            await asyncio.sleep(0)
        return count

    reading = asyncio.create_task(read())
    for turn in range(20):
        await world.put(*pair(turn % 2 == 0))
    done.set()
    assert await reading > 20
    assert torn == []


async def test_a_new_flag_gets_its_fence_in_the_same_transaction(world: World) -> None:  # P8
    await world.put(flag("a"), flag("b", off_variant="on"))
    await world.put(flag("a", owner="me"))
    await world.put(flag("a", off_variant="on"))
    assert world.fenced == [("a", "off"), ("b", "on"), ("a", "on")]


async def test_a_change_for_another_revision_is_refused(world: World) -> None:
    await world.put(flag("a"), expected_revision=wire.Revision(1, 0))
    with pytest.raises(Problem) as refused:
        await world.put(flag("a"), expected_revision=wire.Revision(1, 0))
    assert (refused.value.status, refused.value.code) == (409, "revision_mismatch")


async def test_an_unknown_flag_comes_with_a_suggestion(world: World) -> None:
    await world.put(flag("checkout.new-flow"))
    with pytest.raises(Problem) as refused:
        await world.archive("checkout.new-flwo")
    assert (refused.value.status, refused.value.suggestion) == (404, "checkout.new-flow")


async def test_an_unknown_environment_comes_with_a_suggestion(world: World) -> None:
    with pytest.raises(Problem) as refused:
        await world.service.apply("producton", [Put(flag=flag("a"))], actor="test")
    assert (refused.value.status, refused.value.suggestion) == (404, PRODUCTION)


async def test_a_key_once_used_is_never_given_to_another_flag(world: World) -> None:
    await world.put(flag("a"))
    await world.archive("a")
    with pytest.raises(Problem) as refused:
        await world.put(flag("a"))
    assert (refused.value.status, refused.value.code) == (409, "key_was_used")


async def test_a_definition_from_within_is_checked_as_well(world: World) -> None:
    bad = wire.Flag(key="a", definition={"state": "ENABLED", "variants": {"on": True}, "targeting": {"nope": []}})
    with pytest.raises(Problem) as refused:
        await world.put(bad)
    assert refused.value.status == 422
    assert {fault.pointer for fault in refused.value.errors} >= {
        "/operations/0/flag/definition/targeting/nope",
        "/operations/0/flag/off_variant",
    }


async def test_a_kill_wins_over_targeting_and_over_later_edits_until_it_is_lifted(world: World) -> None:  # P4
    await world.put(flag("f", definition=definition(targeting={})))
    replica = await world.replicas.get(PRODUCTION)
    killed = await world.kill("f")
    await world.replicas.refresh(PRODUCTION, killed)
    assert replica.evaluator.boolean("f", True) is False
    assert replica.snapshot.flags["f"].epoch == 2

    await world.put(flag("f", definition=definition(targeting={"if": [True, "on", "on"]})))
    assert replica.evaluator.boolean("f", True) is False, "an edit stays under the overlay"
    assert (await world.service.flag(PRODUCTION, "f")).stored.flag.definition["targeting"] == {"if": [True, "on", "on"]}

    await world.replicas.refresh(PRODUCTION, await world.lift("f"))
    assert replica.evaluator.boolean("f", False) is True, "lifting brings the rules back"


async def test_a_killed_flag_cannot_be_archived_nor_its_off_variant_turned(world: World) -> None:  # P4
    await world.put(flag("f"))
    await world.kill("f")
    with pytest.raises(Problem) as archived:
        await world.archive("f")
    with pytest.raises(Problem) as turned:
        await world.put(flag("f", definition=definition(variants={"on": False, "off": True})))
    assert [(one.value.status, one.value.code) for one in (archived, turned)] == [(409, "killed")] * 2


async def test_every_change_is_in_the_audit_log(world: World) -> None:  # P20
    await world.put(flag("f"))
    await world.archive("f")
    async with world.pg.connection() as connection:
        rows = await connection.fetch("SELECT action, object, actor, reason FROM runtime.audit ORDER BY id")
    assert [tuple(row) for row in rows] == [
        ("environment.create", PRODUCTION, "test", None),
        ("flag.put", "f", "test", "because"),
        ("flag.archive", "f", "test", "because"),
    ]


async def test_a_long_change_is_one_entry_that_names_every_flag(world: World) -> None:  # P20
    keys = [f"flag-{number}" for number in range(AUDIT_ENTRIES_MAX + 1)]
    await world.put(*(flag(key) for key in keys))
    async with world.pg.connection() as connection:
        rows = await connection.fetch("SELECT action, detail FROM runtime.audit WHERE action LIKE 'flag%'")
    assert [row["action"] for row in rows] == ["flags.change"]
    assert [operation["key"] for operation in rows[0]["detail"]["operations"]] == keys

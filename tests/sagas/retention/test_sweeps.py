"""How history goes: all of a page or nothing at any cut, by one at a time, and in nobody's way (P9, P18)."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from runtime.errors import OutcomeUnknown, Unavailable
from runtime.postgres import Postgres
from sagas import store
from sagas.leases import Leases
from sagas.retention import history as rows
from sagas.retention.policy import Retention
from sagas.retention.sweeper import Sweeper
from tests.sagas.ledger.cutting import Cutter
from tests.sagas.ledger.world import FLAG, World
from tests.sagas.retention.world import History
from tests.waiting import until

KEYS = 12
MESSAGES_MAX = 80
WEAK = {"AccessShareLock", "RowShareLock", "RowExclusiveLock"}
"""What reads and writes of rows take on a table: none of them keeps another of them waiting."""
LOCKS = """
SELECT locktype, mode, relation::regclass::text AS relation FROM pg_locks
WHERE pid = $1 AND granted AND locktype IN ('relation', 'advisory')
"""


async def old(world: World, history: History, count: int = KEYS) -> None:
    """So many effects that are over."""
    for effect in await world.admit(*(world.item(f"k{number}") for number in range(count))):
        await world.report(effect, result={"id": "x"})
    await history.age()


async def gone_and_known(history: History) -> tuple[int, int, int]:
    """How many went, how many are remembered, how many were counted for a later kill."""
    counts = await history.counts("effects", "remains")
    horizon = await history.value("SELECT coalesce(sum(number), 0)::integer FROM sagas.horizons")
    return KEYS - counts["effects"], counts["remains"], horizon


@pytest.mark.parametrize("loses_answer", [False, True])
async def test_a_cut_at_any_message_leaves_all_of_a_page_or_nothing(
    world: World, history: History, pg: Postgres, database_url: str, loses_answer: bool
) -> None:
    await old(world, history)
    cutter = Cutter(database_url)
    through = await Postgres.open(await cutter.open(), application_name="cut", size_max=1, wait_seconds=10)
    sweeper = Sweeper(through, history.clock, history.leases, Retention(history_days=30), page_max=3, rest_seconds=0.0)
    try:
        for message in range(1, MESSAGES_MAX):
            await history.leases.keep()
            cutter.arm(message, loses_answer=loses_answer)
            with contextlib.suppress(Unavailable, OutcomeUnknown):
                await sweeper.round()
            was_cut = cutter.has_cut
            cutter.disarm()
            went, remembered, counted = await gone_and_known(history)
            assert went == remembered == counted
            assert went % 3 == 0
            if not was_cut and went == KEYS:
                break
        else:
            pytest.fail("the sweep was cut every time")
    finally:
        await through.close()
        await cutter.close()
    for number in range(KEYS):
        assert (await world.ask(f"k{number}")).outcome == "replayed"


async def test_two_that_sweep_at_once_drop_each_effect_once(world: World, history: History, pg: Postgres) -> None:  # P18
    await old(world, history)
    await history.leases.keep()
    both = [history.sweeper(page_max=2), history.sweeper(page_max=2)]
    while any(await asyncio.gather(*(one.round() for one in both))):
        await history.leases.keep()
    assert await gone_and_known(history) == (KEYS, KEYS, KEYS)
    assert await history.value("SELECT dropped_ever FROM sagas.sweeps WHERE what = 'effects'") == KEYS


async def test_a_page_that_another_has_dropped_meanwhile_is_not_counted_again(
    world: World, history: History, pg: Postgres
) -> None:  # P18
    await old(world, history)
    await history.leases.keep()
    latest = await history.value("SELECT max(id::text)::uuid FROM sagas.effects")
    async with pg.transaction() as connection:
        await connection.execute("UPDATE sagas.sweeps SET cursor = $1 WHERE what = 'effects'", latest)
        late = asyncio.create_task(history.sweeper(page_max=2).round())
        await until(lambda: history.value("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))
    assert await late, "it looks again"
    assert await history.value("SELECT cursor FROM sagas.sweeps WHERE what = 'effects'") == latest
    assert await history.value("SELECT looked FROM sagas.sweeps WHERE what = 'effects'") == 0
    assert await history.counts("effects") == {"effects": KEYS}


async def test_who_does_not_lease_the_first_range_sweeps_nothing(world: World, history: History, pg: Postgres) -> None:  # P18
    await old(world, history)
    other = Leases(pg, history.clock, "another")
    await other.keep()
    await history.sweep()
    assert await history.counts("effects") == {"effects": KEYS}


async def test_who_lost_the_lease_meanwhile_drops_nothing(world: World, history: History) -> None:  # P18, hazard 14
    await old(world, history)
    await history.leases.keep()
    await world.execute("UPDATE sagas.leases SET token = token + 1, holder = 'another'")
    assert not await history.sweeper().round()
    assert await history.counts("effects") == {"effects": KEYS}


async def test_what_goes_is_locked_by_row_and_the_flag_as_an_admission_locks_it(
    world: World, history: History, pg: Postgres
) -> None:
    await old(world, history)
    async with pg.connection() as connection:
        ids = [row["id"] for row in await connection.fetch("SELECT id FROM sagas.effects")]
        needed = (await rows.locks_of_effects(connection, ids)).values()
    async with pg.transaction() as connection:
        await history.leases.keep()
        await history.leases.fence(connection, 0)
        await connection.execute(store.locking(frozenset().union(*needed)))
        assert await rows.drop_effects(connection, ids, 30) == KEYS
        held = await connection.fetch(LOCKS, await connection.fetchval("SELECT pg_backend_pid()"))
        assert {row["mode"] for row in held if row["locktype"] == "relation"} <= WEAK
        assert {row["mode"] for row in held if row["locktype"] == "advisory"} == {"ShareLock"}
        # while it is open: others are admitted and reported under the same flag, and a kill commits
        assert (await world.report(await world.ask("meanwhile"))).outcome == "recorded"
        assert (await world.kill()).rollback_id
    assert await gone_and_known(history) == (KEYS - 1, KEYS, KEYS)
    assert await history.value("SELECT closed FROM sagas.fences WHERE flag = $1 AND scope_key = ''", FLAG)


async def test_a_kill_that_committed_first_keeps_what_was_found(world: World, history: History, pg: Postgres) -> None:  # P12
    await old(world, history)
    async with pg.connection() as connection:
        ids = [row["id"] for row in await connection.fetch("SELECT id FROM sagas.effects")]
    await world.kill()
    async with pg.transaction() as connection:
        assert await rows.drop_effects(connection, ids, 30) == 0


async def test_what_somebody_holds_is_left_and_not_waited_for(world: World, history: History, pg: Postgres) -> None:
    await old(world, history)
    async with pg.transaction() as connection:
        await connection.execute("SELECT FROM sagas.effects WHERE key = 'k1' FOR UPDATE")
        await history.sweep()
        assert await history.value("SELECT array_agg(key) FROM sagas.effects") == ["k1"]
    await history.sweep()
    assert await history.counts("effects") == {"effects": 0}


async def test_a_sweep_that_came_to_its_end_says_so_and_begins_again(world: World, history: History) -> None:
    await old(world, history)
    await history.sweep(page_max=5)
    assert await history.value(
        "SELECT array[looked::text, dropped::text, (ended_at >= begun_at)::text] FROM sagas.sweeps WHERE what = 'effects'"
    ) == [str(KEYS), str(KEYS), "true"]
    await history.sweep()
    assert await history.value("SELECT dropped FROM sagas.sweeps WHERE what = 'effects'") == 0
    assert await history.value("SELECT dropped_ever FROM sagas.sweeps WHERE what = 'effects'") == KEYS

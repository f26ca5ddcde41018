"""Instances and acknowledgements on a real database."""

from __future__ import annotations

import asyncio
from typing import Any

from rescind import wire

from flagd.instances import KEEP_SECONDS
from tests.flagd.world import PRODUCTION, World, flag

FLEET = 1000


def beat(instance: str = "i", n: int = 1, **how: Any) -> wire.InstanceBeat:
    return wire.InstanceBeat(instance=instance, service="web", revision=wire.Revision(1, n), **how)


async def acknowledged(world: World) -> list[tuple[int, str, str]]:
    async with world.pg.connection() as connection:
        rows = await connection.fetch("SELECT revision, instance_id, how FROM flagd.acknowledgements ORDER BY 1, 2")
    return [tuple(row) for row in rows]


async def test_a_beat_acknowledges_every_standing_kill_it_has_reached(world: World) -> None:
    await world.put(flag("a"), flag("b"), flag("c"))
    await world.kill("a")
    await world.kill("b")
    await world.instances.beat(PRODUCTION, beat(n=1))
    assert await acknowledged(world) == []
    await world.instances.beat(PRODUCTION, beat(n=2, how="push"))
    assert await acknowledged(world) == [(2, "i", "push")]
    await world.instances.beat(PRODUCTION, beat(n=3, how="reply"))
    await world.instances.beat(PRODUCTION, beat(n=3, how="poll"))
    assert await acknowledged(world) == [(2, "i", "push"), (3, "i", "reply")]


async def test_an_instance_is_never_recorded_as_going_back(world: World) -> None:  # P2
    for _ in range(3):
        await world.put(flag("a"))
    for n in (3, 1):
        await world.instances.beat(PRODUCTION, beat(n=n, how=f"at-{n}"))
    (row,) = await world.instances.listing(PRODUCTION)
    assert (row.revision, row.how, row.behind) == ("1.3", "at-3", False)


async def test_who_signed_off_or_was_not_seen_is_not_live(world: World) -> None:
    await world.put(flag("a"))
    await asyncio.gather(*(world.instances.beat(PRODUCTION, beat(name)) for name in ("gone", "here", "silent")))
    await world.instances.beat(PRODUCTION, beat("gone", signing_off=True))
    async with world.pg.connection() as connection:
        await connection.execute("UPDATE flagd.instances SET seen_at = seen_at - interval '16 s' WHERE id = 'silent'")
    live = {row.instance: row.live for row in await world.instances.listing(PRODUCTION)}
    assert live == {"gone": False, "here": True, "silent": False}
    async with world.pg.connection() as connection:
        await connection.execute("UPDATE flagd.instances SET seen_at = seen_at - make_interval(secs => $1)", KEEP_SECONDS)
    await world.instances.forget()
    assert await world.instances.listing(PRODUCTION) == []


async def test_a_fleet_acknowledges_in_a_few_transactions(world: World) -> None:
    await world.put(flag("a"))
    killed = await world.kill("a")
    async with world.pg.connection() as connection:
        before = await connection.fetchval("SELECT pg_current_xact_id()::text::bigint")
    beats = [beat(f"instance-{number}", killed.n, begun=[]) for number in range(FLEET)]
    await asyncio.gather(*(world.instances.beat(PRODUCTION, one) for one in beats + beats[:10]))
    async with world.pg.connection() as connection:
        used = await connection.fetchval("SELECT pg_current_xact_id()::text::bigint") - before
    assert len(await acknowledged(world)) == FLEET
    assert used < 20


async def test_a_beat_of_an_unknown_environment_is_left_out(world: World) -> None:
    await asyncio.gather(world.instances.beat("nowhere", beat()), world.instances.beat(PRODUCTION, beat()))
    assert await world.instances.listing("nowhere") == []
    assert len(await world.instances.listing(PRODUCTION)) == 1

"""How replicas stay current, and what they believe (P2), on real servers that go away and come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.exceptions import ResponseError
from rescind import wire

from flagd.cache import key_of
from flagd.replica import Replica
from runtime.embedded import EmbeddedPostgres, EmbeddedValkey
from runtime.errors import Unavailable
from runtime.migrations import migrate
from runtime.postgres import Postgres
from runtime.problem import Problem
from tests.conftest import ROOMS
from tests.flagd.world import PRODUCTION, World, flag, started
from tests.waiting import until

KEY = key_of(PRODUCTION)


async def cached(world: World) -> str:
    try:
        generation, n = await world.redis.client.hmget(KEY, ["generation", "n"])
    except ResponseError:
        return ""
    return "" if n is None else f"{generation.decode()}.{n.decode()}"


async def is_cached(world: World, revision: wire.Revision) -> bool:
    return await cached(world) == str(revision)


async def set_revision(pg: Postgres, n: int, generation: int = 1) -> None:
    """PostgreSQL as it is after a restore: with another revision than before."""
    async with pg.connection() as connection:
        await connection.execute("UPDATE flagd.environments SET revision = $1, generation = $2", n, generation)


@pytest.fixture
async def other(world: World, pg: Postgres, redis_url: str) -> AsyncIterator[World]:
    """A second process on the same servers."""
    async with started(pg, redis_url) as other:
        await other.replicas.get(PRODUCTION)
        yield other


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A Redis that the test may stop."""
    with EmbeddedValkey(tmp_path / "valkey") as server:
        yield server


async def held(world: World) -> Replica:
    return await world.replicas.get(PRODUCTION)


async def test_a_change_reaches_another_replica(world: World, other: World) -> None:
    revision = await world.put(flag("f"))
    replica = await held(other)
    await until(lambda: replica.revision == revision)
    assert replica.evaluator.boolean("f", False) is True
    assert replica.snapshot == (await held(world)).snapshot


async def test_a_replica_never_goes_back(world: World) -> None:  # P2
    await world.put(flag("f"))
    before = (await held(world)).snapshot
    now = await world.put(flag("g"))
    replica = await held(world)
    assert not replica.adopt(before)
    assert not replica.apply(wire.Change(environment=PRODUCTION, previous=now, revision=before.revision))
    assert replica.revision == now


async def test_a_change_is_only_laid_over_what_it_follows(world: World) -> None:  # P1
    replica = await held(world)
    beyond = wire.Change(environment=PRODUCTION, previous=wire.Revision(1, 5), revision=wire.Revision(1, 6))
    assert not replica.apply(beyond)
    assert replica.revision == wire.Revision(1, 0)


async def test_the_cache_is_repaired_after_it_was_flushed(world: World) -> None:  # P2
    revision = await world.put(flag("f"))
    await until(lambda: is_cached(world, revision))
    await world.redis.client.flushall()
    await until(lambda: is_cached(world, revision))


async def test_an_older_snapshot_in_the_cache_is_repaired_not_believed(world: World, other: World) -> None:  # P2
    first = await world.put(flag("f"))
    await until(lambda: is_cached(world, first))
    older = await world.redis.client.dump(KEY)
    second = await world.put(flag("g"))
    await until(lambda: is_cached(world, second))
    assert older is not None
    await world.redis.client.restore(KEY, 0, older, replace=True)
    assert await cached(world) == str(first)
    await until(lambda: is_cached(world, second))
    assert {(await held(one)).revision for one in (world, other)} == {second}


@pytest.mark.parametrize("rubbish", ["a string", "no snapshot"])
async def test_rubbish_in_the_cache_is_replaced(world: World, pg: Postgres, redis_url: str, rubbish: str) -> None:  # P2
    revision = await world.put(flag("f"))
    await until(lambda: is_cached(world, revision))
    if rubbish == "a string":
        await world.redis.client.set(KEY, b"rubbish")
    else:
        await world.redis.client.hset(KEY, "body", b"rubbish")
    async with started(pg, redis_url) as late:
        assert (await held(late)).revision == revision
    await until(lambda: is_cached(world, revision))
    assert await world.redis.client.hget(KEY, "body") == (await held(world)).encoded


async def test_a_slow_writer_cannot_put_an_older_snapshot_over_a_newer(world: World) -> None:  # P2
    first = await world.put(flag("f"))
    replica = await held(world)
    older = replica.encoded
    second = await world.put(flag("g"))
    await until(lambda: is_cached(world, second))
    assert not await world.replicas.cache.store(PRODUCTION, first, older, b"{}")
    assert await cached(world) == str(second)


async def test_the_cache_keeps_a_snapshot_of_a_later_generation_whatever_its_number(world: World) -> None:  # P2
    brought = ((1, 9), (2, 1), (1, 10), (2, 1), (2, 2), (3, 1), (2, 3))
    store = world.replicas.cache.store
    kept = [each for each in brought if await store("elsewhere", wire.Revision(*each), b"a snapshot", b"{}")]
    assert kept == [(1, 9), (2, 1), (2, 2), (3, 1)]
    assert await world.redis.client.hmget(key_of("elsewhere"), ["generation", "n"]) == [b"3", b"1"]


async def test_without_redis_a_change_reaches_another_replica_through_postgresql(
    pg: Postgres, own_valkey: EmbeddedValkey
) -> None:  # P5
    async with started(pg, own_valkey.url) as world, started(pg, own_valkey.url) as other:
        await world.service.create_environment(PRODUCTION, actor="test")
        await world.put(flag("f"))
        replica = await held(other)
        own_valkey.stop()
        revision = await world.put(flag("g"))
        await until(lambda: replica.revision == revision)
        killed = await world.kill("f")
        await until(lambda: replica.revision == killed)
        assert replica.evaluator.boolean("f", True) is False
        own_valkey.start()
        await until(lambda: is_cached(world, killed))


async def test_polling_is_enough_on_its_own(world: World, other: World) -> None:
    replica = await held(other)
    for task in other.replicas.tasks:
        if task.get_name() in ("_listen", "_hear"):
            task.cancel()
    revision = await world.put(flag("f"))
    await until(lambda: replica.revision == revision)


async def test_a_postgresql_older_than_what_the_cache_has_seen_refuses_changes(
    world: World, pg: Postgres, redis_url: str
) -> None:  # P2
    await world.put(flag("f"))
    newest = await world.put(flag("g"))
    await until(lambda: is_cached(world, newest))
    await set_revision(pg, 1)
    async with started(pg, redis_url) as restarted:
        assert (await held(restarted)).revision == newest, "the restarted replica does not go back"
        for one in (world, restarted):
            with pytest.raises(Problem) as refused:
                await one.put(flag("h"))
            assert (refused.value.status, refused.value.code) == (409, "environment_in_recovery")
            assert "doctor --restored" in (refused.value.next_step or "")
        await set_revision(pg, 1, generation=2)
        revision = await world.put(flag("h"))
        assert revision == wire.Revision(2, 2)
        replica = await held(restarted)
        await until(lambda: replica.revision == revision)
        assert "h" in replica.snapshot.flags


async def test_a_postgresql_older_than_an_acknowledgement_refuses_changes(world: World) -> None:  # P2
    await world.put(flag("f"))
    ahead = wire.InstanceBeat(instance="i", service="s", revision=wire.Revision(1, 9))
    await world.instances.beat(PRODUCTION, ahead)
    with pytest.raises(Problem) as refused:
        await world.put(flag("g"))
    assert refused.value.code == "environment_in_recovery"


async def test_a_replica_serves_on_without_postgresql_and_catches_up_when_it_is_back(
    tmp_path: Path, redis_url: str
) -> None:  # P5
    with EmbeddedPostgres(tmp_path / "postgres", fsync=False) as server:
        await migrate(server.url, ROOMS)
        pg = await Postgres.open(server.url, application_name="tests")
        async with started(pg, redis_url) as world:
            await world.service.create_environment(PRODUCTION, actor="test")
            revision = await world.put(flag("f"))
            await until(lambda: is_cached(world, revision))
            await asyncio.to_thread(server.stop)
            assert (await held(world)).evaluator.boolean("f", False) is True
            async with started(pg, redis_url) as late:
                replica = await held(late)
                assert replica.revision == revision, "a replica that starts now learns from the cache"
                await asyncio.to_thread(server.start)
                after = await until(lambda: written(world))
                await until(lambda: replica.revision == after)
        await pg.close()


async def written(world: World) -> wire.Revision | None:
    """The revision of a change, once PostgreSQL takes one again."""
    try:
        return await world.put(flag("g"))
    except Unavailable:
        return None

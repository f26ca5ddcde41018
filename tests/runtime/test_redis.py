"""Redis: a bell that may be away."""

import asyncio
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from runtime.embedded import EmbeddedValkey, free_port
from runtime.errors import Unavailable
from runtime.redis import Redis
from tests.waiting import until


async def test_a_client_reads_what_it_wrote(redis_url):
    redis = Redis.open(redis_url)
    with redis.guard():
        await redis.client.set("k", "v")
        assert await redis.client.get("k") == b"v"
    assert await redis.answers()
    await redis.close()


async def test_redis_away_is_unavailable_and_never_at_construction():
    redis = Redis.open(f"redis://127.0.0.1:{free_port()}/0")
    assert not await redis.answers()
    with pytest.raises(Unavailable):
        with redis.guard():
            await redis.client.get("k")
    await redis.close()


async def test_redis_that_restarts_is_found_again_at_once(tmp_path: Path):
    with EmbeddedValkey(tmp_path / "vk") as valkey:
        redis = Redis.open(valkey.url)
        await redis.client.set("k", "v")
        await asyncio.to_thread(valkey.stop)
        with pytest.raises(Unavailable), redis.guard():
            await redis.client.get("k")
        await asyncio.to_thread(valkey.start)
        with redis.guard():
            assert await redis.client.get("k") == b"v"
        await redis.close()


async def test_redis_that_hangs_is_unavailable_soon():
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        finally:
            writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    redis = Redis.open(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0")
    async with asyncio.timeout(60):
        with pytest.raises(Unavailable), redis.guard():
            await redis.client.get("k")
    await redis.close()
    server.close()
    await server.wait_closed()


async def test_what_redis_refuses_is_not_taken_for_absence(redis_url):
    redis = Redis.open(redis_url)
    await redis.client.set("k", "v")
    with pytest.raises(ResponseError), redis.guard():
        await redis.client.incr("k")
    await redis.close()


async def test_a_subscription_hears_the_bell_after_silence(redis_url):
    redis = Redis.open(redis_url)
    async with redis.client.pubsub() as pubsub:
        await pubsub.subscribe("bell")
        heard: list[bytes] = []

        async def listen() -> None:
            while not heard:
                message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=0.05)
                if message is not None:
                    heard.append(message["data"])

        listening = asyncio.create_task(listen())
        await until(lambda: redis.client.publish("bell", "ding"))
        await listening
    assert heard == [b"ding"]
    await redis.close()

"""The snapshot that replicas share in Redis, and the bell that tells of a new one.

A cache: everything here can be had from PostgreSQL, and is believed only where it is newer (P2). A snapshot is kept by
compare-and-set on its revision, inside Redis, so that no slow writer puts an older one over a newer.
"""

from __future__ import annotations

import contextlib
import importlib.resources
from collections.abc import AsyncGenerator, Callable
from typing import Any

import msgspec
from redis.exceptions import RedisError
from rescind import wire

from runtime.clock import Clock
from runtime.errors import Unavailable
from runtime.redis import Redis

BELL = "rescind:bell"
AWAY_SECONDS = 1.0
"""After a failure Redis is left alone this long, so that no write waits for it twice."""

_SCRIPT = importlib.resources.files("flagd").joinpath("store_snapshot.lua").read_text(encoding="utf-8")

_snapshots = msgspec.json.Decoder(wire.Snapshot)
_changes = msgspec.json.Decoder(wire.Change)


def key_of(environment: str) -> str:
    """The key that holds the environment's snapshot; the braces keep it on one node of a cluster."""
    return f"rescind:{{{environment}}}:snapshot"


class Cache:
    """The shared snapshots. Every method raises `Unavailable` while Redis is away."""

    def __init__(self, redis: Redis, clock: Clock) -> None:
        self._redis = redis
        self._clock = clock
        self._away_until = float("-inf")

    async def revision(self, environment: str) -> wire.Revision | None:
        """Of the snapshot that is held; None if none is, or nothing that can be read as one."""
        return _revision(await self._ask(lambda: self._redis.client.hmget(key_of(environment), ["generation", "n"])))

    async def snapshot(self, environment: str) -> wire.Snapshot | None:
        """The one that is held, or None. One that cannot be read is taken away: whoever has a good one puts it back."""
        body = await self._ask(lambda: self._redis.client.hget(key_of(environment), "body"))
        if body is None:
            return None
        try:
            return _snapshots.decode(body)
        except msgspec.MsgspecError:
            await self._ask(lambda: self._redis.client.delete(key_of(environment)))
            return None

    async def store(self, environment: str, revision: wire.Revision, body: bytes, bell: bytes) -> bool:
        """Keep this snapshot if it is newer than what is held, and ring the bell with `bell`, an encoded Change."""
        generation, n = str(revision.generation), str(revision.n)
        kept = await self._ask(
            lambda: self._redis.client.eval(_SCRIPT, 1, key_of(environment), generation, n, body, BELL, bell)
        )
        return bool(kept == 1)

    async def bells(self) -> AsyncGenerator[wire.Change, None]:
        """Changes as they are rung, from any replica, until Redis is away."""
        channel = self._redis.client.pubsub(ignore_subscribe_messages=True)
        try:
            await self._ask(lambda: channel.subscribe(BELL))
            while True:
                message = await self._ask(lambda: channel.get_message(timeout=1.0))
                if message is not None:
                    with contextlib.suppress(msgspec.MsgspecError):
                        yield _changes.decode(message["data"])
        finally:
            await channel.aclose()  # type: ignore[no-untyped-call]

    async def _ask(self, question: Callable[[], Any]) -> Any:
        if self._clock.monotonic() < self._away_until:
            raise Unavailable("Redis")
        try:
            with self._redis.guard():
                return await question()
        except Unavailable:
            self._away_until = self._clock.monotonic() + AWAY_SECONDS
            raise
        except RedisError as error:  # read only after a failover, out of memory, still loading: of no use now
            if str(error).startswith("WRONGTYPE"):
                return None  # no snapshot: `store` takes it away
            self._away_until = self._clock.monotonic() + AWAY_SECONDS
            raise Unavailable("Redis", str(error)) from error


def _revision(fields: list[bytes | None] | None) -> wire.Revision | None:
    try:
        generation, n = (int(field) for field in fields or () if field is not None)
    except ValueError:
        return None
    return wire.Revision(generation, n)

"""Redis (or Valkey): a shared cache and a bell, never the truth. Nothing here waits long for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from redis import asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from runtime.errors import Unavailable

CONNECT_SECONDS = 0.5
ANSWER_SECONDS = 1.0
RETRIES_MAX = 1
"""One, at once: a pooled connection may have been closed by a restart of the server."""


class Redis:
    """A client that connects on first use. `client` speaks bytes; wrap its calls in `guard()`."""

    def __init__(self, url: str, client: aioredis.Redis) -> None:
        self.url = url
        self.client = client

    @classmethod
    def open(cls, url: str) -> Redis:
        """Return a client. Touches no network and so never fails for it."""
        client: aioredis.Redis = aioredis.Redis.from_url(
            url,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            retry=Retry(NoBackoff(), RETRIES_MAX),
            protocol=2,
        )
        return cls(url, client)

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Turn "Redis is away" in the body into `Unavailable`; Redis's own refusals pass as they are."""
        try:
            yield
        except (RedisConnectionError, RedisTimeoutError, OSError) as error:
            raise Unavailable("Redis", str(error)) from error

    async def answers(self) -> bool:
        """Whether it is there now."""
        try:
            await self.client.ping()
        except (RedisError, OSError):
            return False
        return True

    async def close(self) -> None:
        """Close its connections."""
        await self.client.aclose()

"""HTTP connections of an executor: several small pools. For each request a pool of httpcore looks at all of its connections,
and for each idle one at all others; with 64 in one pool that was more work than the request (docs/decisions/0030).
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator

import httpx

POOLS = 8
LIMITS = httpx.Limits(max_connections=8, max_keepalive_connections=8, keepalive_expiry=30.0)


class Lines:
    """The pools: no proxy from the environment, no redirects, made when they are needed."""

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._ssl: ssl.SSLContext | None = None
        self._pools: list[httpx.AsyncClient] = []
        self._busy = [0] * POOLS

    @contextlib.contextmanager
    def one(self) -> Iterator[httpx.AsyncClient]:
        """The pool with the least to do, for one request."""
        index = min(range(POOLS), key=self._busy.__getitem__)
        while len(self._pools) <= index:
            self._pools.append(self._pool())
        self._busy[index] += 1
        try:
            yield self._pools[index]
        finally:
            self._busy[index] -= 1

    def _pool(self) -> httpx.AsyncClient:
        self._ssl = self._ssl or httpx.create_ssl_context(trust_env=False)
        return httpx.AsyncClient(
            timeout=self._timeout_seconds, trust_env=False, follow_redirects=False, limits=LIMITS, verify=self._ssl
        )

    async def close(self) -> None:
        """Close every connection."""
        pools, self._pools = self._pools, []
        await asyncio.gather(*(pool.aclose() for pool in pools))

"""`/healthz` and `/readyz`, the only open ways in; `/metrics`, which needs a token that may read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from runtime.errors import RuntimeFault
from runtime.postgres import Postgres
from runtime.principal import bearer
from runtime.problem import Problem, send_problem
from runtime.queries import Queries
from runtime.redis import Redis
from runtime.telemetry import PROMETHEUS_CONTENT_TYPE, Telemetry
from runtime.verifier import Verifier

QUERIES = Queries.load("server", "health")
READY_SECONDS = 1.0
PATHS = ("/healthz", "/readyz", "/metrics")

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class HealthApp:
    """Alive; ready, with what is missing by name; and the process's metrics."""

    def __init__(self, pg: Postgres, redis: Redis, verifier: Verifier, telemetry: Telemetry) -> None:
        self._pg = pg
        self._redis = redis
        self._verifier = verifier
        self._telemetry = telemetry

    @staticmethod
    def matches(path: str) -> bool:
        """Whether this application answers the path."""
        return path in PATHS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["method"] not in ("GET", "HEAD"):
                raise Problem(405, "method_not_allowed", "Method not allowed", "Use GET.")
            match scope["path"]:
                case "/healthz":
                    status, body, kind = 200, b'{"status":"alive"}', "application/json"
                case "/readyz":
                    status, body, kind = await self._readiness()
                case _:
                    principal = await self._verifier.verify(bearer(scope["headers"]))
                    principal.require("read")
                    status, body, kind = 200, self._telemetry.prometheus_text(), PROMETHEUS_CONTENT_TYPE
        except Exception as error:  # the boundary: whatever happens becomes an answer
            await send_problem(send, error)
            return
        headers = [
            (b"content-type", kind.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _readiness(self) -> tuple[int, bytes, str]:
        """Ready where PostgreSQL answers; Redis is told of, but a server works without it (P5)."""
        postgres, redis = await asyncio.gather(self._postgres_answers(), self._redis_answers())
        parts = {"postgresql": "ok" if postgres else "away", "redis": "ok" if redis else "away"}
        body = msgspec.json.encode({"status": "ready" if postgres else "not ready", **parts})
        return (200 if postgres else 503), body, "application/json"

    async def _postgres_answers(self) -> bool:
        try:
            async with asyncio.timeout(READY_SECONDS), self._pg.connection() as connection:
                await connection.execute(QUERIES.answers)
        except (RuntimeFault, TimeoutError):
            return False
        return True

    async def _redis_answers(self) -> bool:
        try:
            async with asyncio.timeout(READY_SECONDS):
                return await self._redis.answers()
        except TimeoutError:
            return False

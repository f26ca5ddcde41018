"""What the tests of this wing stand on: an environment with a flag, replicas on real servers, kills by the real function."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import uvicorn
from litestar import Litestar
from rescind import wire

from flagd.core.changes import Archive, Operation, Put
from flagd.counts import Counts
from flagd.http import routes
from flagd.http.ofrep import EventStreams, OfrepApp
from flagd.http.stream import StreamApp
from flagd.imports import Imports
from flagd.instances import Instances
from flagd.replica import Replicas
from flagd.rollouts import Rollouts
from flagd.scheduler import Scheduler
from flagd.schedules import Schedules
from flagd.service import FlagService
from runtime import tokens
from runtime.clock import Clock, Entropy
from runtime.postgres import Connection, Postgres
from runtime.problem import litestar_handlers
from runtime.redis import Redis
from runtime.tokens import Verifier

PRODUCTION = "production"
KILL = "SELECT * FROM rollbacks.kill_v1($1, $2, 'bad', 'test', NULL, 'none', 0, $3, {})".format(", ".join(["NULL"] * 7))
LIFT = "SELECT * FROM rollbacks.lift_v1($1, $2, 'test', 'mended', NULL, true)"
VALUES: dict[str, Any] = {
    "boolean": True,
    "string": "text \u00e9\U0001f600",
    "integer": 7,
    "float": 0.5,
    "whole": 2.0,
    "object": {"list": [1, 2.5, None], "text": ""},
}
"""A value of each kind that a flag can serve."""


def definition(**changed: Any) -> dict[str, Any]:
    """A boolean flag that is on for everyone, with a rule."""
    return {
        "state": "ENABLED",
        "variants": {"on": True, "off": False},
        "defaultVariant": "on",
        "targeting": {"if": [{"==": [{"var": "plan"}, "free"]}, "off", "on"]},
        **changed,
    }


def flag(key: str, **changed: Any) -> wire.Flag:
    """A flag of that definition."""
    return wire.Flag(key=key, **{"definition": definition(), **changed})


class World:
    """One process of the wing: service, replicas and instances on a database and a Redis."""

    def __init__(self, pg: Postgres, redis_url: str) -> None:
        self.pg = pg
        self.redis = Redis.open(redis_url)
        self.clock = Clock()
        self.replicas = Replicas(pg, self.redis, self.clock)
        self.fenced: list[tuple[str, str]] = []
        self.service = FlagService(pg, self.replicas, self._on_created)
        self.schedules = Schedules(pg, self.replicas, self.service, Entropy())
        self.rollouts = Rollouts(pg, self.replicas, self.service, Entropy())
        self.scheduler = Scheduler(self.schedules, self.rollouts, self.clock)
        self.instances = Instances(pg)
        self.counts = Counts(pg, self.clock)
        self.verifier = Verifier(pg)
        self.streams = StreamApp(self.replicas, self.verifier, self.instances)
        self.events = EventStreams(self.replicas, self.verifier, self.clock)
        self.acknowledged: list[wire.InstanceBeat] = []

    async def _on_created(self, connection: Connection, environment: str, flags: Sequence[tuple[str, str]]) -> None:
        assert connection.is_in_transaction()
        self.fenced.extend(flags)

    async def _on_acknowledged(self, environment: str, beat: wire.InstanceBeat) -> None:
        self.acknowledged.append(beat)

    async def put(self, *flags: wire.Flag, **how: Any) -> wire.Revision:
        """Put flags into production under one revision."""
        return await self.apply([Put(flag=flag) for flag in flags], **how)

    async def archive(self, key: str) -> wire.Revision:
        """Archive a flag of production."""
        return await self.apply([Archive(key=key)])

    async def apply(self, operations: Sequence[Operation], **how: Any) -> wire.Revision:
        """Change production."""
        return await self.service.apply(PRODUCTION, operations, actor="test", reason="because", **how)

    async def kill(self, *keys: str, scope: dict[str, Any] | None = None) -> wire.Revision:
        """Kill flags of production as the server does it, and tell nobody."""
        async with self.pg.transaction() as connection:
            row = await connection.fetchrow(KILL, PRODUCTION, list(keys), scope or {})
        return wire.Revision(row["generation"], row["revision"])

    async def lift(self, key: str) -> wire.Revision:
        """Lift the kills of a flag, and tell nobody."""
        async with self.pg.transaction() as connection:
            row = await connection.fetchrow(LIFT, PRODUCTION, key)
        return wire.Revision(row["generation"], row["revision"])

    async def token(self, *scopes: str, environment: str | None = PRODUCTION) -> str:
        """A new token."""
        async with self.pg.transaction() as connection:
            text, _ = await tokens.create(connection, f"test-{uuid.uuid4()}", environment, list(scopes), "test")
        return text

    def app(self) -> Any:
        """The wing as one ASGI application: the two bare ones in front."""
        ofrep = OfrepApp(self.replicas, self.verifier, self.events)
        router = routes.build(
            service=self.service,
            replicas=self.replicas,
            instances=self.instances,
            counts=self.counts,
            clock=self.clock,
            verifier=self.verifier,
            on_acknowledged=self._on_acknowledged,
            imports=Imports(self.pg, self.replicas, self.service),
            schedules=self.schedules,
            rollouts=self.rollouts,
        )
        framework = Litestar(route_handlers=[router], exception_handlers=litestar_handlers)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            chosen = next((one for one in (ofrep, self.streams) if one.matches(scope["path"])), framework)
            await chosen(scope, receive, send)

        return app


@contextlib.asynccontextmanager
async def started(pg: Postgres, redis_url: str) -> AsyncIterator[World]:
    """A world whose replicas listen."""
    world = World(pg, redis_url)
    await world.replicas.start()
    try:
        yield world
    finally:
        await world.replicas.stop()
        await world.redis.close()


@contextlib.asynccontextmanager
async def served(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the world over HTTP, by a real server on loopback."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(world.app(), lifespan="off", log_level="warning", timeout_graceful_shutdown=1, ws="none")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    base = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        async with httpx.AsyncClient(base_url=base, timeout=60) as client:
            yield client
    finally:
        await world.replicas.stop()
        server.should_exit = True
        await serving
        listening.close()

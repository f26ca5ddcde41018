"""One service as a process: its instances, each an application of its own on a port of its own, with an SDK client of its own.

    python -m load.services.process < INPUT

The input is a line of JSON (`Setting`), then one with everyone's URLs by service (`Urls`); it answers with its own URLs, then
with "ready" once every client has a snapshot, and goes on until the input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import msgspec
import uvicorn
from msgspec import Struct
from rescind import AsyncClient
from rescind.asgi import RescindMiddleware
from rescind.header import HEADER_BYTES
from rescind.httpx import instrument

from load.services.service import ARRIVED, Service
from load.services.traces import Hop, Route

READY_SECONDS = 60.0
CALL_SECONDS = 60.0
KEEP_ALIVE_SECONDS = 120
"""Longer than callers keep a connection that rests: none is closed under a request."""

Urls = dict[str, list[str]]


class Setting(Struct, frozen=True, kw_only=True):
    """What a process is told."""

    name: str
    servers: list[str]
    """For each instance: where it finds the server."""
    token: str
    environment: str
    state_dir: str
    budget_seconds: float
    carries: bool = True
    """The revision goes from service to service; otherwise everyone is on their own."""


class Listener(uvicorn.Server):
    """One instance's server."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The process ends with its input."""
        yield


class Instance:
    """One instance."""

    def __init__(self, setting: Setting, number: int, urls: Urls) -> None:
        self._setting = setting
        self._number = number
        self._urls = urls
        self.client = AsyncClient(
            url=setting.servers[number], token=setting.token, environment=setting.environment, service=setting.name,
            state_dir=f"{setting.state_dir}/{setting.name}-{number}",
        )  # fmt: skip
        http = httpx.AsyncClient(timeout=CALL_SECONDS)
        budget = setting.budget_seconds
        self._http = instrument(http, self.client, budget_seconds=budget) if setting.carries else http
        service = Service(setting.name, number, self.client, self._call)
        self._served: Any = RescindMiddleware(service, self.client, budget_seconds=budget) if setting.carries else service

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The application: notes who comes ahead of this instance."""
        core = self.client.core
        values = [value for name, value in scope["headers"] if name == HEADER_BYTES]
        if values and core.causality.seen(values, self._setting.environment) is not None:
            scope[ARRIVED] = asyncio.get_running_loop().time()
        await self._served(scope, receive, send)

    @asynccontextmanager
    async def running(self, listening: socket.socket) -> AsyncIterator[None]:
        """Serves, with a snapshot."""
        config = uvicorn.Config(
            self, interface="asgi3", lifespan="off", ws="none", log_config=None, access_log=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )  # fmt: skip
        server = Listener(config)
        async with self._http, self.client:
            if not await self.client.wait_ready(READY_SECONDS):
                raise SystemExit(f"{self._setting.name} {self._number} has no snapshot")
            serving = asyncio.create_task(server.serve([listening]))
            try:
                yield
            finally:
                server.should_exit = server.force_exit = True
                await serving

    async def _call(self, route: Route) -> Hop:
        url = random.choice(self._urls[route.service])
        response = await self._http.post(url, content=msgspec.json.encode(route))
        return msgspec.json.decode(response.raise_for_status().content, type=Hop)


async def run(setting: Setting) -> None:
    """Until the input ends."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in setting.servers]
    say([f"http://127.0.0.1:{one.getsockname()[1]}" for one in sockets])
    urls = msgspec.json.decode(await asyncio.to_thread(sys.stdin.buffer.readline), type=Urls)
    async with AsyncExitStack() as stack:
        instances = [Instance(setting, number, urls) for number in range(len(sockets))]
        started = (stack.enter_async_context(one.running(listening)) for one, listening in zip(instances, sockets, strict=True))
        for one in started:
            await one
        say("ready")
        await asyncio.to_thread(sys.stdin.buffer.read)


def say(what: object) -> None:
    """One line."""
    print(msgspec.json.encode(what).decode(), flush=True)


if __name__ == "__main__":
    asyncio.run(run(msgspec.json.decode(sys.stdin.buffer.readline(), type=Setting)))

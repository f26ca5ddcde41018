"""Everything that runs: PostgreSQL and Valkey, three servers, four workers, a caller that may die, and how each is hurt.

Processes of their own, as a user starts them; the provider and the gate live here, where nothing is killed.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import uvicorn
from rescind.errors import ApiError, Unreachable
from rescind.transport import AsyncApi

from demo.asgi import App
from demo.processes import Child, Children, StartError
from flagd import store
from load.chaos.faults import Fault
from load.chaos.gate import Gate
from load.chaos.provider import Provider
from load.chaos.reading import QUERIES, watch
from load.chaos.shop import FLAGS, SAGAS
from runtime import tokens
from runtime.embedded import EmbeddedPostgres, EmbeddedValkey
from runtime.errors import RuntimeFault
from runtime.migrations import migrate
from runtime.postgres import connect
from server.migrations import ROOMS

ROOT = Path(__file__).resolve().parent.parent.parent
ENVIRONMENT = "production"
SERVERS = 3
WORKERS = 4
WORKER_LEASE_SECONDS = 2
START_SECONDS = 90.0
ASK_SECONDS = 5.0
TRIES_MAX = 60
GRACE_TRIES_MAX = 400
"""Two minutes: a drain begins again with each server that is killed in it."""
LOOK_SECONDS = 0.3
GRACE_SECONDS = 60.0
"""Of a kill that is lifted as a mistake: far longer than it stands."""
AWAY = "PostgreSQL is not available"
READY = "rescind serve is ready: "
CLI = (sys.executable, "-m", "rescind.cli")


class Stage:
    """Started by `open`. `children`: what runs now, by role and number."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.seed = seed
        self.provider = Provider(seed)
        self.gate = Gate()
        self.postgres = EmbeddedPostgres(folder / "postgres")
        self.valkey = EmbeddedValkey(folder / "valkey")
        self.children: dict[tuple[str, int], Child] = {}
        self.gate_url = ""
        self.token = ""
        self.api: AsyncApi
        self._provider_url = ""
        self._lives = 0
        self._processes = Children(folder)
        self._stack = AsyncExitStack()
        self._restarting = asyncio.Lock()
        self._killing = {flag: asyncio.Lock() for flag in FLAGS.values()}

    async def start(self, on_started: Callable[[], None]) -> None:
        """Start all of it; `on_started` is called as each is there. `stop` is to be called in every case."""
        for server in (self.postgres, self.valkey):
            self._stack.callback(server.stop)
            await asyncio.to_thread(server.start)
        self.token = await self._lay_down()
        self._provider_url = await self._stack.enter_async_context(_served(self.provider.app()))
        self.gate_url = await self._stack.enter_async_context(_served(self.gate))
        self._stack.push_async_callback(self.gate.close)
        await self._stack.enter_async_context(self._processes)
        self.api = AsyncApi(self.gate_url, self.token, ENVIRONMENT)
        self._stack.push_async_callback(self.api.close)

        async def begin(role: str, number: int) -> None:
            await self.begin(role, number)
            on_started()

        await asyncio.gather(*(begin("server", number) for number in range(SERVERS)))
        for flag in FLAGS.values():
            await self._flag(flag)
        await asyncio.gather(*(begin("worker", number) for number in range(WORKERS)), begin("caller", 0))

    async def stop(self) -> None:
        """Stop what was started."""
        for child in self.children.values():
            with suppress(ProcessLookupError):
                os.killpg(child.process.pid, signal.SIGKILL)
        await self._stack.aclose()

    async def connection(self) -> Any:
        """A connection of our own."""
        return await connect(self.postgres.url, application_name="chaos")

    async def begin(self, role: str, number: int) -> None:
        """Start a process in the place of the one that was there."""
        self._lives += 1
        name = f"{role}-{number}-{self._lives}"
        child = await self._processes.start(name, self._arguments(role, name), self._variables(role, name))
        self.children[role, number] = child
        if role == "server":
            try:
                self.gate.targets[number] = await _ready(child)
            except StartError as error:
                if AWAY in str(error):  # PostgreSQL went away while it started: whoever looks after it starts it again
                    await self.begin(role, number)
                elif child.process.returncode != -signal.SIGKILL:
                    raise
                return  # the next fault met it already
        child.drain()

    async def meet(self, fault: Fault) -> None:
        """Let one fault happen, and end."""
        chance = random.Random(fault.number)
        match fault.kind:
            case "kill -9 a server":
                await self._kill("server", fault.number % SERVERS, fault.seconds)
            case "kill -9 a worker":
                await self._kill("worker", fault.number % WORKERS, fault.seconds)
            case "kill -9 the caller":
                await self._kill("caller", 0, fault.seconds)
            case "stop a server past its lease":
                await self._freeze("server", fault.number % SERVERS, fault.seconds)
            case "stop a worker past its lease":
                await self._freeze("worker", fault.number % WORKERS, fault.seconds)
            case "restart PostgreSQL at once":
                await self._restart_postgres(fault.seconds)
            case "end PostgreSQL's backends":
                await self._end_backends(fault.number % 4)
            case "kill a flag, then lift it":
                flag = chance.choice(sorted(FLAGS.values()))
                await self._kill_flag(flag, fault.seconds, is_mistake=chance.random() < 0.5)

    async def heal(self) -> None:
        """The faults that outlast their time: the caller goes for good, the provider behaves, flags are lifted."""
        self.provider.is_faulty = False
        caller = self.children.pop(("caller", 0))
        with suppress(ProcessLookupError):
            os.killpg(caller.process.pid, signal.SIGKILL)
        for flag in FLAGS.values():
            await self._lift(flag)

    async def _kill(self, role: str, number: int, seconds: float) -> None:
        child = self.children.get((role, number))
        if child is None or child.process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            os.killpg(child.process.pid, signal.SIGKILL)
        await child.process.wait()
        await asyncio.sleep(seconds)
        if self.children.get((role, number)) is child:
            await self.begin(role, number)

    async def _freeze(self, role: str, number: int, seconds: float) -> None:
        child = self.children[role, number]
        with suppress(ProcessLookupError):
            os.killpg(child.process.pid, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        with suppress(ProcessLookupError):
            os.killpg(child.process.pid, signal.SIGCONT)

    async def _restart_postgres(self, seconds: float) -> None:
        async with self._restarting:
            os.kill(self.postgres.pid, signal.SIGQUIT)
            while self.postgres.running:
                await asyncio.sleep(0.05)
            await asyncio.sleep(seconds)
            await asyncio.to_thread(self.postgres.start)

    async def _end_backends(self, quarter: int) -> None:
        with suppress(asyncpg.PostgresError, RuntimeFault, OSError):
            connection = await self.connection()
            try:
                await connection.fetch(QUERIES["end_backends"], quarter)
            finally:
                await connection.close()

    async def _kill_flag(self, flag: str, seconds: float, *, is_mistake: bool) -> None:
        """Lifted in its grace period, with nothing undone, or once its undoing has begun. One after another: a lift whose
        answer was lost is asked for again, and would meet the next kill."""
        grace_seconds = GRACE_SECONDS if is_mistake else 0.0
        async with self._killing[flag]:
            await self._insist("POST", f"/flags/{flag}/kill", {"reason": "chaos", "grace_seconds": grace_seconds})
            await asyncio.sleep(seconds)
            if not is_mistake:
                await self._past_grace(flag)
            await self._lift(flag)

    async def _past_grace(self, flag: str) -> None:
        for _ in range(GRACE_TRIES_MAX):
            with suppress(asyncpg.PostgresError, asyncpg.InternalClientError, RuntimeFault, OSError):
                if await self._value(QUERIES["past_grace"], flag):
                    return
            await asyncio.sleep(LOOK_SECONDS)
        raise TimeoutError(f"the kill of {flag} is not undone")

    async def _value(self, query: str, *arguments: Any) -> Any:
        connection = await self.connection()
        try:
            return await connection.fetchval(query, *arguments)
        finally:
            await connection.close()

    async def _lift(self, flag: str) -> None:
        await self._insist("POST", f"/flags/{flag}/lift", {"reason": "chaos", "force": True})

    async def _flag(self, flag: str) -> None:
        definition = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on"}
        await self._insist("PUT", f"/flags/{flag}", {"flag": {"key": flag, "definition": definition}, "reason": "chaos"})

    async def _insist(self, method: str, path: str, body: object) -> None:
        """Ask until it is answered; a refusal that will not change is an answer."""
        for _ in range(TRIES_MAX):
            try:
                await self.api.send(method, self.api.within(path), body, timeout_seconds=ASK_SECONDS)
            except (Unreachable, ApiError) as error:
                if isinstance(error, ApiError) and not error.passing:
                    return
                await asyncio.sleep(LOOK_SECONDS)
            else:
                return
        raise TimeoutError(f"{method} {path} was not answered")

    async def _lay_down(self) -> str:
        """The schema, what watches it, the environment, and a token that may do everything."""
        await migrate(self.postgres.url, ROOMS)
        connection = await self.connection()
        try:
            async with connection.transaction():
                await watch(connection)
                await store.create_environment(connection, ENVIRONMENT)
                text, _ = await tokens.create(connection, "chaos", None, ["admin"], "chaos")
                return text
        finally:
            await connection.close()

    def _arguments(self, role: str, name: str) -> list[str]:
        if role == "server":
            return [*CLI, "serve", "--http-port", "0"]
        if role == "caller":
            return [sys.executable, "-m", "load.chaos.runner", name, str(self.seed)]
        lease = ["--lease-seconds", str(WORKER_LEASE_SECONDS), "--concurrency", "8"]
        return [*CLI, "work", *(f"load.chaos.shop:{saga}" for saga in SAGAS), *lease]

    def _variables(self, role: str, name: str) -> dict[str, str]:
        common = {
            "PYTHONPATH": str(ROOT),
            "RESCIND_STATE_DIR": str(self.folder / "state" / name),
            "RESCIND_LOG_LEVEL": "warning",
        }
        if role == "server":
            return {**common, "RESCIND_DATABASE_URL": self.postgres.url, "RESCIND_REDIS_URL": self.valkey.url}
        site = {"RESCIND_URL": self.gate_url, "RESCIND_TOKEN": self.token, "RESCIND_ENVIRONMENT": ENVIRONMENT}
        return {**common, **site, "CHAOS_PROVIDER": self._provider_url}


async def _ready(child: Child) -> str:
    """The URL of a server, once it says that it is ready. Raises `StartError`."""
    while READY not in (line := await child.line(timeout_seconds=START_SECONDS)):
        pass
    return line.partition(READY)[2].strip()


@asynccontextmanager
async def _served(app: App) -> Any:
    """Its address, while it is served in this loop."""
    config = uvicorn.Config(app, port=0, lifespan="off", log_level="critical", ws="none", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving

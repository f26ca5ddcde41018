"""Coordinators that are measured beside ours: the same three no-op steps with compensations, workers in a process of their own.

DBOS from the package index, on an embedded PostgreSQL with fsync on. Restate's SDK from there too, and its server's binary from
npm (`RESTATE_SERVER` names one that is there already), with its own settings.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import httpx
from msgspec import Struct

from load.system import descendants, percentile
from runtime.embedded import EmbeddedPostgres, free_port
from runtime.postgres import connect

HERE = Path(__file__).parent
TOOLS = HERE.parent.parent / ".tools" / "restate"
RESTATE = "@restatedev/restate-server-linux-x64@1.7.12"
POLL_SECONDS = 0.01
READY_SECONDS = 60.0
WARMING_SECONDS = 2.0
ALONE = 50
Saga = Callable[[str, bool], Awaitable[str]]
"""Begin one by this name, which fails in its last step or not, and return how it ended."""


class Peer(Struct, frozen=True, kw_only=True):
    """What one of them did. Transactions where it keeps its state in PostgreSQL."""

    name: str
    happy: float
    undone: float
    alone_ms: float
    transactions: float | None
    wal_bytes: float | None
    memory_mb: float


async def measure(name: str, saga: Saga, pids: Sequence[int], flight: int, seconds: float, database_url: str | None) -> Peer:
    """Happy ones, ones that are undone, one at a time. `pids`: whose memory counts."""
    await flow(saga, "warm", flight, WARMING_SECONDS, fails=False)
    before = await spent(database_url)
    happy, count = await flow(saga, "happy", flight, seconds, fails=False)
    await asyncio.sleep(1.2)
    after = await spent(database_url)
    undone, _ = await flow(saga, "undone", flight, seconds, fails=True)
    alone = []
    for number in range(ALONE):
        begun = time.perf_counter()
        await saga(f"alone-{number}", False)
        alone.append((time.perf_counter() - begun) * 1000)
    used = [(late - early) / count for early, late in zip(before, after, strict=True)] or [None, None]
    return Peer(
        name=name, happy=happy, undone=undone, alone_ms=percentile(alone, 0.5), transactions=used[0], wal_bytes=used[1],
        memory_mb=memory_mb([one for pid in pids for one in (pid, *descendants(pid))]),
    )  # fmt: skip


async def flow(saga: Saga, name: str, flight: int, seconds: float, *, fails: bool) -> tuple[float, int]:
    """So many in flight for so long: how many a second, and how many."""
    begun, count = time.perf_counter(), 0

    async def caller(which: int) -> None:
        nonlocal count
        number = 0
        while time.perf_counter() < begun + seconds:
            ended = await saga(f"{name}-{which}-{number}", fails)
            assert ended == ("undone" if fails else "done"), ended
            number, count = number + 1, count + 1

    await asyncio.gather(*(caller(which) for which in range(flight)))
    return count / (time.perf_counter() - begun), count


async def spent(database_url: str | None) -> list[float]:
    """Transactions and bytes of WAL so far; empty without a database."""
    if database_url is None:
        return []
    pg = await connect(database_url, application_name="load")
    try:
        row = await pg.fetchrow(
            "SELECT xact_commit::float8, (pg_current_wal_insert_lsn() - '0/0')::float8 FROM pg_stat_database"
            " WHERE datname = current_database()"
        )
        return list(row)
    finally:
        await pg.close()


def memory_mb(pids: Sequence[int]) -> float:
    """Proportional share of memory of these processes."""
    total = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return total / 1024


@contextlib.contextmanager
def running(*command: str, variables: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A process that is killed at the end. What it says goes to its standard output."""
    environment = {**os.environ, **(variables or {})}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


async def dbos(flight: int, seconds: float) -> Peer:
    """DBOS: enqueued by this process, acted by another."""
    from dbos import DBOSClient  # of the group `peers`

    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder) / "postgres") as postgres:
        with running(sys.executable, str(HERE / "dbos_worker.py"), postgres.url) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n", "DBOS did not start"
            client = DBOSClient(system_database_url=postgres.url)

            async def saga(name: str, fails: bool) -> str:
                options = {"queue_name": "load", "workflow_name": "saga"}
                handle = await client.enqueue_async(options, name, 1299, fails)
                return str(await handle.get_result(polling_interval_sec=POLL_SECONDS))

            return await measure("DBOS", saga, [worker.pid], flight, seconds, postgres.url)


def restate_server() -> Path:
    """The server's binary, fetched once. Raises `OSError` and `CalledProcessError` where it cannot be had."""
    if given := os.environ.get("RESTATE_SERVER"):
        return Path(given)
    binary = TOOLS / "package" / "bin" / "restate-server"
    if not binary.exists():
        TOOLS.mkdir(parents=True, exist_ok=True)
        packed = subprocess.run(["npm", "pack", "--silent", RESTATE], cwd=TOOLS, check=True, capture_output=True, text=True)
        subprocess.run(["tar", "-xzf", packed.stdout.split()[-1]], cwd=TOOLS, check=True)
    return binary


async def restate(flight: int, seconds: float) -> Peer:
    """Restate: its server, a service of its own process, asked through its ingress."""
    service, ingress, admin, node = (free_port() for _ in range(4))
    variables = {
        "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
        "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
        "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
        "RESTATE_DISABLE_TELEMETRY": "true",
        "RESTATE_LOG_FILTER": "error",
    }
    hypercorn = (sys.executable, "-m", "hypercorn", "load.peers.restate_service:app", "--bind", f"127.0.0.1:{service}")
    with tempfile.TemporaryDirectory() as folder, running(*hypercorn) as worker:
        with running(str(restate_server()), "--base-dir", folder, variables=variables) as server:
            async with client_of(ingress, flight) as http:
                await registered(f"http://127.0.0.1:{admin}/deployments", f"http://127.0.0.1:{service}")

                async def saga(name: str, fails: bool) -> str:
                    answer = await http.post("/order/run", json={"order": name, "fails": fails})
                    return str(answer.raise_for_status().json())

                return await measure("Restate", saga, [server.pid, worker.pid], flight, seconds, None)


@contextlib.asynccontextmanager
async def client_of(port: int, flight: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client with so many connections."""
    limits = httpx.Limits(max_connections=flight, max_keepalive_connections=flight)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, limits=limits) as http:
        yield http


async def registered(admin: str, service: str) -> None:
    """Tell the server of the service, once both are there."""
    deadline = time.monotonic() + READY_SECONDS
    async with httpx.AsyncClient(timeout=10) as http:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if (await http.post(admin, json={"uri": service})).is_success:
                    return
            assert time.monotonic() < deadline, "Restate did not start"
            await asyncio.sleep(0.1)

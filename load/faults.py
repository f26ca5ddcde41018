"""How fast an instance evaluates while things are broken, whether evaluations hinder each other, and how a fleet comes back.

    ./run python load/faults.py [--repeats 15] [--instances 1000]

Each fault is a peer in a process of its own that does it; the instance starts with a snapshot and meets it for as long as it
is measured. `client.boolean` is called as services do: a context of its own for each request, or one again and again. Times are
CPU of the thread that evaluates, and the least on the wall: on a machine that others use as well the median there says little.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import rescind
import uvloop
from rich.console import Console
from rich.progress import track
from rich.table import Table

from load.system import ENVIRONMENT, FLAG, Site, percentile, system

CALLS = 50_000
THREADS = 8
THREAD_SECONDS = 1.0
AWAY_SECONDS = 2.0
CEILING_SECONDS = 120.0
STARTING_MAX = 50
FILES = 16_384
REFUSAL = b"HTTP/1.1 %d Whatever\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
GARBAGE = b"event: change\ndata: {\xff\xfe" + b"\x00" * 1000 + b"\n\n"
PEERS = ("silent", "401", "403", "429", "500", "garbage", "cut")


class Peer:
    """A server that does one thing wrong, to everyone. In a process of its own."""

    def __init__(self, fault: str) -> None:
        self._fault = fault

    async def run(self) -> None:
        """Print the port, go on until the input ends."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if self._fault.isdecimal():
            writer.write(REFUSAL % int(self._fault))
        elif self._fault == "garbage":
            writer.write(STREAM + GARBAGE * 10)
        elif self._fault == "cut":
            writer.write(STREAM[:20])
        else:
            await reader.read()
        await writer.drain()
        writer.close()


class Relay:
    """Connections to the server, all cut at a line of input, and refused for a while after."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: set[asyncio.StreamWriter] = set()

    async def run(self) -> None:
        """Print the port; cut at each line of input until it ends."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        print(port, flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            await asyncio.sleep(AWAY_SECONDS)
            server = await asyncio.start_server(self._serve, "127.0.0.1", port, backlog=4096)
            print("back", flush=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers |= {writer, theirs[1]}
        try:
            await asyncio.gather(copy(reader, theirs[1]), copy(theirs[0], writer), return_exceptions=True)
        finally:
            self._writers -= {writer, theirs[1]}


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until the end."""
    while part := await reader.read(65_536):
        writer.write(part)
        await writer.drain()
    writer.close()


@contextmanager
def process(*arguments: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """This file in another role; the port that it prints."""
    command = [sys.executable, __file__, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        try:
            yield int(other.stdout.readline()), other
        finally:
            other.kill()


class Taken(NamedTuple):
    """One call, in nanoseconds: CPU of the calling thread (median), and the least time on the wall."""

    own_cpu: float
    own_wall: float
    same_cpu: float
    same_wall: float


def nanoseconds(client: rescind.Client, repeats: int) -> Taken:
    """With a context for each call, and with one for all."""
    names = {"boolean": client.boolean, "key": FLAG, "context": {"targetingKey": "u"}}
    found = []
    for statement in ("boolean(key, False, {'targetingKey': 'u'})", "boolean(key, False, context)"):
        cpu = timeit.repeat(statement, globals=names, number=CALLS, repeat=repeats, timer=time.thread_time)
        wall = timeit.repeat(statement, globals=names, number=CALLS, repeat=repeats)
        found += [statistics.median(cpu) / CALLS * 1e9, min(wall) / CALLS * 1e9]
    return Taken(*found)


def measured(repeats: int, **options: Any) -> Taken:
    """Of a client with these options, running."""
    with tempfile.TemporaryDirectory() as folder:
        client = rescind.Client(**{"token": "t", "environment": ENVIRONMENT, "state_dir": folder, **options})
        client.wait_ready(1.0)
        assert client.boolean(FLAG, False) is True
        taken = nanoseconds(client, repeats)
        client.close(0.5)
        return taken


def hang(*arguments: Any, **more: Any) -> Any:
    """A name server that never answers."""
    threading.Event().wait()


def faults(site: Site, snapshot: dict[str, Any], repeats: int) -> Iterator[tuple[str, Taken]]:
    """Every fault's name and times, the healthy one first."""
    healthy = {"url": site.url, "token": site.token}
    yield "none", measured(repeats, **healthy)
    yield "disk that cannot be written", measured(repeats, **healthy, state_dir=Path("/proc/rescind"))
    brought: dict[str, Any] = {"bootstrap": snapshot}
    yield "server away", measured(repeats, **brought, url="http://127.0.0.1:9")
    for fault in PEERS:
        with process("--peer", fault) as (port, _):
            yield f"server: {fault}", measured(repeats, **brought, url=f"http://127.0.0.1:{port}")
    looked_up, socket.getaddrinfo = socket.getaddrinfo, hang
    yield "name server that hangs", measured(repeats, **brought, url="http://flags.invalid")
    socket.getaddrinfo = looked_up
    yield "none, again", measured(repeats, **healthy)


def evaluations_per_second(call: Callable[[], object], threads: int) -> float:
    """Of all threads together, in a second of CPU: threads that waited for each other would spend it on that."""
    counts = [0] * threads
    begin, end = threading.Event(), [0.0]

    def work(number: int) -> None:
        begin.wait()
        while time.monotonic() < end[0]:
            for _ in range(1000):
                call()
            counts[number] += 1000

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    end[0] = time.monotonic() + THREAD_SECONDS
    spent = time.process_time()
    begin.set()
    for worker in workers:
        worker.join()
    return sum(counts) / (time.process_time() - spent)


def in_threads(site: Site, repeats: int) -> tuple[float, float]:
    """Evaluations in a second of CPU, in one thread and in eight together: medians."""
    one, many = [], []
    with tempfile.TemporaryDirectory() as folder:
        with rescind.Client(url=site.url, token=site.token, environment=ENVIRONMENT, state_dir=folder) as client:

            def call() -> bool:
                return client.boolean(FLAG, False, {"targetingKey": "u"})

            for _ in range(repeats):
                one.append(evaluations_per_second(call, 1))
                many.append(evaluations_per_second(call, THREADS))
    return statistics.median(one), statistics.median(many)


async def storm(site: Site, count: int) -> tuple[list[float], float]:
    """Seconds until each of `count` instances that lost the server has a stream again, and the server's CPU for each, in µs."""
    starting = asyncio.Semaphore(STARTING_MAX)
    with process("--relay", str(urlsplit(site.url).port)) as (port, relay), tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:

            async def start() -> rescind.AsyncClient:
                async with starting:
                    url = f"http://127.0.0.1:{port}"
                    client = rescind.AsyncClient(url=url, token=site.token, environment=ENVIRONMENT, state_dir=folder)
                    stack.push_async_callback(client.close, 0.5)
                    assert await client.wait_ready(CEILING_SECONDS)
                    return client

            clients = await asyncio.gather(*(start() for _ in range(count)))
            assert relay.stdin is not None
            assert relay.stdout is not None
            spent = site.server_seconds()
            relay.stdin.write("cut\n")
            relay.stdin.flush()
            await asyncio.to_thread(relay.stdout.readline)
            back_at, seconds = time.monotonic(), {}
            while len(seconds) < count and time.monotonic() < back_at + CEILING_SECONDS:
                now = time.monotonic() - back_at
                seconds |= {n: now for n, client in enumerate(clients) if n not in seconds and client.status().connected}
                await asyncio.sleep(0.02)
            return sorted(seconds.values()), (site.server_seconds() - spent) * 1e6 / count


def main() -> int:
    """Parse the arguments, run, print. With `--peer` or `--relay` this is one of the other processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--instances", type=int, default=1000)
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--relay", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES if hard == resource.RLIM_INFINITY else min(FILES, hard), hard))
    if arguments.peer:
        asyncio.run(Peer(arguments.peer).run())
        return 0
    if arguments.relay:
        uvloop.run(Relay(arguments.relay).run())
        return 0
    console = Console()
    with system() as site:
        snapshot = msgspec.json.decode(site.api.send("GET", site.api.within("/snapshot")).content)
        columns = ("a context for each, CPU ns", "wall, least", "one for all, CPU ns", "wall, least")
        table = Table("fault", *columns, title="one evaluation while it lasts")
        total = len(PEERS) + 5
        for name, taken in track(faults(site, snapshot, arguments.repeats), "faults", total, console=console):
            table.add_row(name, *(f"{value:.0f}" for value in taken))
        console.print(table)
        one, many = in_threads(site, 5)
        console.print(f"evaluations per s of CPU: {one:,.0f} in 1 thread, {many:,.0f} in {THREADS}: {many / one:.2f} of it")
        seconds, cpu = uvloop.run(storm(site, arguments.instances))
        console.print(
            f"{len(seconds):,} of {arguments.instances:,} instances have a stream again after {AWAY_SECONDS:.0f} s without: "
            f"half in {statistics.median(seconds):.1f} s, 99 % in {percentile(seconds, 0.99):.1f} s, "
            f"all in {seconds[-1]:.1f} s; {cpu:.0f} µs of the server each"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""From a kill's request to the new value in 1,000 instances: first and last, over many kills.

    ./run python load/propagation.py [--instances 1000] [--kills 30] [--readers sdk|sockets]

The server is a `rescind dev`; two processes hold half of the instances each, every one an `AsyncClient` with a stream of its
own. An instance has the kill when its evaluator gives the off variant. With `--readers sockets` they are bare sockets instead,
each of which has the kill when it has the bytes. All clocks are this machine's monotonic one. The marks are those of
performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import rescind
import uvloop
from msgspec import Struct
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from load.sockets import Sockets
from load.system import ENVIRONMENT, FLAG, Site, cpu_seconds, percentile, system

MARKS = {"first": 10.0, "last": 250.0}
PROCESSES = 2
STARTING_MAX = 50
FLIP_SECONDS = 30.0
REST_SECONDS = 0.5
STOP_SECONDS = 20.0
FILES = 16_384
LINE_BYTES_MAX = 1024 * 1024


class Kill(Struct, frozen=True, kw_only=True):
    """Milliseconds after the kill's request was begun."""

    answered_ms: float
    reached_ms: list[float]
    """In every instance, ascending."""
    instance_cpu: float
    """Microseconds of CPU that an instance spent on this kill, its acknowledgement, and the lift."""
    server_cpu: float
    """And the server, for each instance."""


class Instances:
    """The instances of one process, in that process."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._seen: list[float] = []
        self._all = asyncio.Event()

    async def run(self, url: str, token: str) -> None:
        """Start them, then print the times of every flip, until the input ends."""
        starting = asyncio.Semaphore(STARTING_MAX)
        with tempfile.TemporaryDirectory() as folder:
            async with AsyncExitStack() as stack:

                async def start() -> None:
                    async with starting:
                        client = rescind.AsyncClient(
                            url=url, token=token, environment=ENVIRONMENT, service="load", state_dir=Path(folder)
                        )
                        stack.push_async_callback(client.close, 0.5)
                        assert await client.wait_ready(FLIP_SECONDS)
                        client.on_change(FLAG, lambda change: self._note())

                await asyncio.gather(*(start() for _ in range(self._count)))
                print("ready", flush=True)
                await self._report()

    def _note(self) -> None:
        self._seen.append(time.monotonic())
        if len(self._seen) == self._count:
            self._all.set()

    async def _report(self) -> None:
        """One line of times for every line of input: all have seen the change that was asked for."""
        while await asyncio.to_thread(sys.stdin.readline):
            async with asyncio.timeout(FLIP_SECONDS):
                await self._all.wait()
            seen, self._seen = self._seen, []
            self._all.clear()
            print(msgspec.json.encode(seen).decode(), flush=True)


async def stopped(process: Process) -> None:
    """Once it has ended, by itself or not."""
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()


async def flipped(processes: list[Process]) -> list[float]:
    """When each instance saw the last change."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"next\n")
    lines = await asyncio.gather(*(process.stdout.readline() for process in processes if process.stdout is not None))
    return sorted(at for line in lines for at in msgspec.json.decode(line, type=list[float]))


async def kill_once(site: Site, processes: list[Process]) -> Kill:
    """Kill, wait for all, lift, wait for all."""
    path = site.api.within(f"/flags/{FLAG}")
    pids = [process.pid for process in processes]
    instances_before, server_before = cpu_seconds(pids), site.server_seconds()
    begun = time.monotonic()
    answer = await asyncio.to_thread(site.api.request, "POST", f"{path}/kill", json={"reason": "load"})
    answered = time.monotonic()
    reached = await flipped(processes)
    await asyncio.sleep(REST_SECONDS)
    lift = {"reason": "load", "kill_count": answer["kill_count"], "force": True}
    await asyncio.to_thread(site.api.request, "POST", f"{path}/lift", json=lift)
    await flipped(processes)
    await asyncio.sleep(REST_SECONDS)
    return Kill(
        answered_ms=(answered - begun) * 1000,
        reached_ms=[(at - begun) * 1000 for at in reached],
        instance_cpu=(cpu_seconds(pids) - instances_before) * 1e6 / len(reached),
        server_cpu=(site.server_seconds() - server_before) * 1e6 / len(reached),
    )


async def measure(site: Site, arguments: argparse.Namespace, console: Console) -> list[Kill]:
    """All kills, with every instance on its stream."""
    share = arguments.instances // PROCESSES
    command = [
        sys.executable,
        __file__,
        "--instances",
        str(share),
        "--readers",
        arguments.readers,
        "--join",
        site.url,
        site.token,
    ]
    processes = [
        await asyncio.create_subprocess_exec(*command, str(number), stdin=PIPE, stdout=PIPE, limit=LINE_BYTES_MAX)
        for number in range(PROCESSES)
    ]
    kills = []
    try:
        with Progress(console=console, transient=True) as progress:
            starting = progress.add_task("instances", total=PROCESSES)
            for process in processes:
                assert process.stdout is not None
                if await process.stdout.readline() != b"ready\n":
                    raise SystemExit("the instances did not start")
                progress.advance(starting)
            killing = progress.add_task("kills", total=arguments.kills)
            for _ in range(arguments.kills):
                kills.append(await kill_once(site, processes))
                progress.advance(killing)
    finally:
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
        await asyncio.gather(*(stopped(process) for process in processes))
    return kills


def rows(kills: list[Kill]) -> Iterator[tuple[str, str, str, str]]:
    """What is measured, what came out here, and the mark."""
    for name, values, mark in (
        ("kill request answered, ms", [kill.answered_ms for kill in kills], ""),
        ("in the first instance, ms", [kill.reached_ms[0] for kill in kills], f"under {MARKS['first']:.0f}"),
        ("in half of them, ms", [statistics.median(kill.reached_ms) for kill in kills], ""),
        ("in the last one, ms", [kill.reached_ms[-1] for kill in kills], f"p99 under {MARKS['last']:.0f}"),
        ("CPU of one instance, kill and lift, µs", [kill.instance_cpu for kill in kills], ""),
        ("CPU of the server for each, µs", [kill.server_cpu for kill in kills], ""),
    ):
        yield name, f"{statistics.median(values):.1f}", f"{percentile(values, 0.99):.1f}", mark


def main() -> int:
    """Parse the arguments, run, print. With `--join` this is a process of instances."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--readers", choices=("sdk", "sockets"), default="sdk")
    parser.add_argument("--join", nargs=3, metavar=("URL", "TOKEN", "NAME"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES if hard == resource.RLIM_INFINITY else min(FILES, hard), hard))
    if arguments.join:
        url, token, name = arguments.join
        if arguments.readers == "sockets":
            Sockets(arguments.instances).run(url, token, name)
        else:
            uvloop.run(Instances(arguments.instances).run(url, token))
        return 0
    console = Console()
    with system() as site:
        kills = uvloop.run(measure(site, arguments, console))
    kind = "instances" if arguments.readers == "sdk" else "bare sockets"
    title = f"kill to {arguments.instances:,} {kind} in {PROCESSES} processes, {len(kills)} kills"
    table = Table("what", "median", "p99", "mark", title=title)
    for row in rows(kills):
        table.add_row(*row)
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())

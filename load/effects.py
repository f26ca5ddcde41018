"""Effects through the SDK over HTTP: 64 callers on one hot flag, each admitted durably, done, and reported.

    ./run python load/effects.py [--seconds 8] [--callers 64] [--repeats 3]

The server is a `rescind dev` in a process of its own; this process holds one `AsyncClient`, its callers each doing `async with
client.effect(...)` with a body that does nothing. Prints effects per second, how long one took, and the CPU that one cost in
each process. The marks are those of performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import rescind
import uvloop
from msgspec import Struct
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from load.system import ENVIRONMENT, FLAG, Site, percentile, system

MARKS = {"effects": 5_000, "p50": 10.0}
WARMING_SECONDS = 2.0


class Run(Struct, frozen=True, kw_only=True):
    """What one repeat showed. CPU is in microseconds an effect."""

    seconds: float
    taken_ms: list[float]
    client_cpu: float
    server_cpu: float
    database_cpu: float
    per_request: float
    """Effects in one request, admissions and reports together."""


class Load:
    """Callers on one client."""

    def __init__(self, site: Site, client: rescind.AsyncClient, callers: int) -> None:
        self._site = site
        self._client = client
        self._callers = callers
        self._numbers = itertools.count()

    async def repeat(self, seconds: float) -> Run:
        """All callers at work for so long."""
        taken_ms: list[float] = []
        calls = self._client.core.api.call_count
        client, server, database = time.process_time(), self._site.server_seconds(), self._site.database_seconds()
        begun = time.perf_counter()
        await asyncio.gather(*(self._call(begun + seconds, taken_ms) for _ in range(self._callers)))
        lasted, count = time.perf_counter() - begun, len(taken_ms)
        return Run(
            seconds=lasted,
            taken_ms=taken_ms,
            client_cpu=(time.process_time() - client) * 1e6 / count,
            server_cpu=(self._site.server_seconds() - server) * 1e6 / count,
            database_cpu=(self._site.database_seconds() - database) * 1e6 / count,
            per_request=2 * count / max(1, self._client.core.api.call_count - calls),
        )

    async def _call(self, until: float, taken_ms: list[float]) -> None:
        while (begun := time.perf_counter()) < until:
            number = next(self._numbers)
            payload = {"amount_cents": 1299, "currency": "USD", "customer": f"c-{number % 1000}"}
            subject = f"c-{number % 1000}"
            async with self._client.effect(
                "payment.capture", flag=FLAG, key=f"capture:{number}", subject=subject, payload=payload
            ) as effect:
                effect.result = {"id": f"pi_{number}"}
            taken_ms.append((time.perf_counter() - begun) * 1000)


async def measure(site: Site, arguments: argparse.Namespace, console: Console) -> list[Run]:
    """All repeats on one client."""
    runs = []
    with tempfile.TemporaryDirectory() as folder, Progress(console=console, transient=True) as progress:
        repeats = progress.add_task("repeats", total=arguments.repeats)
        async with rescind.AsyncClient(
            url=site.url, token=site.token, environment=ENVIRONMENT, service="load", state_dir=Path(folder)
        ) as client:
            load = Load(site, client, arguments.callers)
            await load.repeat(WARMING_SECONDS)
            for _ in range(arguments.repeats):
                runs.append(await load.repeat(arguments.seconds))
                progress.advance(repeats)
    return runs


def rows(runs: list[Run]) -> Iterator[tuple[str, str, str]]:
    """What is measured, what came out here, and the mark."""
    rates = [len(run.taken_ms) / run.seconds for run in runs]
    yield "effects/s, median repeat", f"{statistics.median(rates):,.0f}", f"at least {MARKS['effects']:,}"
    yield "effects/s, worst and best repeat", f"{min(rates):,.0f}, {max(rates):,.0f}", ""
    taken = [value for run in runs for value in run.taken_ms]
    yield "one effect in ms, p50", f"{percentile(taken, 0.5):.1f}", f"under {MARKS['p50']:.0f}"
    yield "one effect in ms, p99", f"{percentile(taken, 0.99):.1f}", ""
    for name, spent in (
        ("this process", [run.client_cpu for run in runs]),
        ("the server", [run.server_cpu for run in runs]),
        ("PostgreSQL and Valkey", [run.database_cpu for run in runs]),
    ):
        yield f"CPU of {name}, µs an effect", f"{statistics.median(spent):.0f}", ""
    yield "effects a request", f"{statistics.median(run.per_request for run in runs):.0f}", ""


def main() -> int:
    """Parse the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], default="uvloop", help="the caller's event loop")
    arguments = parser.parse_args()
    console = Console()
    with system() as site:
        runs = (uvloop.run if arguments.loop == "uvloop" else asyncio.run)(measure(site, arguments, console))
    table = Table("what", "here", "mark", title=f"effects through the SDK, {arguments.callers} callers, one flag, fsync on")
    for row in rows(runs):
        table.add_row(*row)
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Admission under the fence: 64 callers on one hot flag inside the server, durable, and then with kills in the middle.

    ./run python -m load.admission [--seconds 8] [--kills 200] [--callers 64]

Prints effects per second and how long one took, the time from a kill to fenced and to drained meanwhile, and the effects that
came in after a set was closed, which must be none. The marks are those of performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import uvloop
from rescind.wire import AdmitRequest
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from runtime.clock import Clock, Entropy
from runtime.embedded import EmbeddedPostgres
from runtime.migrations import migrate
from runtime.postgres import Postgres
from runtime.queries import Queries, parse
from runtime.tokens import Principal
from sagas import fences
from sagas.ledger import Ledger
from server.migrations import ROOMS

ENVIRONMENT, FLAG = "load", "checkout.new-flow"
ANYONE = Principal(id="load", name="load", environment=None, scopes=frozenset({"admin"}))
MARKS = {"effects": 20_000, "p50": 10.0, "fenced": 25.0}
QUERIES = parse((Path(__file__).parent / "sql" / "admission.sql").read_text(), "load/sql/admission.sql")
KILLS = Queries.load("server.rollbacks", "kills")


class Load:
    """Callers on a ledger, and one who kills."""

    def __init__(self, pg: Postgres, ledger: Ledger, callers: int) -> None:
        self.pg = pg
        self.ledger = ledger
        self.callers = callers
        self.numbers = itertools.count()
        self.taken_ms: list[float] = []
        self.killed_count = 0
        self.open = asyncio.Event()

    async def set_up(self) -> None:
        """An environment, and its flag with a fence."""
        async with self.pg.transaction() as connection:
            await connection.execute(QUERIES["environment"], ENVIRONMENT)
            await connection.execute(QUERIES["flag"], ENVIRONMENT, FLAG)
            await fences.ensure(connection, ENVIRONMENT, [(FLAG, "off")])

    async def call(self) -> None:
        """One caller: ask, and when killed rest until the flag is open again."""
        while True:
            number = next(self.numbers)
            request = AdmitRequest(effects=[_item(number)], instance="load")
            begun = time.perf_counter()
            [result] = (await self.ledger.admit(ENVIRONMENT, request, ANYONE)).results
            if result.outcome == "admitted":
                self.taken_ms.append((time.perf_counter() - begun) * 1000)
            else:
                assert result.outcome == "killed", result
                self.killed_count += 1
                self.open.clear()
                await self.open.wait()

    @contextlib.asynccontextmanager
    async def calling(self) -> Any:
        """With every caller at work."""
        tasks = [asyncio.create_task(self.call()) for _ in range(self.callers)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(outcome, Exception):
                    raise outcome

    async def kill(self) -> tuple[float, float, int]:
        """Milliseconds to fenced, milliseconds to drained, and how many effects came in after that."""
        async with self.pg.connection() as connection:
            since: UUID = await connection.fetchval(QUERIES["id_now"])
            begun = time.perf_counter()
            nothing, unseen = [None] * 7, [None] * 3
            await connection.fetchrow(
                KILLS.kill, ENVIRONMENT, [FLAG], "load", "load", None, "auto", 0.0, {}, *nothing, False, *unseen
            )
            fenced_ms = (time.perf_counter() - begun) * 1000
            await connection.execute(QUERIES["barrier"], ENVIRONMENT, FLAG)
            drained_ms = (time.perf_counter() - begun) * 1000
            closed = await connection.fetchval(QUERIES["admitted"], ENVIRONMENT, FLAG, since)
            await asyncio.sleep(0.03)
            later = await connection.fetchval(QUERIES["admitted"], ENVIRONMENT, FLAG, since)
            await connection.fetchrow(KILLS.lift, ENVIRONMENT, FLAG, "load", "load", None, True)
        self.open.set()
        return fenced_ms, drained_ms, later - closed


def _item(number: int) -> dict[str, Any]:
    return {
        "key": f"capture:{number}",
        "kind": "payment.capture",
        "flag": FLAG,
        "variant": "on",
        "payload": {"amount_cents": 1299, "currency": "USD", "customer": f"c-{number % 1000}"},
        "subject": f"c-{number % 1000}",
    }


def _percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


async def measure(url: str, arguments: argparse.Namespace) -> int:
    """Run both parts and print them. The exit code is 1 if anything escaped."""
    console = Console()
    await migrate(url, ROOMS)
    pg = await Postgres.open(url, application_name="load")
    ledger = Ledger(pg, Clock(), Entropy())
    await ledger.start()
    load = Load(pg, ledger, arguments.callers)
    await load.set_up()
    rates: list[float] = []
    kills: list[tuple[float, float, int]] = []
    with Progress(console=console, transient=True) as progress:
        steady = progress.add_task("steady", total=arguments.seconds)
        killing = progress.add_task("with kills", total=arguments.kills)
        async with load.calling():
            for _ in range(arguments.seconds):
                before, begun = len(load.taken_ms), time.perf_counter()
                await asyncio.sleep(1)
                rates.append((len(load.taken_ms) - before) / (time.perf_counter() - begun))
                progress.advance(steady)
            taken = load.taken_ms[len(load.taken_ms) // 8 :]
            for _ in range(arguments.kills):
                await asyncio.sleep(0.05)
                kills.append(await load.kill())
                progress.advance(killing)
    async with pg.connection() as connection:
        scans = [dict(row) for row in await connection.fetch(QUERIES["scans"])]
    await ledger.stop()
    await pg.close()
    escapes = sum(kill[2] for kill in kills)
    _print(console, arguments, rates, taken, kills, escapes, scans)
    return 1 if escapes else 0


def _print(
    console: Console,
    arguments: argparse.Namespace,
    rates: list[float],
    taken: list[float],
    kills: list[tuple[float, float, int]],
    escapes: int,
    scans: list[dict[str, Any]],
) -> None:
    fenced, drained = [kill[0] for kill in kills], [kill[1] for kill in kills]
    table = Table("what", "here", "mark", title=f"admission, {arguments.callers} callers, one flag, fsync on")
    table.add_row("effects/s, median second", f"{statistics.median(rates):,.0f}", f"at least {MARKS['effects']:,}")
    table.add_row("effects/s, best second", f"{max(rates):,.0f}", "")
    table.add_row("admitted in ms, p50", f"{_percentile(taken, 0.5):.1f}", f"under {MARKS['p50']:.0f}")
    table.add_row("admitted in ms, p99", f"{_percentile(taken, 0.99):.1f}", "")
    if kills:
        table.add_row("kill to fenced in ms, p50", f"{_percentile(fenced, 0.5):.1f}", "")
        table.add_row("kill to fenced in ms, p99", f"{_percentile(fenced, 0.99):.1f}", f"under {MARKS['fenced']:.0f}")
        table.add_row(
            "kill to set closed in ms, p50 and p99", f"{_percentile(drained, 0.5):.1f}, {_percentile(drained, 0.99):.1f}", ""
        )
        table.add_row(f"escapes in {len(kills):,} kills", str(escapes), "0")
    console.print(table)
    for scan in scans:
        console.print(f"{scan['relname']}: {scan['seq_scan']:,} sequential scans, {scan['idx_scan']:,} by index")


def main() -> int:
    """Parse the arguments, and start a database of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--callers", type=int, default=64)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, EmbeddedPostgres(Path(directory) / "postgres") as server:
        return uvloop.run(measure(server.url, arguments))


if __name__ == "__main__":
    sys.exit(main())

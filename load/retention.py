"""History that goes: what a finished saga weighs, what stays of it, how fast it goes, and what admissions notice of that.

    ./run python -m load.retention [--sagas 30000] [--seconds 5]

On an embedded PostgreSQL with fsync, inside one process. The sagas have three steps and are a hundred days old. Prints bytes
a saga by table, sagas dropped a second and the WAL of one, whether what comes after them fits where they were, and the rate of
admissions under one flag, 64 callers, alone and beside a sweep, by turns. Issue 5.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from load.admission import ENVIRONMENT, FLAG, Load
from runtime.clock import Clock, Entropy
from runtime.embedded import EmbeddedPostgres
from runtime.migrations import migrate
from runtime.postgres import Postgres
from runtime.queries import parse
from sagas.leases import Leases
from sagas.ledger import Ledger
from sagas.retention.policy import Retention
from sagas.retention.sweeper import PAUSE_SECONDS, Sweeper
from server.migrations import ROOMS

QUERIES = parse((Path(__file__).parent / "sql" / "retention.sql").read_text(), "load/sql/retention.sql")
CALLERS = 64
TURNS = 3
BATCH = 5_000
REUSED = ("instances", "effects")


class History:
    """What is made, measured and swept."""

    def __init__(self, pg: Postgres, console: Console) -> None:
        self.pg = pg
        self.console = console
        self._made = 0
        clock = Clock()
        self.leases = Leases(pg, clock, "load")
        self.sweeper = Sweeper(pg, clock, self.leases, Retention(history_days=30), rest_seconds=0.0)

    async def make(self, count: int) -> None:
        """So many sagas that ended."""
        async with self.pg.connection() as connection:
            await connection.execute(QUERIES["history"])
            for _ in range(0, count, BATCH):
                await connection.execute(QUERIES["names"], self._made, self._made + min(BATCH, count) - 1)
                for name in ("instances", "effects"):
                    await connection.execute(QUERIES[name], ENVIRONMENT, FLAG)
                await connection.execute(QUERIES["keys"])
                await connection.execute(QUERIES["forget_names"])
                self._made += min(BATCH, count)
            await connection.execute("DROP TABLE history")
            await connection.execute(QUERIES["vacuum"])

    async def sizes(self) -> dict[str, int]:
        """Bytes by table."""
        async with self.pg.connection() as connection:
            return {row["name"]: row["bytes"] for row in await connection.fetch(QUERIES["sizes"])}

    async def wal(self) -> int:
        """Bytes of WAL so far."""
        async with self.pg.connection() as connection:
            return int(await connection.fetchval(QUERIES["wal"]))

    async def sweep(self, pause_seconds: float = 0.0) -> None:
        """Until nothing is left that is over."""
        more = True
        while more:
            await self.leases.keep()
            more = await self.sweeper.round()
            await asyncio.sleep(pause_seconds)

    async def vacuum(self) -> None:
        """What went leaves room."""
        async with self.pg.connection() as connection:
            await connection.execute(QUERIES["vacuum"])

    async def left(self) -> int:
        """Sagas that did not go."""
        async with self.pg.connection() as connection:
            return int(await connection.fetchval(QUERIES["left"]))


async def weigh(history: History, count: int) -> None:
    """Bytes a saga, before and after it goes, and how fast that is."""
    empty = await history.sizes()
    await history.make(count)
    full, wal, begun = await history.sizes(), await history.wal(), time.perf_counter()
    await history.sweep()
    lasted = time.perf_counter() - begun
    assert await history.left() == 0
    wal = await history.wal() - wal
    await history.vacuum()
    gone = await history.sizes()
    await history.make(count)
    again = await history.sizes()
    table = Table("bytes a saga of three steps", "while its history is kept", "once it is gone", title=f"{count:,} sagas")
    for name in sorted(full):
        kept, left = ((sizes[name] - empty[name]) / count for sizes in (full, gone))
        table.add_row(name, f"{kept:,.0f}", "room for others" if name in REUSED else f"{left:,.0f}")
    history.console.print(table)
    before, after = (sum(sizes[name] for name in REUSED) for sizes in (full, again))
    history.console.print(f"dropped: {count / lasted:,.0f} sagas/s, {wal / count:,.0f} bytes of WAL each")
    history.console.print(
        f"instances and effects, once as many came in the room of those that went: {after / before:.2f} of what they were"
    )


async def disturb(history: History, ledger: Ledger, seconds: int, count: int) -> None:
    """Admissions alone and beside a sweep that goes at a server's own pace, by turns."""
    load = Load(history.pg, ledger, CALLERS)
    rates: dict[str, list[float]] = {"alone": [], "beside a sweep": []}
    async with load.calling():
        for _ in range(TURNS):
            for name, into in rates.items():
                sweeping = asyncio.create_task(history.sweep(PAUSE_SECONDS)) if name != "alone" else None
                for _ in range(seconds):
                    before, begun = len(load.taken_ms), time.perf_counter()
                    await asyncio.sleep(1)
                    into.append((len(load.taken_ms) - before) / (time.perf_counter() - begun))
                if sweeping is not None:
                    sweeping.cancel()
                    await asyncio.gather(sweeping, return_exceptions=True)
    table = Table(
        "admissions", "effects/s, median second", "best second", title=f"{CALLERS} callers, one flag, {TURNS} turns each"
    )
    for name, values in rates.items():
        table.add_row(name, f"{statistics.median(values):,.0f}", f"{max(values):,.0f}")
    history.console.print(table)
    history.console.print(f"{count - await history.left():,} sagas went meanwhile")


async def measure(url: str, arguments: argparse.Namespace) -> None:
    """Make, weigh, drop, disturb."""
    await migrate(url, ROOMS)
    pg = await Postgres.open(url, application_name="load")
    ledger = Ledger(pg, Clock(), Entropy())
    await ledger.start()
    history = History(pg, Console())
    await Load(pg, ledger, CALLERS).set_up()
    await weigh(history, arguments.sagas)
    await disturb(history, ledger, arguments.seconds, arguments.sagas)
    await ledger.stop()
    await pg.close()


def main() -> None:
    """Parse the arguments, and start a database of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sagas", type=int, default=30_000)
    parser.add_argument("--seconds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, EmbeddedPostgres(Path(directory) / "postgres") as server:
        uvloop.run(measure(server.url, arguments))


if __name__ == "__main__":
    main()

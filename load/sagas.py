"""Sagas of three steps over HTTP: started, acted by a worker in this process, awaited to their end, 64 in flight, fsync on.

    ./run python load/sagas.py [--seconds 8] [--flight 64] [--repeats 3]
    ./run --group peers python load/sagas.py --peers        # beside DBOS and Restate, in one run
    ./run python load/sagas.py --open 10000,1000000         # the rate beside so many that wait for a timer; minutes
    ./run python load/sagas.py --search                     # with the three indexes of searching and without them, by turns

The server is a `rescind dev` in a process of its own. The worker here speaks the plain messages of sdk/rescind/wire.py: steps
do nothing, reports and starts that come together go together, and each brings the next steps in its answer. Prints sagas per
second, transactions and WAL of one, CPU by process, how long one alone takes, and the same of sagas whose
last step fails, so that two steps are undone. Marks: issue 5.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import rescind
import uvloop
from msgspec import Struct
from rescind.wire import (
    InstanceAwait,
    InstanceAwaitAnswer,
    InstanceStart,
    InstanceStartAnswer,
    InstanceStartRequest,
    Task,
    TaskClaim,
    TaskClaimAnswer,
    TaskReport,
    TaskReportAnswer,
    TaskReportRequest,
)
from rich.console import Console
from rich.table import Table

from load.peers import sagas as peers
from load.system import ENVIRONMENT, FLAG, Site, percentile, system
from runtime.postgres import Connection, connect
from runtime.queries import parse

QUERIES = parse((Path(__file__).parent / "sql" / "sagas.sql").read_text(), "load/sql/sagas.sql")
STEPS = ("reserve", "capture", "confirm")
SAGA = {
    "flag": FLAG,
    "steps": [
        {
            "name": name,
            "kind": f"shop.{name}",
            "key": f"{name}:{{order}}",
            "arguments": ["order", "amount_cents"],
            "compensation": {"executor": "worker"},
        }
        for name in STEPS
    ],
}
EARLIER = {"DBOS": ("100, measured earlier", "60", "13.9", "16"), "Restate": ("282, measured earlier", "312", "8.4")}
WARMING_SECONDS = 2.0
ALONE = 200
OPENED_AT_ONCE = 20_000
MAKE_SEARCH = ("make_search_versions", "make_search_subject", "make_search_attributes")
FAILS = "fails-"
"""Begins the name of one whose last step fails."""


class Run(Struct, frozen=True, kw_only=True):
    """What one repeat showed. CPU is in microseconds a saga."""

    rate: float
    taken_ms: list[float]
    transactions: float
    wal_bytes: float
    client_cpu: float
    server_cpu: float
    database_cpu: float


class Shop:
    """A worker and the one who starts sagas, on one client. `flight`: how many at a time."""

    def __init__(self, client: rescind.AsyncClient, flight: int) -> None:
        self._api = client.core.api
        self._flight = flight
        self._reports: list[TaskReport] = []
        self._starts: list[InstanceStart] = []
        self._waiting: dict[str, asyncio.Future[str]] = {}
        self._bell = asyncio.Event()
        self._awaited = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []
        self._senders = 2

    async def __aenter__(self) -> Shop:
        loops = [self._report() for _ in range(self._senders)]
        self._loops = [
            asyncio.create_task(each) for each in (*loops, self._start(), self._await(), self._claim(), self._claim())
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)

    async def run(self, name: str) -> str:
        """One saga, from its start to its end: `done` or `undone`."""
        self._waiting[name] = asyncio.get_running_loop().create_future()
        self._starts.append(
            InstanceStart(id=name, version="1", input={"order": name, "amount_cents": 1299}, variant="on", subject=f"c-{name}")
        )
        self._bell.set()
        self._awaited.set()
        return await self._waiting[name]

    async def taken_ms(self, name: str) -> float:
        """How long one took."""
        begun = time.perf_counter()
        await self.run(name)
        return (time.perf_counter() - begun) * 1000

    def _claimed(self) -> TaskClaim:
        return TaskClaim(worker="load", saga="order", versions=["1"], steps=list(STEPS), acts=list(STEPS), limit=256)

    def _act(self, tasks: list[Task]) -> None:
        for task in tasks:
            fails = task.verb == "act" and task.step == STEPS[-1] and (task.instance or "").startswith(FAILS)
            self._reports.append(
                TaskReport(id=task.id, token=task.token, outcome="failed", error={"detail": "refused"}, verb="act", final=True)
                if fails
                else TaskReport(id=task.id, token=task.token, outcome="succeeded", proof={"id": "x"}, verb=task.verb)
            )
        if tasks:
            self._bell.set()

    async def _start(self) -> None:
        while True:
            if not self._starts:
                await self._heard()
                continue
            starts, self._starts = self._starts[:256], self._starts[256:]
            path = self._api.within("/sagas/order/instances:start")
            body = InstanceStartRequest(instances=starts, claim=self._claimed())
            answer = await self._api.call("POST", path, body, InstanceStartAnswer)
            assert all(one.outcome == "started" for one in answer.results), answer.results
            self._act(answer.tasks)

    async def _report(self) -> None:
        while True:
            if not self._reports:
                await self._heard()
                continue
            reports, self._reports = self._reports[:256], self._reports[256:]
            body = TaskReportRequest(worker="load", reports=reports, claim=self._claimed())
            answer = await self._api.call("POST", self._api.within("/tasks:report"), body, TaskReportAnswer)
            assert set(answer.results) == {"recorded"}, answer.results
            self._act(answer.tasks)

    async def _claim(self) -> None:
        """What was not handed out with an answer."""
        while True:
            answer = await self._api.call(
                "POST", self._api.within("/tasks:claim"), self._claimed(), TaskClaimAnswer, timeout_seconds=30
            )
            self._act(answer.tasks)

    async def _await(self) -> None:
        while True:
            if not self._waiting:
                self._awaited.clear()
                await self._awaited.wait()
            request = InstanceAwait(ids=list(self._waiting)[:256], wait_seconds=5.0)
            path = self._api.within("/sagas/order/instances:await")
            answer = await self._api.call("POST", path, request, InstanceAwaitAnswer, timeout_seconds=30)
            for one in answer.ended:
                self._waiting.pop(one.id).set_result(one.state)
            if not answer.ended:
                await asyncio.sleep(0.002)

    async def _heard(self) -> None:
        self._bell.clear()
        await self._bell.wait()


async def repeat(
    site: Site, shop: Shop, seconds: float, flight: int, names: Iterator[int], pg: Connection, *, fails: bool = False
) -> Run:
    """So many sagas in flight for so long."""
    prefix, end = (FAILS, "undone") if fails else ("o", "done")
    taken_ms: list[float] = []
    before, begun = await spent(pg), time.perf_counter()
    client, server, database = time.process_time(), site.server_seconds(), site.database_seconds()

    async def caller() -> None:
        while (since := time.perf_counter()) < begun + seconds:
            assert await shop.run(f"{prefix}{next(names)}") == end
            taken_ms.append((time.perf_counter() - since) * 1000)

    await asyncio.gather(*(caller() for _ in range(flight)))
    lasted, count = time.perf_counter() - begun, len(taken_ms)
    client, server = time.process_time() - client, site.server_seconds() - server
    database = site.database_seconds() - database
    await asyncio.sleep(1.2)  # PostgreSQL's backends tell their counts once a second
    after = await spent(pg)
    return Run(
        rate=count / lasted,
        taken_ms=taken_ms,
        transactions=(after[0] - before[0]) / count,
        wal_bytes=(after[1] - before[1]) / count,
        client_cpu=client * 1e6 / count,
        server_cpu=server * 1e6 / count,
        database_cpu=database * 1e6 / count,
    )


async def spent(pg: Connection) -> tuple[int, int]:
    """Transactions and bytes of WAL so far."""
    await pg.fetchrow(QUERIES["force_statistics"])
    row = await pg.fetchrow(QUERIES["spent"])
    return row["transactions"], int(row["wal_bytes"])


class Measured(Struct, frozen=True, kw_only=True):
    """All repeats, those that were undone, one at a time, and the memory of the server's process."""

    happy: list[Run]
    undone: list[Run]
    alone: list[float]
    alone_undone: list[float]
    memory_mb: float


async def measure(site: Site, arguments: argparse.Namespace) -> Measured:
    """All repeats, then one at a time, then those that are undone."""
    names = itertools.count()
    pg = await connect(site.database_url, application_name="load")
    with tempfile.TemporaryDirectory() as folder:
        async with rescind.AsyncClient(
            url=site.url, token=site.token, environment=ENVIRONMENT, service="load", state_dir=Path(folder)
        ) as client:
            async with Shop(client, arguments.flight) as shop:
                again = (arguments.seconds, arguments.flight, names, pg)
                await repeat(site, shop, WARMING_SECONDS, arguments.flight, names, pg)
                happy = [await repeat(site, shop, *again) for _ in range(arguments.repeats)]
                alone = [await shop.taken_ms(f"o{next(names)}") for _ in range(ALONE)]
                alone_undone = [await shop.taken_ms(f"{FAILS}{next(names)}") for _ in range(ALONE)]
                undone = [await repeat(site, shop, *again, fails=True) for _ in range(arguments.repeats)]
    await pg.close()
    memory_mb = peers.memory_mb([site.pid])
    return Measured(happy=happy, undone=undone, alone=alone, alone_undone=alone_undone, memory_mb=memory_mb)


async def crowded(site: Site, arguments: argparse.Namespace) -> list[tuple[int, float, float]]:
    """For each number of open instances: how many, sagas a second beside them, memory of the server's process in MB."""
    found, held, names = [], 0, itertools.count()
    pg = await connect(site.database_url, application_name="load")
    with tempfile.TemporaryDirectory() as folder:
        async with rescind.AsyncClient(
            url=site.url, token=site.token, environment=ENVIRONMENT, service="load", state_dir=Path(folder)
        ) as client:
            async with Shop(client, arguments.flight) as shop:
                await repeat(site, shop, WARMING_SECONDS, arguments.flight, names, pg)
                for wanted in (int(text) for text in arguments.open.split(",")):
                    while held < wanted:
                        number = min(OPENED_AT_ONCE, wanted - held)
                        await pg.execute(QUERIES["open"], ENVIRONMENT, held, FLAG, number)
                        held += number
                    await pg.execute(QUERIES["settle"])
                    runs = [
                        await repeat(site, shop, arguments.seconds, arguments.flight, names, pg)
                        for _ in range(arguments.repeats)
                    ]
                    rate = statistics.median(run.rate for run in runs)
                    found.append((held, rate, peers.memory_mb([site.pid])))
    await pg.close()
    return found


async def searchable(site: Site, arguments: argparse.Namespace) -> list[tuple[str, float, float, float]]:
    """By turns with the indexes of searching and without: which, sagas a second, bytes of WAL and PostgreSQL's CPU of one."""
    found, names = [], itertools.count()
    pg = await connect(site.database_url, application_name="load")
    with tempfile.TemporaryDirectory() as folder:
        async with rescind.AsyncClient(
            url=site.url, token=site.token, environment=ENVIRONMENT, service="load", state_dir=Path(folder)
        ) as client:
            async with Shop(client, arguments.flight) as shop:
                await repeat(site, shop, WARMING_SECONDS, arguments.flight, names, pg)
                for has_indexes in (True, False) * arguments.repeats:
                    await pg.execute(QUERIES["drop_search"])
                    for name in MAKE_SEARCH if has_indexes else ():
                        await pg.execute(QUERIES[name])
                    run = await repeat(site, shop, arguments.seconds, arguments.flight, names, pg)
                    found.append(("with" if has_indexes else "without", run.rate, run.wal_bytes, run.database_cpu))
    await pg.close()
    return found


def rows(measured: Measured) -> Iterator[tuple[str, str, str]]:
    """What is measured, what came out here, and the mark."""
    runs, alone, undone = measured.happy, measured.alone, measured.undone
    rates = [run.rate for run in runs]
    yield "sagas/s, median repeat", f"{statistics.median(rates):,.0f}", "at least 1,500"
    yield "sagas/s, worst and best repeat", f"{min(rates):,.0f}, {max(rates):,.0f}", ""
    taken = [value for run in runs for value in run.taken_ms]
    yield "one of them in ms, p50 and p99", f"{percentile(taken, 0.5):.1f}, {percentile(taken, 0.99):.1f}", ""
    yield "one alone in ms, p50 and p99", f"{percentile(alone, 0.5):.1f}, {percentile(alone, 0.99):.1f}", "p50 under 6"
    yield "transactions a saga", f"{statistics.median(run.transactions for run in runs):.2f}", "at most 1"
    yield "WAL a saga, bytes", f"{statistics.median(run.wal_bytes for run in runs):,.0f}", "under 4,096"
    for name, cpu in (
        ("this process", [run.client_cpu for run in runs]),
        ("the server", [run.server_cpu for run in runs]),
        ("PostgreSQL and Valkey", [run.database_cpu for run in runs]),
    ):
        yield f"CPU of {name}, µs a saga", f"{statistics.median(cpu):.0f}", ""
    back = statistics.median(run.rate for run in undone)
    yield "sagas/s of which two steps are undone, median repeat", f"{back:,.0f}", "the same rate of steps"
    yield "steps and compensations a second: forward only; with undoing", f"{rates_of(rates, 3)}; {back * 5:,.0f}", ""
    yield "transactions of one that is undone", f"{statistics.median(run.transactions for run in undone):.2f}", "about 1"
    yield "WAL of one that is undone, bytes", f"{statistics.median(run.wal_bytes for run in undone):,.0f}", ""
    cpu = [(run.client_cpu, run.server_cpu, run.database_cpu) for run in undone]
    spent_ = ", ".join(f"{statistics.median(each):,.0f}" for each in zip(*cpu, strict=True))
    yield "CPU of one that is undone, µs: this process, server, PostgreSQL and Valkey", spent_, ""
    late = [value for run in undone for value in run.taken_ms]
    yield "one that is undone in ms, p50 and p99", f"{percentile(late, 0.5):.1f}, {percentile(late, 0.99):.1f}", ""
    one = measured.alone_undone
    yield "one alone that is undone in ms, p50 and p99", f"{percentile(one, 0.5):.1f}, {percentile(one, 0.99):.1f}", ""
    yield "memory of the server's process, MB", f"{measured.memory_mb:.0f}", ""


def rates_of(rates: list[float], steps: int) -> str:
    """The median in steps."""
    return f"{statistics.median(rates) * steps:,.0f}"


def beside(measured: Measured, arguments: argparse.Namespace) -> Table:
    """Ours and the peers'. What cannot be had here is said."""
    title = f"beside others in one run, {arguments.flight} in flight"
    table = Table("", "sagas/s", "undone/s", "alone p50 ms", "transactions", "WAL bytes", "memory MB", title=title)
    table.add_row(*cells(ours(measured)))
    for name, run in (("DBOS", peers.dbos), ("Restate", peers.restate)):
        try:
            table.add_row(*cells(asyncio.run(run(arguments.flight, arguments.seconds))))
        except (ImportError, OSError, subprocess.CalledProcessError) as error:
            table.add_row(f"{name}: not to be had here ({error})", *EARLIER[name])
    return table


def ours(measured: Measured) -> peers.Peer:
    """Ours as one of them."""
    happy = measured.happy
    return peers.Peer(
        name="Rescind",
        happy=statistics.median(run.rate for run in happy),
        undone=statistics.median(run.rate for run in measured.undone),
        alone_ms=percentile(measured.alone, 0.5),
        transactions=statistics.median(run.transactions for run in happy),
        wal_bytes=statistics.median(run.wal_bytes for run in happy),
        memory_mb=measured.memory_mb,
    )


def cells(peer: peers.Peer) -> list[str]:
    """One row."""
    used = [("-" if value is None else f"{value:,.2f}") for value in (peer.transactions, peer.wal_bytes)]
    return [peer.name, f"{peer.happy:,.0f}", f"{peer.undone:,.0f}", f"{peer.alone_ms:.1f}", *used, f"{peer.memory_mb:.0f}"]


def main() -> int:
    """Parse the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--flight", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--open", default="", metavar="NUMBERS")
    parser.add_argument("--search", action="store_true")
    arguments = parser.parse_args()
    with system() as site:
        site.api.request("PUT", site.api.within("/sagas/order/versions/1"), json={"document": SAGA, "reason": "load"})
        if arguments.open:
            table = Table("open instances", "sagas/s beside them", "memory of the server, MB", title="marks: 20 % and 200 MB")
            for held, rate, memory in uvloop.run(crowded(site, arguments)):
                table.add_row(f"{held:,}", f"{rate:,.0f}", f"{memory:.0f}")
            Console().print(table)
            return 0
        if arguments.search:
            table = Table("indexes of searching", "sagas/s", "WAL a saga, bytes", "CPU of PostgreSQL and Valkey, µs a saga")
            for which, rate, wal_bytes, cpu in uvloop.run(searchable(site, arguments)):
                table.add_row(which, f"{rate:,.0f}", f"{wal_bytes:,.0f}", f"{cpu:.0f}")
            Console().print(table)
            return 0
        measured = uvloop.run(measure(site, arguments))
    table = Table("what", "here", "mark", title=f"sagas of three steps over HTTP, {arguments.flight} in flight, fsync on")
    for row in rows(measured):
        table.add_row(*row)
    Console().print(table)
    if arguments.peers:
        Console().print(beside(measured, arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())

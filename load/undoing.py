"""How fast a kill of many effects is undone.

    ./run python load/undoing.py [--effects 20000,100000] [--by worker|webhook] [--workers 4]

The effects are steps that are done, each of a saga instance and a customer of its own. `worker`: handlers that do nothing, in
this process, which take up to 256 at a time and report all of them with the next claim. `webhook`: the server's own executor,
which posts to a server in this process. Printed: compensations a second from the kill's request to the last answer, when the
first was and when it was *settled*. Mark: issue 5.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import rescind
import uvloop
from msgspec import Struct
from rescind.transport import Api
from rescind.wire import TaskClaim, TaskClaimAnswer, TaskReport, TaskReportAnswer, TaskReportRequest
from rich.console import Console
from rich.table import Table

from load.system import ENVIRONMENT, FLAG, Site, system
from runtime.postgres import Connection, connect
from runtime.queries import parse

QUERIES = parse((Path(__file__).parent / "sql" / "undoing.sql").read_text(), "load/sql/undoing.sql")
SAGA = "returns"
WORKER = {"name": "reserve", "kind": "load.reserve", "key": "reserve:{order}", "compensation": {"executor": "worker"}}
WEBHOOK = {
    "name": "tell",
    "kind": "load.tell",
    "key": "tell:{order}",
    "compensation": {
        "executor": "webhook",
        "connection": "partner",
        "path": "/",
        "body": '{"undoes": {{ effect.key | tojson }}}',
    },
}
STEPS = {"worker": WORKER, "webhook": WEBHOOK}
TASKS_MAX = 256
LOOK_SECONDS = 0.05
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
LENGTH = b"content-length: "


class Undone(Struct, frozen=True, kw_only=True):
    """One kill. `rate`: compensations a second; CPU in microseconds of each."""

    effects: int
    rate: float
    first_seconds: float
    settled_seconds: float
    server_cpu: float
    database_cpu: float


class Partner(asyncio.Protocol):
    """A connection to a server that says yes, and notes when it was asked in `arrived`."""

    def __init__(self, arrived: list[float]) -> None:
        self._arrived = arrived
        self._buffer = b""

    def connection_made(self, transport: Any) -> None:
        """Called by the loop."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Called by the loop: answer each request once it is whole."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            length = next((int(line[len(LENGTH) :]) for line in head.split(b"\r\n") if line.startswith(LENGTH)), 0)
            if len(self._buffer) < end + 4 + length:
                return
            self._buffer = self._buffer[end + 4 + length :]
            self._arrived.append(time.perf_counter())
            self._transport.write(OK)


@asynccontextmanager
async def partner(arrived: list[float]) -> Any:
    """Its address, while it runs."""
    server = await asyncio.get_running_loop().create_server(lambda: Partner(arrived), "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def lay_down(api: Api, url: str, pace: dict[str, float] | None = None) -> None:
    """The definition of both kinds of steps, at this pace, and the way to the partner."""
    connection = {"type": "webhook", "url": url}
    api.request("PUT", api.within("/connections/partner"), json={"connection": connection, "reason": "load"})
    document = {"flag": FLAG, "steps": [{**step, "pace": pace or {}} for step in STEPS.values()]}
    api.request("PUT", api.within(f"/sagas/{SAGA}/versions/1"), json={"document": document, "reason": "load"})


async def work(client: rescind.AsyncClient, reported: list[float]) -> None:
    """One worker: claims, does nothing, reports with the next claim, for ever."""
    api = client.core.api
    claim = TaskClaim(worker="load", saga=SAGA, versions=["1"], steps=[WORKER["name"]], limit=TASKS_MAX)
    tasks: list[Any] = []
    while True:
        if not tasks:
            answer = await api.call("POST", api.within("/tasks:claim"), claim, TaskClaimAnswer, timeout_seconds=60)
            tasks = answer.tasks
            continue
        reports = [TaskReport(id=task.id, token=task.token, outcome="succeeded", verb="undo") for task in tasks]
        body = TaskReportRequest(worker="load", reports=reports, claim=claim)
        told = await api.call("POST", api.within("/tasks:report"), body, TaskReportAnswer, timeout_seconds=60)
        reported += [time.perf_counter()] * told.results.count("recorded")
        tasks = told.tasks


def kill(api: Api) -> UUID:
    """Kill the flag. Returns the rollback."""
    answer = api.request("POST", api.within(f"/flags/{FLAG}/kill"), json={"reason": "load", "grace_seconds": 0})
    return UUID(answer["rollback_id"])


def lift(api: Api) -> None:
    """Open the flag again, whatever is still being undone."""
    api.request("POST", api.within(f"/flags/{FLAG}/lift"), json={"reason": "load", "kill_count": 1, "force": True})


async def undo(site: Site, pg: Connection, by: str, number: int, ended: list[float]) -> Undone:
    """One kill of so many effects, until it is settled."""
    step = STEPS[by]
    kind = f"{step['kind']}.{number}"
    await pg.execute(QUERIES["effects"], ENVIRONMENT, kind, FLAG, SAGA, step["name"], number)
    await pg.execute(QUERIES["settle"])
    ended.clear()
    server, database = site.server_seconds(), site.database_seconds()
    begun = time.perf_counter()
    rollback = await asyncio.to_thread(kill, site.api)
    while (await pg.fetchrow(QUERIES["state"], rollback))["state"] != "settled":
        await asyncio.sleep(LOOK_SECONDS)
    settled = time.perf_counter()
    assert await pg.fetchval(QUERIES["undone"], rollback) == number, "some were not undone"
    await asyncio.to_thread(lift, site.api)
    return Undone(
        effects=number,
        rate=number / (ended[-1] - begun),
        first_seconds=ended[0] - begun,
        settled_seconds=settled - begun,
        server_cpu=(site.server_seconds() - server) * 1e6 / number,
        database_cpu=(site.database_seconds() - database) * 1e6 / number,
    )


async def kills(site: Site, arguments: argparse.Namespace) -> list[Undone]:
    """One kill after the other."""
    ended: list[float] = []
    pg = await connect(site.database_url, application_name="load")
    with tempfile.TemporaryDirectory() as folder:
        async with (
            partner(ended) as url,
            rescind.AsyncClient(
                url=site.url, token=site.token, environment=ENVIRONMENT, service="load", state_dir=Path(folder)
            ) as client,
        ):
            await asyncio.to_thread(lay_down, site.api, url)
            count = arguments.workers if arguments.by == "worker" else 0
            workers = [asyncio.create_task(work(client, ended)) for _ in range(count)]
            numbers = [int(text) for text in arguments.effects.split(",")]
            found = [await undo(site, pg, arguments.by, number, ended) for number in numbers]
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
    await pg.close()
    return found


def main() -> int:
    """Parse the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--effects", default="20000,100000", metavar="NUMBERS")
    parser.add_argument("--by", choices=list(STEPS), default="worker")
    parser.add_argument("--workers", type=int, default=4)
    arguments = parser.parse_args()
    with system() as site:
        found = uvloop.run(kills(site, arguments))
    names = ("effects of one kill", "compensations/s", "first, s", "settled, s", "server, µs", "PostgreSQL and Valkey, µs")
    table = Table(*names, title=f"undone by {arguments.by}; mark: 5,000/s")
    for one in found:
        times = (f"{one.first_seconds:.2f}", f"{one.settled_seconds:.1f}")
        cpu = (f"{one.server_cpu:.0f}", f"{one.database_cpu:.0f}")
        table.add_row(f"{one.effects:,}", f"{one.rate:,.0f}", *times, *cpu)
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How soon another server goes on with what a killed one was undoing.

    ./run python -m load.takeover [--times 3]

Two `rescind serve` on one PostgreSQL. A flag with many effects is killed; whoever holds the leases undoes them by webhooks to a
server in this process, at a pace. In the midst of it that server is killed with SIGKILL, and started again afterwards. Printed
for each time: until the other held every range, and until its first webhook came in. Mark: within the lease plus 1 s.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop
from msgspec import Struct
from rescind.transport import Api
from rich.console import Console
from rich.table import Table

from demo.processes import Child, Children
from flagd import store
from load.system import ENVIRONMENT, FLAG
from load.undoing import QUERIES, SAGA, WEBHOOK, kill, lay_down, partner
from runtime import tokens
from runtime.embedded import EmbeddedPostgres, EmbeddedValkey
from runtime.migrations import migrate
from runtime.postgres import Connection, connect
from sagas.leases import LEASE_SECONDS
from server.migrations import ROOMS

READY = "rescind serve is ready: "
START_SECONDS = 90.0
LOOK_SECONDS = 0.01
EFFECTS = 100_000
PER_SECOND = 50
BEFORE_SECONDS = 3.0


class Taken(Struct, frozen=True, kw_only=True):
    """Seconds after the SIGKILL."""

    ranges: float
    first: float


class Pair:
    """The servers, each with a process of its own, on databases of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._postgres = EmbeddedPostgres(folder / "postgres")
        self._valkey = EmbeddedValkey(folder / "valkey")
        self._children = Children(folder)
        self._servers: list[Child] = []
        self._stack = AsyncExitStack()
        self._token = ""
        self.api: Api
        self.pg: Connection

    async def start(self) -> None:
        """All of it; `stop` is to be called in every case."""
        for database in (self._postgres, self._valkey):
            self._stack.callback(database.stop)
            await asyncio.to_thread(database.start)
        await migrate(self._postgres.url, ROOMS)
        self.pg = await connect(self._postgres.url, application_name="load")
        async with self.pg.transaction():
            await store.create_environment(self.pg, ENVIRONMENT)
            self._token, _ = await tokens.create(self.pg, "load", None, ["admin"], "load")
        await self._stack.enter_async_context(self._children)
        await self.begin()
        await self.begin()

    async def begin(self) -> None:
        """One more server. Requests go to the one that was started last, which is not the one that holds the leases."""
        variables = {"RESCIND_DATABASE_URL": self._postgres.url, "RESCIND_REDIS_URL": self._valkey.url}
        number = len(self._servers)
        argv = [sys.executable, "-m", "rescind.cli", "serve", "--http-port", "0"]
        child = await self._children.start(f"server-{number}", argv, {**variables, "RESCIND_LOG_LEVEL": "error"})
        while READY not in (line := await child.line(timeout_seconds=START_SECONDS)):
            pass
        child.drain()
        self._servers.append(child)
        self.api = Api(line.partition(READY)[2].strip(), self._token, ENVIRONMENT)

    async def stop(self) -> None:
        """Everything."""
        await self.pg.close()
        await self._stack.aclose()

    async def take_over(self, arrived: list[float]) -> Taken:
        """Kill the holder, and see the other go on."""
        before = await self.pg.fetchrow(QUERIES["holder"])
        holder = next(child for child in self._servers if f":{child.process.pid}/" in before["holder"])
        os.killpg(holder.process.pid, signal.SIGKILL)
        killed = time.perf_counter()
        await holder.process.wait()
        while (
            (now := await self.pg.fetchrow(QUERIES["holder"])) is None
            or now["holder"] == before["holder"]
            or now["number"] < 16
        ):
            await asyncio.sleep(LOOK_SECONDS)
        ranges = time.perf_counter() - killed
        while arrived[-1] < killed + ranges / 2:
            await asyncio.sleep(LOOK_SECONDS)
        first = next(at for at in arrived if at > killed + ranges / 2)
        await self.begin()
        return Taken(ranges=ranges, first=first - killed)


async def measure(times: int) -> list[Taken]:
    """So many takeovers in one long rollback."""
    arrived: list[float] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        pair = Pair(Path(folder))
        async with partner(arrived) as url:
            try:
                await pair.start()
                await asyncio.to_thread(_set_up, pair.api, url)
                await pair.pg.execute(QUERIES["effects"], ENVIRONMENT, WEBHOOK["kind"], FLAG, SAGA, WEBHOOK["name"], EFFECTS)
                await asyncio.to_thread(kill, pair.api)
                found = []
                for _ in range(times):
                    count = len(arrived)
                    while len(arrived) < count + PER_SECOND * BEFORE_SECONDS:
                        await asyncio.sleep(LOOK_SECONDS)
                    found.append(await pair.take_over(arrived))
                return found
            finally:
                await pair.stop()


def _set_up(api: Api, url: str) -> None:
    definition = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on"}
    flag = {"key": FLAG, "definition": definition}
    api.request("PUT", api.within(f"/flags/{FLAG}"), json={"flag": flag, "reason": "load"})
    lay_down(api, url, pace={"per_second": PER_SECOND})


def main() -> int:
    """Parse the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=3)
    arguments = parser.parse_args()
    found = uvloop.run(measure(arguments.times))
    mark = LEASE_SECONDS + 1
    table = Table(
        "time", "every range held by the other, s", "its first webhook, s", title=f"mark: {mark:g} s after the SIGKILL"
    )
    for number, one in enumerate(found, 1):
        table.add_row(str(number), f"{one.ranges:.2f}", f"{one.first:.2f}")
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())

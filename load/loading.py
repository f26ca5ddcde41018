"""How long an SDK takes to be ready with 10,000 flags, and how long it holds its event loop meanwhile.

    ./run python load/loading.py [--flags 10000] [--changed 1000] [--repeats 7]

The server is a `rescind dev`, the client an `AsyncClient` on uvloop or, with `--plain`, on asyncio's own loop. A task sleeps
one millisecond again and again and notes by how much it woke too late: its greatest lateness is the longest stall. Of each
lateness, what this process's threads spent of the CPU meanwhile is ours, the rest the machine's: on one that others use, the
first is the figure. The same with nothing to do is the baseline of the same run. The mark: ready in 1 s, no stall above 10 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import rescind
import uvloop
from rich.console import Console
from rich.table import Table

from load.system import ENVIRONMENT, Site, system

BATCH = 1_000
SLEEP_SECONDS = 0.001
IDLE_SECONDS = 1.0
REST_SECONDS = 0.5
PATIENCE_SECONDS = 60.0


class Stall:
    """The longest time in which the loop did not come round, in milliseconds, and the most of it that was ours."""

    def __init__(self) -> None:
        self.worst_ms = 0.0
        self.own_ms = 0.0

    async def watch(self) -> None:
        """Watch until cancelled."""
        while True:
            begun, spent = time.perf_counter(), time.process_time()
            await asyncio.sleep(SLEEP_SECONDS)
            late = (time.perf_counter() - begun - SLEEP_SECONDS) * 1e3
            self.worst_ms = max(self.worst_ms, late)
            self.own_ms = max(self.own_ms, min(late, (time.process_time() - spent) * 1e3))


@asynccontextmanager
async def watched() -> AsyncIterator[Stall]:
    """The longest stall inside of the block."""
    stall = Stall()
    task = asyncio.create_task(stall.watch())
    await asyncio.sleep(SLEEP_SECONDS)
    try:
        yield stall
        await asyncio.sleep(REST_SECONDS)
    finally:
        task.cancel()


def flag(number: int, salt: int = 0) -> dict[str, Any]:
    """A boolean flag as teams write them: countries, a plan, a version, then a share of the users."""
    countries = [f"{letter}{number % 7}" for letter in "ABCDEFGH"]
    condition = {
        "and": [
            {"in": [{"var": "country"}, countries]},
            {"==": [{"var": "plan"}, f"plan-{number % 5}"]},
            {"sem_ver": [{"var": "version"}, ">=", f"1.{number % 20}.0"]},
        ]
    }
    share = 1 + (number + salt) % 99
    targeting = {"if": [condition, {"fractional": [["on", share], ["off", 100 - share]]}, "off"]}
    definition = {
        "state": "ENABLED",
        "variants": {"on": True, "off": False},
        "defaultVariant": "off",
        "targeting": targeting,
        "metadata": {"team": f"team-{number % 30}"},
    }
    return {"key": f"service-{number % 40}.feature-{number}", "definition": definition, "services": [f"service-{number % 40}"]}


def put_flags(site: Site, numbers: range, salt: int = 0) -> None:
    """Write them, a batch per revision."""
    for start in range(numbers.start, numbers.stop, BATCH):
        batch = range(start, min(start + BATCH, numbers.stop))
        operations = [{"op": "put", "flag": flag(number, salt)} for number in batch]
        body = {"operations": operations, "reason": "load"}
        site.api.request("POST", site.api.within("/changes"), json=body)


class Loading:
    """The measurements of one run."""

    def __init__(self, site: Site, arguments: argparse.Namespace) -> None:
        self._site = site
        self._flags: int = arguments.flags
        self._changed: int = arguments.changed
        self._repeats: int = arguments.repeats
        self.seconds: dict[str, list[float]] = {}
        self.stalls: dict[str, list[float]] = {}
        self.own: dict[str, list[float]] = {}

    async def run(self) -> None:
        """All of them, interleaved."""
        for _ in range(self._repeats):
            gc.collect()
            async with watched() as idle:
                await asyncio.sleep(IDLE_SECONDS)
            self._note("nothing to do", IDLE_SECONDS, idle)
            with tempfile.TemporaryDirectory() as folder:
                await self._one(Path(folder))

    async def _one(self, folder: Path) -> None:
        for name in ("ready, nothing on disk", "ready, the last snapshot on disk"):
            client = rescind.AsyncClient(
                url=self._site.url, token=self._site.token, environment=ENVIRONMENT, service="load", state_dir=folder
            )
            async with watched() as stall:
                begun = time.perf_counter()
                assert await client.wait_ready(PATIENCE_SECONDS)
                seconds = time.perf_counter() - begun
            snapshot = client.core.current.snapshot
            assert snapshot is not None
            assert len(snapshot.flags) >= self._flags, len(snapshot.flags)
            self._note(name, seconds, stall)
            if name.endswith("nothing on disk"):
                await self._change(client)
            await client.close()

    async def _change(self, client: rescind.AsyncClient) -> None:
        """One revision that changes many flags, and then the first use of each flag."""
        before, salt = client.status().revision, int(time.monotonic() * 1000)
        name = f"a change of {self._changed:,} flags"
        heard = asyncio.Event()
        stop = client.on_change(flag(0)["key"], lambda change: heard.set())
        async with watched() as stall:
            begun = time.perf_counter()
            await asyncio.create_subprocess_exec(
                sys.executable, __file__, "--put", self._site.url, self._site.token, str(self._changed), str(salt)
            )
            async with asyncio.timeout(PATIENCE_SECONDS):
                await heard.wait()
            seconds = time.perf_counter() - begun
        stop()
        assert client.status().revision != before
        self._note(name, seconds, stall)
        context = {"targetingKey": "user-1", "country": "A1", "plan": "plan-1", "version": "1.2.3"}
        begun = time.perf_counter()
        for number in range(self._flags):
            client.boolean(flag_key(number), False, context)
        self._note("first use of all flags, one after the other", time.perf_counter() - begun, None)

    def _note(self, name: str, seconds: float, stall: Stall | None) -> None:
        self.seconds.setdefault(name, []).append(seconds)
        self.stalls.setdefault(name, []).append(stall.worst_ms if stall else 0.0)
        self.own.setdefault(name, []).append(stall.own_ms if stall else 0.0)


def flag_key(number: int) -> str:
    """The key of the flag of this number."""
    return f"service-{number % 40}.feature-{number}"


def main() -> int:
    """Parse the arguments, run, print. With `--put` this is the process of whoever changes the flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flags", type=int, default=10_000)
    parser.add_argument("--changed", type=int, default=1_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--plain", action="store_true", help="asyncio's own loop instead of uvloop")
    parser.add_argument("--put", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.put:
        url, token, changed, salt = arguments.put
        put_flags(Site(url, token, 0), range(int(changed)), int(salt))
        return 0
    run: Callable[[Any], Any] = asyncio.run if arguments.plain else uvloop.run
    with system() as site:
        put_flags(site, range(arguments.flags))
        loading = Loading(site, arguments)
        run(loading.run())
    columns = ("what", "median, ms", "longest stall, median, ms", "worst", "of it ours, median, ms", "worst")
    table = Table(*columns, title=f"{arguments.flags:,} flags")
    for name, seconds in loading.seconds.items():
        stalls = (loading.stalls[name], loading.own[name])
        cells = [text for values in stalls for text in (f"{statistics.median(values):.1f}", f"{max(values):.1f}")]
        table.add_row(name, f"{statistics.median(seconds) * 1e3:.0f}", *cells)
    Console(width=140).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())

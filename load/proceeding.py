"""Effects that go on without the server: what the synced line costs each of them.

    ./run python load/proceeding.py [--seconds 4] [--callers 1 64] [--state-dir DIR]

Nobody listens at the client's URL, and its flag declares `on_unreachable: proceed`. Each caller does `async with
client.effect(...)` with a body that does nothing: one try to reach the server, a line synced before the body, a line after it.
Prints effects per second and how long the line before the body, and the effect as a whole, took.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import tempfile
import time
from pathlib import Path

import rescind
from msgspec import Struct
from rescind.wire import Revision, Snapshot, SnapshotFlag
from rich.console import Console
from rich.table import Table

from load.system import percentile

FLAG = "checkout.new-flow"
NOWHERE = "http://127.0.0.1:9"


class Run(Struct, frozen=True, kw_only=True):
    """What one number of callers showed, in milliseconds."""

    callers: int
    seconds: float
    lines_ms: list[float]
    effects_ms: list[float]


async def act(client: rescind.AsyncClient, names: itertools.count[int], until: float, run: Run) -> None:
    """Effects, one after the other."""
    while time.monotonic() < until:
        begun = time.perf_counter()
        async with client.effect("payment.capture", flag=FLAG, key=str(next(names)), payload={"amount_cents": 1299}) as effect:
            run.lines_ms.append((time.perf_counter() - begun) * 1000)
            effect.result = {"id": "pi_1"}
        run.effects_ms.append((time.perf_counter() - begun) * 1000)


async def measure(folder: Path, callers: int, seconds: float) -> Run:
    """One client, so many callers."""
    definition = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on"}
    flags = {FLAG: SnapshotFlag(definition=definition, on_unreachable="proceed")}
    client = rescind.AsyncClient(url=NOWHERE, token="t", environment="production", service="load", state_dir=folder)
    client.core.current.take_snapshot(Snapshot(environment="production", revision=Revision(1, 1), flags=flags))
    run = Run(callers=callers, seconds=seconds, lines_ms=[], effects_ms=[])
    async with client:
        async with client.effect("payment.capture", flag=FLAG, key="first", payload={}):
            pass  # the first one waits a second for the server
        until, names = time.monotonic() + seconds, itertools.count()
        await asyncio.gather(*(act(client, names, until, run) for _ in range(callers)))
    return run


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--state-dir", type=Path, help="on the disk that is to be measured; else a temporary folder")
    asked = parser.parse_args()
    logging.getLogger("rescind").setLevel(logging.CRITICAL)
    table = Table("callers", "effects/s", "to the body p50 ms", "p99 ms", "whole effect p50 ms", "p99 ms")
    for callers in asked.callers:
        with tempfile.TemporaryDirectory(dir=asked.state_dir) as folder:
            run = asyncio.run(measure(Path(folder), callers, asked.seconds))
        figures = [percentile(of, share) for of in (run.lines_ms, run.effects_ms) for share in (0.5, 0.99)]
        table.add_row(str(callers), f"{len(run.effects_ms) / run.seconds:,.0f}", *(f"{figure:.2f}" for figure in figures))
    Console().print(table)


if __name__ == "__main__":
    main()

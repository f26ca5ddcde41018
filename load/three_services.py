"""Mixed requests in three real services of eight instances each, one of them cut off (P3): what `load/mixed.py` simulates.

    ./run python load/three_services.py [--flips 6] [--callers 4]

The server is a `rescind dev`; each service is a process with eight SDK clients, each with a stream and a port of its own. The
first instance of the second service reaches the server through a relay that falls silent. Kills and lifts take turns meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rescind.causality import BUDGET_SECONDS
from rich.console import Console
from rich.table import Table

from load.services.fleet import Fleet, fleet
from load.services.traces import hops_of, is_stale, mixed
from load.system import ENVIRONMENT, FLAG, Site, percentile, system

FLIP_SECONDS = 2.0
STREAM = b"/stream"
CASES = (
    ("stream silent, fetches answered", "nothing", STREAM),
    ("stream silent, fetches answered", "requests and replies", STREAM),
    ("nothing comes through", "nothing", b""),
    ("nothing comes through", "requests and replies", b""),
)


class Relay:
    """Connections to the server, on which nothing comes back any more once `cut` names what they were opened for."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = parts.hostname, parts.port
        self._open: set[asyncio.Task[Any]] = set()
        self.cut: bytes | None = None

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection has come."""
        task = asyncio.create_task(self._serve(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def end(self) -> None:
        """Cut every connection."""
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs = await asyncio.open_connection(*self._target)
        asked: list[bytes] = []
        try:
            await asyncio.gather(self._ask(reader, theirs[1], asked), self._answer(theirs[0], writer, asked))
        finally:
            writer.transport.abort()
            theirs[1].transport.abort()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: list[bytes]) -> None:
        while part := await reader.read(65_536):
            asked[:] = [part.partition(b"\r\n")[0]]
            writer.write(part)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: list[bytes]) -> None:
        while part := await reader.read(65_536):
            if self.cut is None or not any(self.cut in line for line in asked):
                writer.write(part)
        writer.close()


@asynccontextmanager
async def relayed(url: str) -> AsyncIterator[tuple[Relay, str]]:
    """A relay, and where it listens."""
    relay = Relay(url)
    listening = await asyncio.start_server(relay.accept, "127.0.0.1", 0)
    try:
        yield relay, f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()
        await relay.end()


async def flip(site: Site, flips: int) -> None:
    """Kill, lift, kill."""
    path = site.api.within(f"/flags/{FLAG}")
    for number in range(flips):
        if number % 2 == 0:
            answer = await asyncio.to_thread(site.api.request, "POST", f"{path}/kill", json={"reason": "load"})
        else:
            lift = {"reason": "load", "kill_count": answer["kill_count"], "force": True}
            await asyncio.to_thread(site.api.request, "POST", f"{path}/lift", json=lift)
        await asyncio.sleep(FLIP_SECONDS)


async def measured(site: Site, cut: bytes, carries: bool, arguments: argparse.Namespace) -> Fleet:
    """One case: what every request saw."""
    with tempfile.TemporaryDirectory() as folder:
        async with relayed(site.url) as (relay, url):
            place = (site.url, url, site.token, ENVIRONMENT, Path(folder), BUDGET_SECONDS)
            async with fleet(*place, carries=carries) as services:
                relay.cut = cut
                async with services.asked(arguments.callers):
                    await flip(site, arguments.flips)
                return services


def cells(services: Fleet, flips: int) -> list[str]:
    """Per flip; and what catching up added to the hops that were behind."""
    found = [mixed(request) for request in services.hops]
    turned = sum(any(older.is_turned for older in one) for one in found)
    counts = (len(found), sum(map(bool, found)), turned, sum(map(is_stale, services.hops)))
    added = [hop.added_ms for request in services.hops for hop in hops_of(request) if hop.added_ms is not None]
    late = f"{percentile(added, 0.5):.1f}, {percentile(added, 0.99):.1f} ({len(added)})" if added else ""
    return [*(f"{count / flips:.1f}" for count in counts), late]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=6, help="an even number: what was killed is lifted")
    parser.add_argument("--callers", type=int, default=4)
    arguments = parser.parse_args()
    table = Table("the one cut off", "the revision is carried by", "requests", "mixed", "new, then old", "STALE", "added ms",
                  title="per flip; added to a hop that was behind: p50, p99 (hops)")  # fmt: skip
    with system() as site:
        for place, carries, cut in CASES:
            services = asyncio.run(measured(site, cut, carries != "nothing", arguments))
            table.add_row(place, carries, *cells(services, arguments.flips))
    Console(width=150).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())

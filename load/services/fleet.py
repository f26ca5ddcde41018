"""Three services of eight instances each as processes, one instance on a server URL of its own, and requests through them."""

from __future__ import annotations

import asyncio
import random
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import httpx
import msgspec

from load.services.process import CALL_SECONDS, Setting, Urls
from load.services.traces import ROUTES, Hop, Route

T = TypeVar("T")
NAMES = ("a", "b", "c")
INSTANCES = 8
CUT = ("b", 0)
"""The instance that finds the server elsewhere."""
ROOT = Path(__file__).parents[2]
START_SECONDS = 60.0
STOP_SECONDS = 20.0


class Fleet:
    """The services as those outside see them."""

    def __init__(self, urls: Urls, http: httpx.AsyncClient) -> None:
        self._urls = urls
        self._http = http
        self.hops: list[Hop] = []
        """What every request so far saw."""

    async def request(self, route: Route) -> None:
        """From outside, without a revision."""
        url = random.choice(self._urls[route.service])
        response = await self._http.post(url, content=msgspec.json.encode(route))
        self.hops.append(msgspec.json.decode(response.raise_for_status().content, type=Hop))

    @asynccontextmanager
    async def asked(self, callers: int) -> AsyncIterator[None]:
        """By so many callers at once, each with one request after another, over all routes. Raises what a request raises."""
        calling = [asyncio.create_task(self._go_on()) for _ in range(callers)]
        try:
            yield
        finally:
            for one in calling:
                one.cancel()
            ends = await asyncio.gather(*calling, return_exceptions=True)
        for end in ends:
            if not isinstance(end, asyncio.CancelledError):
                raise end or RuntimeError("a caller ended")

    async def _go_on(self) -> None:
        while True:
            await self.request(random.choice(ROUTES))


@asynccontextmanager
async def fleet(
    url: str, cut_url: str, token: str, environment: str, state_dir: Path, budget_seconds: float, *, carries: bool = True
) -> AsyncIterator[Fleet]:
    """Running, every instance with a snapshot. The one of `CUT` asks `cut_url`, all others `url`."""
    processes: list[Process] = []
    try:
        for name in NAMES:
            servers = [cut_url if (name, number) == CUT else url for number in range(INSTANCES)]
            setting = Setting(
                name=name, servers=servers, token=token, environment=environment, state_dir=str(state_dir),
                budget_seconds=budget_seconds, carries=carries,
            )  # fmt: skip
            processes.append(await started(setting))
        async with asyncio.timeout(START_SECONDS):
            urls = {name: await heard(process, list[str]) for name, process in zip(NAMES, processes, strict=True)}
            for process in processes:
                tell(process, urls)
            for process in processes:
                await heard(process, str)
        async with httpx.AsyncClient(timeout=CALL_SECONDS) as http:
            yield Fleet(urls, http)
    finally:
        await asyncio.gather(*(ended(process) for process in processes))


async def started(setting: Setting) -> Process:
    """A service's process, which has been told what it is."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "load.services.process", cwd=ROOT, stdin=PIPE, stdout=PIPE
    )
    tell(process, setting)
    return process


def tell(process: Process, what: object) -> None:
    """One line."""
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(what) + b"\n")


async def heard(process: Process, kind: type[T]) -> T:
    """One line."""
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError("a service did not start; it says why on its standard error")
    return msgspec.json.decode(line, type=kind)


async def ended(process: Process) -> None:
    """It ends with its input."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()

"""The network between an instance and its server: a TCP proxy that loses answers, refuses paths and cuts connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from tests.sdk.conftest import Site


class Proxy:
    """Listens on loopback, in front of one server."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self.url = ""
        self.lose_answers_to: bytes | None = None
        """The next answer to a request with this in its first line is lost, once."""
        self.lost_count = 0
        self.meanwhile: tuple[bytes, Callable[[], None]] | None = None
        """What happens, once, while the next answer to a request with this in its first line is on its way, or is lost."""
        self.refuse: tuple[bytes, ...] = ()
        """Requests with one of these in their first line get a closed connection."""

    async def cut(self) -> None:
        """Close every connection."""
        for writer in list(self._writers):
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        their_reader, their_writer = await asyncio.open_connection(*self._target)
        self._writers |= {writer, their_writer}
        lost = asyncio.Event()
        happens: list[Callable[[], None]] = []
        ways = (self._ask(reader, their_writer, lost, happens), self._answer(their_reader, writer, lost, happens))
        ends = [asyncio.create_task(way) for way in ways]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
            for one in (writer, their_writer):
                self._writers.discard(one)
                one.close()
                with suppress(OSError):
                    await one.wait_closed()

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lost: asyncio.Event, happens: list[Callable[[], None]]
    ) -> None:
        while chunk := await reader.read(65_536):
            line = chunk.partition(b"\r\n")[0]
            if any(path in line for path in self.refuse):
                return
            if self.lose_answers_to and self.lose_answers_to in line:
                self.lose_answers_to = None
                lost.set()
            if self.meanwhile and self.meanwhile[0] in line:
                happens.append(self.meanwhile[1])
                self.meanwhile = None
            writer.write(chunk)
            await writer.drain()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lost: asyncio.Event, happens: list[Callable[[], None]]
    ) -> None:
        while chunk := await reader.read(65_536):
            while happens:
                happens.pop()()
            if lost.is_set():
                self.lost_count += 1
                return
            writer.write(chunk)
            await writer.drain()


@asynccontextmanager
async def proxied(site: Site) -> AsyncIterator[Proxy]:
    """A proxy in front of the site's server."""
    target = urlsplit(site.server.url)
    proxy = Proxy(target.hostname or "", target.port or 0)
    listening = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        listening.close()
        await proxy.cut()
        await listening.wait_closed()

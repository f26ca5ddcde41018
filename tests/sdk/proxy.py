"""The network between an instance and its server: a TCP proxy that does to connections what networks and proxies do.

It loses answers, refuses paths, answers itself, holds back, falls silent, alters and cuts. One request at a time on each.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from tests.sdk.conftest import Site


class Fate:
    """What becomes of the answers on one connection."""

    def __init__(self) -> None:
        self.is_lost = False
        self.is_held = False
        self.line = b""
        self.happens: list[Callable[[], None]] = []


class Proxy:
    """Listens on loopback, in front of one server."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self.url = ""
        self.lose_answers_to: bytes | None = None
        """The next answer to a request with this in its first line is lost, once."""
        self.lost_count = 0
        self.meanwhile: tuple[bytes, Callable[[], None]] | None = None
        """What happens, once, while the next answer to a request with this in its first line is on its way, or is lost."""
        self.refuse: tuple[bytes, ...] = ()
        """Requests with one of these in their first line get a closed connection."""
        self.answers: dict[bytes, bytes] = {}
        """Requests with one of these in their first line get this answer, from here."""
        self.holds: tuple[bytes, ...] = ()
        """Answers to these never come through, though their connection stands: a proxy that buffers."""
        self.silent: tuple[bytes, ...] = ()
        """Nothing more comes through on connections that were asked for these, though they stand: half open."""
        self.alter: Callable[[bytes], bytes] = bytes
        """What becomes of each piece of an answer; b"" cuts the connection there."""
        self.flowing = asyncio.Event()
        """Cleared, nothing comes through in either direction, and nothing is said of it: half open and silent."""
        self.flowing.set()
        self.asked: list[tuple[float, bytes]] = []
        """When each request came, on the monotonic clock, and its first line."""

    async def cut(self) -> None:
        """Close every connection."""
        for writer in list(self._writers):
            writer.close()

    async def end(self) -> None:
        """Close every connection, and wait until each is gone."""
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection has come."""
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            their_reader, their_writer = await asyncio.open_connection(*self._target)
        except BaseException:
            writer.transport.abort()
            raise
        self._writers |= {writer, their_writer}
        fate = Fate()
        ways = (self._ask(reader, writer, their_writer, fate), self._answer(their_reader, writer, fate))
        ends = [asyncio.create_task(way) for way in ways]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in (writer, their_writer):  # before anything is waited for: a second cancellation may come meanwhile
                self._writers.discard(one)
                one.close()
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
            for one in (writer, their_writer):
                with suppress(OSError):
                    await one.wait_closed()

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, their_writer: asyncio.StreamWriter, fate: Fate
    ) -> None:
        while chunk := await reader.read(65_536):
            await self.flowing.wait()
            line = chunk.partition(b"\r\n")[0]
            self.asked.append((time.monotonic(), line))
            if any(path in line for path in self.refuse):
                return
            if answer := next((answer for path, answer in self.answers.items() if path in line), None):
                writer.write(answer)
                await writer.drain()
                return
            fate.line = line
            if any(path in line for path in self.holds):
                fate.is_held = True
            if self.lose_answers_to and self.lose_answers_to in line:
                self.lose_answers_to = None
                fate.is_lost = True
            if self.meanwhile and self.meanwhile[0] in line:
                fate.happens.append(self.meanwhile[1])
                self.meanwhile = None
            their_writer.write(chunk)
            await their_writer.drain()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fate: Fate) -> None:
        while chunk := await reader.read(65_536):
            await self.flowing.wait()
            while fate.happens:
                fate.happens.pop()()
            if fate.is_lost:
                self.lost_count += 1
                return
            if fate.is_held or any(path in fate.line for path in self.silent):
                continue
            if not (altered := self.alter(chunk)):
                return
            writer.write(altered)
            await writer.drain()


@asynccontextmanager
async def proxied(site: Site) -> AsyncIterator[Proxy]:
    """A proxy in front of the site's server."""
    target = urlsplit(site.server.url)
    proxy = Proxy(target.hostname or "", target.port or 0)
    listening = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        listening.close()
        await proxy.end()
        await listening.wait_closed()

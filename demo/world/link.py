"""The network between one service and Rescind: a TCP proxy on loopback whose streams can be cut, silently.

A cut stream stays open and carries nothing, in either direction: what a half-open connection looks like from both ends. Calls
of other paths pass, so that the service goes on working with what it last knew.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress

STREAM = re.compile(rb"GET [^ ]*/stream[? ]")
LINE_BYTES_MAX = 2048
CHUNK_BYTES = 64 * 1024


class Link:
    """Forwards connections to `port`. `cut()` stalls the streams of now and later, `mend()` closes them: peers try anew."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._whole = asyncio.Event()
        self._whole.set()
        self._streams: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.stalled_count = 0

    async def open(self) -> int:
        """Listen; the port."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def stream_count(self) -> int:
        """Streams that pass here now, or stall."""
        return len(self._streams)

    def cut(self) -> None:
        """From now on no stream carries anything."""
        self._whole.clear()
        self.stalled_count = len(self._streams)

    def mend(self) -> None:
        """Streams pass again; those that were cut are closed."""
        for writer in self._streams:
            writer.transport.abort()
        self._whole.set()

    async def close(self) -> None:
        """Stop listening and close what is open."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # aborted connections are let go in the loop's next turn

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError, asyncio.CancelledError):
                await self._forward(reader, writer)
        finally:
            self._tasks.discard(task)
            self._streams.discard(writer)
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        directions = {
            asyncio.create_task(self._pump_out(reader, far_writer, writer)),
            asyncio.create_task(self._pump_in(far_reader, writer)),
        }
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
            far_writer.transport.abort()

    async def _pump_out(
        self, reader: asyncio.StreamReader, far_writer: asyncio.StreamWriter, writer: asyncio.StreamWriter
    ) -> None:
        """Forward requests. A connection that asks for a stream, at once or after other calls, is one from then on."""
        tail = b""
        while data := await reader.read(CHUNK_BYTES):
            if STREAM.search(tail + data):
                self._streams.add(writer)
            tail = data[-LINE_BYTES_MAX:]
            if writer in self._streams:
                await self._whole.wait()
            far_writer.write(data)
            await far_writer.drain()

    async def _pump_in(self, far_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await far_reader.read(CHUNK_BYTES):
            if writer in self._streams:
                await self._whole.wait()
            writer.write(data)
            await writer.drain()

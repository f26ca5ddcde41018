"""A proxy in front of PostgreSQL that cuts the line at a chosen message: before it is delivered, or before its answer is."""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import urlsplit, urlunsplit

CHUNK = 65_536


class Cutter:
    """Forwards to a server until told to cut."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._messages_left: int | None = None
        self._loses_answer = False
        self._lines: set[asyncio.Task[None]] = set()
        self.has_cut = False

    async def open(self) -> str:
        """Start; the URL that leads through."""
        self._server = await asyncio.start_server(self._line, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        user, at, _ = self._target.netloc.rpartition("@")
        return urlunsplit(self._target._replace(netloc=f"{user}{at}127.0.0.1:{port}"))

    async def close(self) -> None:
        """Stop, with every line."""
        assert self._server is not None
        self._server.close()
        for line in list(self._lines):
            line.cancel()
        await asyncio.gather(*self._lines, return_exceptions=True)
        await self._server.wait_closed()

    def arm(self, messages: int, *, loses_answer: bool) -> None:
        """Cut when that many more messages have come from clients: the last is swallowed, or delivered and its answer lost."""
        self._messages_left, self._loses_answer, self.has_cut = messages, loses_answer, False

    def disarm(self) -> None:
        """Forward everything from now on."""
        self._messages_left = None

    async def _line(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._lines.add(task)
        try:
            server_reader, server_writer = await asyncio.open_connection(self._target.hostname, self._target.port)
        except BaseException:
            writer.transport.abort()
            self._lines.discard(task)
            raise
        answers = asyncio.create_task(_copy(server_reader, writer))
        questions = asyncio.create_task(self._ask(reader, server_reader, server_writer, answers))
        try:
            await asyncio.wait((answers, questions), return_when=asyncio.FIRST_COMPLETED)
            if questions.done() or answers.cancelled():
                await asyncio.wait((questions,))
        finally:
            for copying in (answers, questions):
                copying.cancel()
            await asyncio.gather(answers, questions, return_exceptions=True)
            for one in (writer, server_writer):
                one.transport.abort()
            self._lines.discard(task)

    async def _ask(
        self,
        reader: asyncio.StreamReader,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
        answers: asyncio.Task[None],
    ) -> None:
        """From client to server, until the cut."""
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                cuts = self._counts_down()
                if cuts and self._loses_answer:
                    answers.cancel()
                    await asyncio.gather(answers, return_exceptions=True)
                if not cuts or self._loses_answer:
                    server_writer.write(data)
                    await server_writer.drain()
                if cuts:
                    if self._loses_answer:
                        await server_reader.read(1)  # it has acted on it
                    return

    def _counts_down(self) -> bool:
        if self._messages_left is None:
            return False
        self._messages_left -= 1
        if self._messages_left > 0:
            return False
        self._messages_left = None
        self.has_cut = True
        return True


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()

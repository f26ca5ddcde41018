"""The link that can be cut: streams go silent and stay open, other calls pass, a mended stream is closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest_asyncio

from demo.world.link import Link
from tests.waiting import until


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers every line with itself."""
    try:
        with suppress(ConnectionError):
            while line := await reader.readline():
                writer.write(line)
                await writer.drain()
    finally:
        writer.transport.abort()


@pytest_asyncio.fixture
async def link() -> AsyncIterator[Link]:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    link = Link(server.sockets[0].getsockname()[1])
    yield link
    await link.close()
    server.close()


async def connect(port: int, first: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(first)
    return reader, writer


async def says_nothing(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(0.2):
            await reader.readline()
    except TimeoutError:
        return True
    return False


async def test_a_cut_stream_is_silent_and_other_calls_pass(link: Link) -> None:
    port = await link.open()
    stream, stream_writer = await connect(port, b"GET /v1/environments/production/stream HTTP/1.1\r\n")
    assert await stream.readline()
    link.cut()
    stream_writer.write(b"hello\n")
    assert await says_nothing(stream)
    assert link.stalled_count == 1
    other, other_writer = await connect(port, b"POST /v1/environments/production/effects:admit HTTP/1.1\r\n")
    assert await other.readline()
    other_writer.close()
    stream_writer.close()


async def test_a_stream_on_a_connection_that_served_other_calls_is_cut_too(link: Link) -> None:
    port = await link.open()
    stream, stream_writer = await connect(port, b"GET /v1/self HTTP/1.1\r\n")
    assert await stream.readline()
    stream_writer.write(b"GET /v1/environments/production/stream?service=x HTTP/1.1\r\n")
    assert await stream.readline()
    link.cut()
    stream_writer.write(b"hello\n")
    assert await says_nothing(stream)
    stream_writer.close()


async def test_a_mended_stream_is_closed_so_that_its_peer_tries_anew(link: Link) -> None:
    port = await link.open()
    link.cut()
    stream, stream_writer = await connect(port, b"GET /stream HTTP/1.1\r\n")
    await until(lambda: link.stream_count == 1)
    assert await says_nothing(stream)
    link.mend()
    try:
        assert await stream.read() in (b"", b"GET /stream HTTP/1.1\r\n")
    except ConnectionResetError:
        pass
    again, again_writer = await connect(port, b"GET /stream HTTP/1.1\r\n")
    assert await again.readline() == b"GET /stream HTTP/1.1\r\n"
    for writer in (stream_writer, again_writer):
        writer.close()

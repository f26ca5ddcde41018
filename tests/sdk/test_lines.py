"""Lasting connections, against a server that does to them what servers and networks do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from rescind.lines import Lines, is_direct
from rescind.transport import AsyncApi

from tests.waiting import until

Behaviour = Callable[[asyncio.StreamWriter], None]


class Peer:
    """Answers every call on a connection with the next behaviour; remembers what it was asked."""

    def __init__(self, *behaviours: Behaviour) -> None:
        self._behaviours = list(behaviours)
        self.heads: list[str] = []
        self.connection_count = 0
        self.url = ""

    @asynccontextmanager
    async def lines(self, prefix: str = "") -> AsyncIterator[Lines]:
        """Connections to it."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}{prefix}"
        lines = Lines(self.url, {"authorization": "Bearer t"}, None)
        try:
            yield lines
        finally:
            lines.close()
            server.close()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connection_count += 1
        try:
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(int(line[16:]) for line in head.lower().split("\r\n") if line.startswith("content-length: "))
                await reader.readexactly(length)
                self.heads.append(head)
                self._behaviours.pop(0)(writer)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


def whole(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nRetry-After: 1\r\ncontent-length: 2\r\n\r\n{}")


def in_chunks(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n")


def and_close(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}")
    writer.close()


def cut(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{")
    writer.close()


def nonsense(writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-nothing\r\n\r\n")
    writer.close()


async def test_calls_share_a_connection_and_every_form_of_answer_is_read() -> None:
    peer = Peer(whole, in_chunks, whole)
    async with peer.lines("/below") as lines:
        for _ in range(3):
            status, headers, content = await lines.post("/v1/x", b"{}")
            assert (status, content) == (200, b"{}")
        assert headers["retry-after"] == "1"
    assert peer.connection_count == 1
    assert peer.heads[0].startswith("POST /below/v1/x HTTP/1.1\r\n")
    assert "authorization: Bearer t\r\n" in peer.heads[0].replace("Authorization", "authorization")


async def test_a_connection_that_was_closed_meanwhile_costs_a_new_one_and_no_error() -> None:
    peer = Peer(and_close, whole, cut, whole)
    async with peer.lines() as lines:
        for _ in range(3):
            assert (await lines.post("/", b"{}"))[2] == b"{}"
    assert peer.connection_count == 3, "closed by its answer, then cut in the middle of one"
    assert len(peer.heads) == 4, "what was cut was sent again"


@pytest.mark.parametrize("behaviour", [cut, nonsense])
async def test_an_answer_that_breaks_off_on_a_new_connection_is_an_error(behaviour: Behaviour) -> None:
    async with Peer(behaviour).lines() as lines:
        with pytest.raises(OSError, match=r"."):
            await lines.post("/", b"{}")


async def test_a_call_that_is_cancelled_leaves_no_half_read_connection_behind() -> None:
    peer = Peer(lambda writer: None, whole)
    async with peer.lines() as lines:
        first = asyncio.create_task(lines.post("/first", b"{}"))
        await until(lambda: len(peer.heads) == 1)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await lines.post("/second", b"{}"))[2] == b"{}"
    assert peer.connection_count == 2


async def test_a_call_under_way_when_the_connections_are_closed_leaves_none_behind() -> None:
    waiting: list[asyncio.StreamWriter] = []
    async with Peer(waiting.append, whole).lines() as lines:
        under_way = asyncio.create_task(lines.post("/", b"{}"))
        await until(lambda: len(waiting) == 1)
        lines.close()
        whole(waiting[0])
        assert (await under_way)[2] == b"{}"
        assert lines.files() == []
        assert (await lines.post("/", b"{}"))[2] == b"{}"
        assert lines.files() == [], "nor does a call that came late"


async def test_a_call_after_the_close_leaves_no_connection_behind() -> None:
    peer = Peer(whole, whole)
    async with peer.lines():
        api = AsyncApi(peer.url, "t")
        await api.send("POST", "/", {})
        assert len(api.files()) == 1
        await api.close()
        await api.send("POST", "/", {})
        assert api.files() == []


def test_a_proxy_of_the_environment_is_left_to_the_full_client(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert is_direct("http://server:8016")
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    assert not is_direct("http://server:8016")
    assert is_direct("https://server")
    monkeypatch.setenv("no_proxy", "server")
    assert is_direct("http://server:8016")

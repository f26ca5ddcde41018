"""HTTP/1.1 connections of the SDK's own: calls over a few that last, and a stream: an eighth of what a full client costs.

A call that may be repeated, and that its connection did not survive, is sent again, once, on a new one. h11 reads and writes
HTTP; a proxy in the environment (`HTTP_PROXY`, ...) is not for these.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
import urllib.request
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import h11

from rescind.addresses import Addresses

IDLE_MAX = 8
IDLE_SECONDS = 30.0
"""A connection that rested longer is closed: the server, or what stands between, may have forgotten it."""
REQUESTS_MAX = 256
CONNECT_SECONDS = 2.0
CHUNK_BYTES = 256 * 1024
BODY_BYTES_MAX = 64 * 1024 * 1024

Reply = tuple[int, dict[str, str], bytes]
"""Status, headers in lower case, body."""


class Line:
    """One connection, for one call at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT)
        self.rested_at = 0.0
        descriptor = writer.get_extra_info("socket").fileno()
        self.file = (descriptor, os.fstat(descriptor).st_ino)
        """Descriptor and inode: a child of this process gives up its share of it."""

    @property
    def is_fresh(self) -> bool:
        """Whether it may carry another call."""
        rested_seconds = time.monotonic() - self.rested_at
        return self._http.our_state is h11.IDLE and not self._reader.at_eof() and rested_seconds < IDLE_SECONDS

    async def begin(self, request: h11.Request, body: bytes) -> tuple[int, dict[str, str]]:
        """Send, and read the answer's status and headers. Raises `OSError`, also for what is no HTTP."""
        http = self._http
        parts = (http.send(request), http.send(h11.Data(data=body)) if body else b"", http.send(h11.EndOfMessage()))
        self._writer.write(b"".join(part for part in parts if part))
        await self._writer.drain()
        while True:
            match event := await self._event():
                case h11.Response():
                    return event.status_code, {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
                case h11.ConnectionClosed():
                    raise ConnectionResetError("the connection was closed before the answer")

    async def more(self) -> bytes:
        """The next part of the answer's body, b"" at its end. Raises as `begin` does."""
        match event := await self._event():
            case h11.Data():
                return bytes(event.data)
            case h11.EndOfMessage():
                return b""
        raise ConnectionResetError("the connection was closed within the answer")

    async def rest(self) -> bytes:
        """The whole body; the connection rests after it. Raises as `begin` does."""
        content = bytearray()
        while part := await self.more():
            content += part
            if len(content) > BODY_BYTES_MAX:
                raise ConnectionError(f"an answer of more than {BODY_BYTES_MAX} bytes")
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        self.rested_at = time.monotonic()
        return bytes(content)

    async def _event(self) -> object:
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(CHUNK_BYTES))
        except h11.RemoteProtocolError as error:
            raise ConnectionError(str(error)) from error
        return event

    def close(self) -> None:
        """Let go of the connection. Whoever reads from it finds its end."""
        self._writer.close()

    def abort(self) -> None:
        """The same at once, whatever is still to be written."""
        self._writer.transport.abort()


class Lines:
    """The connections to one server, on one event loop. `context` is for a URL of https."""

    def __init__(self, url: str, headers: dict[str, str], context: ssl.SSLContext | None) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._prefix = parts.path
        self._context = context if parts.scheme == "https" else None
        self._headers = [("host", parts.netloc.rpartition("@")[2]), *headers.items()]
        self._addresses = Addresses(self._host, self._port)
        self._idle: list[Line] = []
        self._is_closed = False
        self._open: set[Line] = set()
        self._requests: dict[tuple[str, str, int], h11.Request] = {}
        """What was sent before, checked and written out once: most calls differ in their body alone."""

    async def post(self, path: str, body: bytes) -> Reply:
        """The reply to a call that may be sent twice. Raises `OSError`."""
        return await self.call("POST", path, body)

    async def call(
        self, method: str, path: str, body: bytes = b"", headers: Iterable[tuple[str, str]] = (), *, may_repeat: bool = True
    ) -> Reply:
        """The reply. Raises `OSError`."""
        request = self._request(method, path, body, headers)
        if (line := self._rested()) is not None:
            try:
                return await self._on(line, request, body)
            except OSError:  # it may have been closed since its last call
                if not may_repeat:
                    raise
        return await self._on(await self._connect(), request, body)

    async def stream(self, path: str, headers: Iterable[tuple[str, str]]) -> tuple[Line, int, dict[str, str]]:
        """A connection of its own on which the answer has begun, its status and headers; `release` it. Raises `OSError`."""
        request = self._request("GET", path, b"", headers)
        line = await self._connect()
        try:
            return line, *await line.begin(request, b"")
        except BaseException:
            self.release(line)
            raise

    def release(self, line: Line) -> None:
        """Close it."""
        self._open.discard(line)
        line.close()

    def close(self) -> None:
        """Close what rests; a connection whose call is under way, or comes later, is closed after it."""
        self._is_closed = True
        while self._idle:
            self.release(self._idle.pop())

    def files(self) -> list[tuple[int, int]]:
        """Descriptor and inode of every connection that is open."""
        return [line.file for line in list(self._open)]

    def tasks(self) -> list[asyncio.Task[Any]]:
        """What is under way for all calls."""
        return self._addresses.tasks()

    def _request(self, method: str, path: str, body: bytes, headers: Iterable[tuple[str, str]]) -> h11.Request:
        more = tuple(headers)
        kind = (method, path, len(body))
        if not more and (known := self._requests.get(kind)) is not None:
            return known
        length = [("content-length", str(len(body)))] if body or method in ("POST", "PUT") else []
        named = dict([*self._headers, *more, *length])
        request = h11.Request(method=method, target=self._prefix + path, headers=list(named.items()))
        if not more and len(self._requests) < REQUESTS_MAX:
            self._requests[kind] = request
        return request

    async def _connect(self) -> Line:
        """A new connection, to the first address that answers. Raises `OSError`."""
        failure: OSError | None = None
        for address in await self._addresses.all():
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    reader, writer = await asyncio.open_connection(
                        address, self._port, ssl=self._context, server_hostname=self._host if self._context else None
                    )
            except OSError as error:  # TimeoutError is one
                failure = error if str(error) else OSError(f"{address} did not answer in {CONNECT_SECONDS:.0f} s")
                continue
            self._addresses.answered(address)
            line = Line(reader, writer)
            self._open.add(line)
            return line
        raise failure or OSError(f"{self._host} has no address")

    def _rested(self) -> Line | None:
        while self._idle:
            line = self._idle.pop()
            if line.is_fresh:
                return line
            self.release(line)
        return None

    async def _on(self, line: Line, request: h11.Request, body: bytes) -> Reply:
        try:
            status, headers = await line.begin(request, body)
            content = await line.rest()
        except BaseException:
            self.release(line)
            raise
        if line.is_fresh and len(self._idle) < IDLE_MAX and not self._is_closed:
            self._idle.append(line)
        else:
            self.release(line)
        return status, headers, content


def is_direct(url: str) -> bool:
    """Whether no proxy of the environment stands between this process and `url`."""
    parts = urlsplit(url)
    proxies = urllib.request.getproxies()
    is_proxied = any(proxies.get(name) for name in (parts.scheme, "all"))
    return not is_proxied or bool(urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]))

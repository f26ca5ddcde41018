"""Lasting HTTP/1.1 connections for what goes to the server often: an eighth of what a call costs through a full client.

For calls that may be repeated, as every batch of effects may: one that a connection did not survive is sent again, once, on
a new one. h11 reads and writes HTTP; a proxy in the environment (`HTTP_PROXY`, ...) is not for these.
"""

from __future__ import annotations

import asyncio
import ssl
import time
import urllib.request
from urllib.parse import urlsplit

import h11

IDLE_MAX = 8
IDLE_SECONDS = 30.0
"""A connection that rested longer is closed: the server, or what stands between, may have forgotten it."""
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

    @property
    def is_fresh(self) -> bool:
        """Whether it may carry another call."""
        rested_seconds = time.monotonic() - self.rested_at
        return self._http.our_state is h11.IDLE and not self._reader.at_eof() and rested_seconds < IDLE_SECONDS

    async def exchange(self, request: h11.Request, body: bytes) -> Reply:
        """Send and read the whole answer. Raises `OSError` and `h11.RemoteProtocolError`."""
        http = self._http
        parts = (http.send(request), http.send(h11.Data(data=body)), http.send(h11.EndOfMessage()))
        self._writer.write(b"".join(part for part in parts if part))
        await self._writer.drain()
        status, headers, content = 0, {}, bytearray()
        while True:
            match event := http.next_event():
                case h11.NEED_DATA:
                    http.receive_data(await self._reader.read(CHUNK_BYTES))
                case h11.Response():
                    status = event.status_code
                    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
                case h11.Data():
                    content += event.data
                    if len(content) > BODY_BYTES_MAX:
                        raise h11.RemoteProtocolError(f"an answer of more than {BODY_BYTES_MAX} bytes")
                case h11.EndOfMessage():
                    break
                case h11.ConnectionClosed():
                    raise ConnectionResetError("the connection was closed before the answer")
        if http.our_state is h11.DONE and http.their_state is h11.DONE:
            http.start_next_cycle()
        self.rested_at = time.monotonic()
        return status, headers, bytes(content)

    def close(self) -> None:
        """Let go of the connection."""
        self._writer.close()


class Lines:
    """The connections to one server, on one event loop. `context` is for a URL of https."""

    def __init__(self, url: str, headers: dict[str, str], context: ssl.SSLContext | None) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._prefix = parts.path
        self._context = context if parts.scheme == "https" else None
        self._headers = [("host", parts.netloc.rpartition("@")[2]), *headers.items()]
        self._idle: list[Line] = []

    async def post(self, path: str, body: bytes) -> Reply:
        """The reply to a call that may be sent twice. Raises `OSError`."""
        headers = [*self._headers, ("content-length", str(len(body)))]
        request = h11.Request(method="POST", target=self._prefix + path, headers=headers)
        if (line := self._rested()) is not None:
            try:
                return await self._on(line, request, body)
            except OSError:
                pass  # it may have been closed since its last call
        reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._context)
        return await self._on(Line(reader, writer), request, body)

    def close(self) -> None:
        """Close what rests."""
        while self._idle:
            self._idle.pop().close()

    def _rested(self) -> Line | None:
        while self._idle:
            line = self._idle.pop()
            if line.is_fresh:
                return line
            line.close()
        return None

    async def _on(self, line: Line, request: h11.Request, body: bytes) -> Reply:
        try:
            reply = await line.exchange(request, body)
        except h11.RemoteProtocolError as error:
            line.close()
            raise ConnectionError(str(error)) from error
        except BaseException:
            line.close()
            raise
        if line.is_fresh and len(self._idle) < IDLE_MAX:
            self._idle.append(line)
        else:
            line.close()
        return reply


def is_direct(url: str) -> bool:
    """Whether no proxy of the environment stands between this process and `url`."""
    parts = urlsplit(url)
    proxies = urllib.request.getproxies()
    is_proxied = any(proxies.get(name) for name in (parts.scheme, "all"))
    return not is_proxied or bool(urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]))

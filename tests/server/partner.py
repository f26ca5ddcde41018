"""A partner of ours: a real HTTP server that counts the webhooks it takes, by id."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Partner:
    """What it took, and how a connection reaches it."""

    def __init__(self) -> None:
        self.taken: dict[str, int] = {}
        self.url = ""

    @property
    def connection(self) -> dict[str, object]:
        """The body that sets the connection up."""
        return {"connection": {"type": "webhook", "url": self.url}, "reason": "new"}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                headers = dict(line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:] if ": " in line)
                await reader.readexactly(int(headers.get("content-length", "0")))
                self.taken[headers["webhook-id"]] = self.taken.get(headers["webhook-id"], 0) + 1
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def listening_partner() -> AsyncIterator[Partner]:
    """A partner that listens on loopback."""
    partner = Partner()
    server = await asyncio.start_server(partner.serve, "127.0.0.1", 0)
    partner.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield partner
    server.close()

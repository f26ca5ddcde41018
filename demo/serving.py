"""A process of the demo: serves on a free port of loopback, says so in one line, ends when its parent does.

The parent holds the other end of standard input; when that closes, however the parent went, the process stops.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading

import msgspec
import uvicorn

from demo.asgi import App

GRACEFUL_SHUTDOWN_SECONDS = 1


class Server(uvicorn.Server):
    """uvicorn's server that tells when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        self.listening.set()


async def serve(app: App, **ports: int) -> None:
    """Serve until the parent closes standard input. Prints `{"http": PORT, ...}` with the other `ports` when ready."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_SECONDS,
        server_header=False,
    )
    server = Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await server.listening.wait()
    sys.stdout.write(msgspec.json.encode({"http": listener.getsockname()[1], **ports}).decode() + "\n")
    sys.stdout.flush()
    await _parent_gone()
    server.should_exit = True
    await serving


async def _parent_gone() -> None:
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()

    def watch() -> None:
        while sys.stdin.buffer.read(1024):
            pass
        loop.call_soon_threadsafe(gone.set)

    threading.Thread(target=watch, daemon=True, name="parent").start()
    await gone.wait()

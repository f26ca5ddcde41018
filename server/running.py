"""uvicorn around an application: a socket of our own, a graceful stop in bounded time although streams are open."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from runtime.errors import SettingsError

STOP_SECONDS = 5
BACKLOG = 2048
KEEP_ALIVE_SECONDS = 75
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def bind(host: str, port: int, setting: str = "RESCIND_HTTP_PORT") -> socket.socket:
    """A listening socket's address, taken before anything is started. Raises `SettingsError` where it is in use: `setting`
    is the variable that chooses another."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise SettingsError([f"cannot listen on {host}:{port}: {error.strerror or error}; {setting} chooses another"]) from None
    bound.set_inheritable(False)
    return bound


class Running(uvicorn.Server):
    """One server on one loop. `before_stop` ends what would never end by itself: streams, long polls."""

    def __init__(self, app: Any, before_stop: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app, interface="asgi3", loop="none", http="httptools", ws="none", lifespan="off", log_config=None,
                access_log=False, server_header=False, backlog=BACKLOG, timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=STOP_SECONDS,
            )
        )  # fmt: skip
        self._before_stop = before_stop
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections from here on."""
        await super().startup(sockets)
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop: no new connections, streams end, requests finish, all of it within `STOP_SECONDS`."""
        self._before_stop()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's business, not the server's: `stop_on_signals` hears them."""
        yield


@contextlib.contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` at SIGINT and SIGTERM, in the loop that runs."""
    loop = asyncio.get_running_loop()
    for name in SIGNALS:
        loop.add_signal_handler(name, stop)
    try:
        yield
    finally:
        for name in SIGNALS:
            loop.remove_signal_handler(name)

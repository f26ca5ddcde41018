"""Readers of the stream that do nothing else: when each one's socket has the change, in one process, without an SDK.

What the server and the kernel take is left when the readers' own work is next to nothing. They acknowledge nothing.
"""

from __future__ import annotations

import selectors
import socket
import sys
import time
from urllib.parse import urlsplit

import msgspec

from load.system import ENVIRONMENT

CHANGE = b"event: change\n"
READY_SECONDS = 30.0
READ_BYTES = 65_536
REQUEST = (
    "GET /v1/environments/{environment}/stream?service=load&instance={instance} HTTP/1.1\r\nhost: {host}\r\n"
    "authorization: Bearer {token}\r\naccept: text/event-stream\r\n\r\n"
)


class Sockets:
    """The streams of one process."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._selector = selectors.DefaultSelector()
        self._seen: list[float] = []

    def run(self, url: str, token: str, name: str) -> None:
        """Open them, then print the times of every flip, until the input ends."""
        for number in range(self._count):
            self._open(url, token, f"{name}-{number}")
        print("ready", flush=True)
        while sys.stdin.readline():
            while len(self._seen) < self._count:
                self._read()
            print(msgspec.json.encode(self._seen).decode(), flush=True)
            self._seen = []

    def _open(self, url: str, token: str, instance: str) -> None:
        parts = urlsplit(url)
        one = socket.create_connection((parts.hostname, parts.port), READY_SECONDS)
        one.sendall(REQUEST.format(environment=ENVIRONMENT, instance=instance, host=parts.netloc, token=token).encode())
        head = b""
        while b"event: " not in head:
            if not (part := one.recv(READ_BYTES)):
                raise SystemExit("a stream ended at its beginning")
            head += part
        one.setblocking(False)
        self._selector.register(one, selectors.EVENT_READ)

    def _read(self) -> None:
        for key, _ in self._selector.select():
            assert isinstance(key.fileobj, socket.socket)
            if CHANGE in key.fileobj.recv(READ_BYTES):
                self._seen.append(time.monotonic())

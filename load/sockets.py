"""Readers of the stream that do nothing else: when each one's socket has the change, in one process, without an SDK.

What the server and the kernel take is left when the readers' own work is next to nothing. They acknowledge nothing.
"""

from __future__ import annotations

import os
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
        self._selector.register(sys.stdin, selectors.EVENT_READ)
        print("ready", flush=True)
        asked_count = 0
        while (asked := self._read()) is not None:
            asked_count += asked
            if asked_count and len(self._seen) == self._count:
                print(msgspec.json.encode(self._seen).decode(), flush=True)
                self._seen, asked_count = [], asked_count - 1

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

    def _read(self) -> int | None:
        """Take in what there is. How many lines of input came; None at its end."""
        asked = 0
        for key, _ in self._selector.select():
            if not isinstance(key.fileobj, socket.socket):
                if not (lines := os.read(key.fd, READ_BYTES)):
                    return None
                asked += lines.count(b"\n")
            elif CHANGE in key.fileobj.recv(READ_BYTES):
                self._seen.append(time.monotonic())
        return asked

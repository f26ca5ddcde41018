"""A server's addresses, looked up so that a name server that hangs holds up nothing (`getaddrinfo` cannot be cancelled).

One look-up at a time, in a daemon thread, shared by all who ask; while it hangs or fails, the addresses last known are used.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket

from rescind.threads import in_thread

LOOK_UP_SECONDS = 1.5


class Addresses:
    """Of one host, on one event loop."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._known: list[str] = [host] if is_address(host) else []
        self._is_fixed = bool(self._known)
        self._asking: asyncio.Task[list[str]] | None = None

    async def all(self) -> list[str]:
        """As text, the one that answered last first. Raises `OSError` where none are known, in 1.5 s at most."""
        if self._is_fixed:
            return self._known
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(in_thread(look_up, self._host, self._port))
            self._asking.add_done_callback(note)
        try:
            async with asyncio.timeout(LOOK_UP_SECONDS):
                found = await asyncio.shield(self._asking)
        except OSError as error:  # TimeoutError is one
            if self._known:
                return self._known
            raise OSError(f"{self._host} was not looked up: {str(error) or 'the name server hangs'}") from error
        last = self._known[:1]
        self._known = [address for address in last if address in found] + [one for one in found if one not in last]
        return self._known

    def tasks(self) -> list[asyncio.Task[list[str]]]:
        """The look-up that is under way, or was the last."""
        return [self._asking] if self._asking is not None else []

    def answered(self, address: str) -> None:
        """Try this one first from now on."""
        self._known = [address, *(one for one in self._known if one != address)]


def note(task: asyncio.Task[list[str]]) -> None:
    """A look-up may fail when nobody waits for it any more."""
    if not task.cancelled():
        task.exception()


def look_up(host: str, port: int) -> list[str]:
    """The addresses of a name, each once. Blocks. Raises `OSError`."""
    return list(dict.fromkeys(str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))


def is_address(host: str) -> bool:
    """Whether it needs no look-up."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True

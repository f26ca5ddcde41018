"""The simulated server and the network to its instances: what an SDK asks through `AsyncApi`, in virtual time.

Delays are drawn from log-normal distributions; `load/propagation.py` and `load/three_services.py` measure the real ones.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from msgspec import Struct
from rescind import wire
from rescind.answers import Answer
from rescind.errors import Unreachable
from rescind.events import EventStream
from rescind.wire import Change, Kill, Revision, Snapshot, SnapshotFlag

from load.services.service import FLAG

ENVIRONMENT = "production"
DEFINITION = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on"}
KILLED = {**DEFINITION, "defaultVariant": "off", "metadata": {"rescind.killed": True}}


class Delay(Struct, frozen=True):
    """A log-normal time: its median in seconds, and how far it spreads."""

    median: float
    spread: float

    def drawn(self, chance: random.Random) -> float:
        """One of them."""
        return self.median * chance.lognormvariate(0.0, self.spread)


PUSH = Delay(0.025, 0.7)
"""From the commit to an instance's evaluator."""
FETCH = Delay(0.006, 0.7)
"""A catch-up: to the server, a look at PostgreSQL, and back."""
HOP = Delay(0.0015, 0.5)
"""Between two services, one way."""
WORK = Delay(0.004, 0.5)
"""What a service does between two evaluations."""


class Server:
    """Holds the flag, and pushes each of its changes to every stream."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.snapshot = Snapshot(environment=ENVIRONMENT, revision=Revision(1, 1), flags={FLAG: flag_at(1, False)})
        self._streams: list[asyncio.Queue[bytes]] = []

    def flip(self) -> None:
        """Kill the flag, or lift its kill."""
        before = self.snapshot
        n = before.revision.n + 1
        is_kill = not before.flags[FLAG].kills
        flags = {FLAG: flag_at(n, is_kill)}
        self.snapshot = Snapshot(environment=ENVIRONMENT, revision=Revision(1, n), flags=flags)
        change = Change(
            environment=ENVIRONMENT, previous=before.revision, revision=self.snapshot.revision, flags=flags, kill=is_kill
        )
        frame = framed("change", wire.encode(change))
        for stream in self._streams:
            asyncio.get_running_loop().call_later(PUSH.drawn(self._chance), stream.put_nowait, frame)

    def stream(self) -> asyncio.Queue[bytes]:
        """All that is pushed from now on, the snapshot first."""
        stream: asyncio.Queue[bytes] = asyncio.Queue()
        stream.put_nowait(framed("snapshot", wire.encode(self.snapshot)))
        self._streams.append(stream)
        return stream

    def silence(self, stream: asyncio.Queue[bytes]) -> None:
        """The stream stands, and nothing comes through any more."""
        self._streams.remove(stream)


class Network:
    """What one instance has of `rescind.transport.AsyncApi`, as far as a follower uses it."""

    def __init__(self, server: Server, chance: random.Random) -> None:
        self._server = server
        self._chance = chance
        self._stream: asyncio.Queue[bytes] | None = None
        self._is_cut = False
        self.environment: str | None = ENVIRONMENT
        self.url = "http://simulated"
        self.fetch_count = 0

    def cut(self, *, fetches: bool) -> None:
        """Nothing comes through the stream from now on; with `fetches`, they are not answered either."""
        assert self._stream is not None
        self._server.silence(self._stream)
        self._is_cut = fetches

    def within(self, path: str) -> str:
        """As `AsyncApi.within`."""
        return f"/v1/environments/{ENVIRONMENT}{path}"

    async def send(self, method: str, path: str, *, timeout_seconds: float, **more: Any) -> Answer:
        """The snapshot. Raises `Unreachable` after the timeout where this instance is cut off."""
        self.fetch_count += 1
        if self._is_cut:
            await asyncio.sleep(timeout_seconds)
            raise Unreachable("cut off")
        half = FETCH.drawn(self._chance) / 2
        await asyncio.sleep(half)
        content = wire.encode(self._server.snapshot)
        await asyncio.sleep(half)
        return Answer(status=200, headers={}, content=content)

    @asynccontextmanager
    async def events(self, path: str, **more: Any) -> AsyncIterator[EventStream]:
        """The stream. It is never found dead: the runs are shorter than that takes."""
        self._stream = self._server.stream()
        yield EventStream("simulated", self._stream.get)


def flag_at(n: int, is_killed: bool) -> SnapshotFlag:
    """The flag at a revision: every kill and every lift is an epoch."""
    kills = [Kill(rollback_id=str(n), off_variant="off", closes_epoch=n - 1, revision=Revision(1, n))] if is_killed else []
    return SnapshotFlag(definition=KILLED if is_killed else DEFINITION, epoch=n, kills=kills)


def framed(kind: str, data: bytes) -> bytes:
    """As it stands in a stream (WHATWG HTML, section 9.2)."""
    return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"

"""Staying current: the stream while there is one, polling where there is not, and never back a revision (P2).

The peer sends a heartbeat every few seconds; after two that were missed the connection is dead, whatever TCP says.
Between attempts: full jitter from 0.25 s to 30 s, honouring Retry-After.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

import msgspec

from rescind.clock import Clock, full_jitter_seconds
from rescind.current import NOTHING, Applied, Current, DoesNotFollow
from rescind.errors import ApiError, Unreachable
from rescind.packed import PackedSnapshot, read_change, reading
from rescind.sse import Event
from rescind.transport import AsyncApi
from rescind.wire import Heartbeat, Revision

logger = logging.getLogger("rescind.stream")


class Fetched(msgspec.Struct, frozen=True):
    """What a fetch asked for, and which revision the server has."""

    asked: Revision | None
    revision: Revision

    def denies(self, revision: Revision) -> bool:
        """Whether the server said that it has no such revision: an answer to a weaker question says nothing."""
        return self.asked is not None and self.asked >= revision > self.revision


HEARTBEATS_MISSED_MAX = 2
SILENCE_SLACK_SECONDS = 1.0
POLL_SECONDS = 5.0
SNAPSHOT_TIMEOUT_SECONDS = 10.0

_heartbeat = msgspec.json.Decoder(Heartbeat)


class Follower:
    """Keeps `current` current. On the loop, `applied(what, how)` is called after each step forward, and `turned()` whenever the
    stream was found or lost, or an attempt failed."""

    def __init__(
        self,
        api: AsyncApi,
        current: Current,
        clock: Clock,
        who: dict[str, str],
        applied: Callable[[Applied, str], None],
        turned: Callable[[], None],
    ) -> None:
        self._api = api
        self._current = current
        self._clock = clock
        self._who = who
        self._applied = applied
        self._turned = turned
        self._silence_seconds = 5.0 * HEARTBEATS_MISSED_MAX + SILENCE_SLACK_SECONDS
        self._etag = ""
        self._moved = asyncio.Event()
        self._fetching: asyncio.Task[Fetched | None] | None = None
        self.connected = False
        self.heard_at: float | None = None
        """When the server last said something, on the monotonic clock."""
        self.tried = asyncio.Event()
        """Set once the first attempt has ended, well or not."""
        self.refused = False
        """The server's last word was that this token may not."""
        self.last_error = ""
        self.fault_count = 0
        self._warned = False

    async def run(self) -> None:
        """Follow until cancelled."""
        failures = 0
        while True:
            started = self._current.revision
            retry_after = 0.0
            try:
                await self._follow()
            except (Unreachable, ApiError) as error:
                self.failed(error)
                retry_after = (error.retry_after_seconds or 0.0) if isinstance(error, ApiError) else 0.0
            except Exception as error:  # the loop must survive whatever a peer sends
                self.fault_count += 1
                self.last_error = f"{type(error).__name__}: {error}"
                logger.exception("the stream broke in a way that was not foreseen")
            was_connected, self.connected = self.connected, False
            failures = 0 if was_connected or self._current.revision > started else failures + 1
            self.tried.set()
            self._turned()
            await self._pause(max(retry_after, full_jitter_seconds(self._clock, failures)))

    def failed(self, error: Unreachable | ApiError) -> None:
        """The server refused or could not be reached: said once, until it was heard again."""
        self.last_error = str(error)
        refused = isinstance(error, ApiError) and error.status in (401, 403)
        self.refused = refused
        if self._warned or not (refused or isinstance(error, Unreachable)):
            return
        self._warned = True
        logger.warning(
            "%s %s (%s): flags are %s until it does, effects are not admitted",
            self._api.url,
            "refuses this token" if refused else "does not answer",
            error,
            "their defaults" if self._current.snapshot is None else "the last known ones",
        )

    async def fetch(self, at_least: Revision | None = None) -> Fetched | None:
        """Fetch the snapshot, all who ask sharing one request; or None where no answer came."""
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.ensure_future(self._fetch(at_least))
        return await asyncio.shield(self._fetching)

    async def reach(self, revision: Revision) -> None:
        """Return once `current` is at `revision` or later."""
        while self._current.revision < revision:
            self._moved.clear()
            await self._moved.wait()

    async def _pause(self, seconds: float) -> None:
        """Wait before the next attempt to stream; where that takes long, poll meanwhile."""
        until = self._clock.monotonic() + seconds
        while (left := until - self._clock.monotonic()) > 0:
            await asyncio.sleep(min(left, POLL_SECONDS))
            if left > POLL_SECONDS:
                await self.fetch()
                self._turned()

    async def _follow(self) -> None:
        revision = self._current.revision
        headers = {} if revision == NOTHING else {"last-event-id": str(revision)}
        async with self._api.events(
            self._api.within("/stream"), params=dict(self._who), headers=headers, silence_seconds=self._silence_seconds
        ) as events:
            await self._read(events)

    async def _read(self, events: AsyncIterator[Event]) -> None:
        while True:
            try:
                async with asyncio.timeout(self._silence_seconds):
                    event = await anext(events)
            except StopAsyncIteration:
                self.last_error = "the server ended the stream"
                return
            except TimeoutError:
                raise Unreachable(f"{self._api.url} was silent for {self._silence_seconds:.0f} s") from None
            self._heard()
            if not self.connected:
                self.connected = True
                self._turned()
            if not await self._take(event):
                await self.fetch(self._current.revision)
            self.tried.set()

    async def _take(self, event: Event) -> bool:
        """Take one event in; False where it does not follow or cannot be read, and a snapshot is needed.

        A snapshot of thousands of flags takes milliseconds to split off, to read and to install: the loop comes round between.
        """
        try:
            match event.event:
                case "snapshot":
                    await asyncio.sleep(0)
                    snapshot = await read_between(event.data)
                    self._done(self._current.take_snapshot(snapshot), "push")
                case "change":
                    self._done(self._current.take_change(read_change(event.data)), "push")
                case "heartbeat":
                    beat = _heartbeat.decode(event.data)
                    self._silence_seconds = beat.interval_seconds * HEARTBEATS_MISSED_MAX + SILENCE_SLACK_SECONDS
                    return beat.revision <= self._current.revision
        except DoesNotFollow:
            return False
        except msgspec.MsgspecError as error:
            self.fault_count += 1
            self.last_error = f"an event that cannot be read: {error}"
            logger.warning("%s; keeping revision %s and asking for the snapshot", self.last_error, self._current.revision)
            return False
        return True

    async def _fetch(self, at_least: Revision | None) -> Fetched | None:
        try:
            answer = await self._api.send(
                "GET",
                self._api.within("/snapshot"),
                params={**self._who, "at_least": str(at_least) if at_least else None},
                headers={"if-none-match": self._etag} if self._etag else {},
                timeout_seconds=SNAPSHOT_TIMEOUT_SECONDS,
            )
            self._heard()
            if answer.status == 304:
                return Fetched(at_least, self._current.revision)
            snapshot = await read_between(answer.content)
        except (Unreachable, ApiError, msgspec.MsgspecError) as error:
            self.last_error = str(error)
            return None
        self._done(self._current.take_snapshot(snapshot), "poll" if at_least is None else "catch-up")
        self._etag = answer.headers.get("etag", "")
        return Fetched(at_least, snapshot.revision)

    def _heard(self) -> None:
        self.heard_at = self._clock.monotonic()
        self._warned = self.refused = False

    def _done(self, applied: Applied | None, how: str) -> None:
        if applied is None:
            return
        self._etag = f'"{applied.revision}"' if how == "push" else self._etag
        self._moved.set()
        self._applied(applied, how)


async def read_between(content: bytes | str) -> PackedSnapshot:
    """The snapshot, read while the loop comes round. Raises `msgspec.MsgspecError` for what is none."""
    steps = reading(content)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            snapshot: PackedSnapshot = done.value
            await asyncio.sleep(0)
            return snapshot
        await asyncio.sleep(0)

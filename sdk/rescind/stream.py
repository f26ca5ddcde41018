"""Staying current: the stream while there is one, polling where there is not, and never back a revision (P2).

The peer sends a heartbeat every few seconds; after two that were missed the connection is dead, whatever TCP says.
Between attempts: full jitter from 0.25 s to 30 s, after what Retry-After asks for. Where no stream comes through (a proxy that
buffers, one that cuts), the snapshot is asked for every five seconds, for the price of an ETag while nothing changes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from rescind.answers import Answer, age_of
from rescind.clock import Clock, full_jitter_seconds
from rescind.current import NOTHING, Applied, Current, DoesNotFollow
from rescind.errors import ApiError, Unreachable
from rescind.events import EventStream
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
INTERVAL_SECONDS_MIN = 0.5
INTERVAL_SECONDS_MAX = 60.0
PUSH, POLL, CATCH_UP, REPLY = "push", "poll", "catch-up", "reply"
"""How a revision was learned: by the stream, which may have it fetched; by asking when nobody said anything; by the header of a
request; by a reply: its header, or what the server answered to something else."""
POLL_SECONDS = 5.0
FIRST_POLL_SECONDS = 1.0
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
        self._not_before = 0.0
        """The server asked not to be asked before, on the monotonic clock."""
        self._moved = asyncio.Event()
        self._fetching: asyncio.Task[Fetched | None] | None = None
        self._asked = NOTHING
        """What the fetch that is under way asked for, at least."""
        self.connected = False
        """There is a stream, and it speaks."""
        self.polled = False
        """There is none, and the last poll was answered."""
        self.found_count = 0
        """How often a stream was found, or polling began: each time it may be another server."""
        self.heard_at: float | None = None
        """When the server last said something, on the monotonic clock."""
        self.tried = asyncio.Event()
        """Set once the first attempt has ended, well or not."""
        self.refused = False
        """The server's last word was that this token may not."""
        self.last_error = ""
        self.fault_count = 0
        self._warned = False

    @property
    def reached(self) -> bool:
        """Whether the server is heard, in whichever way: what is held is as new as it gets."""
        return self.connected or self.polled

    async def run(self) -> None:
        """Follow the stream until cancelled."""
        failures = 0
        while True:
            started = self._current.revision
            try:
                await self._follow()
            except (Unreachable, ApiError) as error:
                self.failed(error)
            except Exception as error:  # the loop must survive whatever a peer sends
                self.fault_count += 1
                self.last_error = f"{type(error).__name__}: {error}"
                logger.exception("the stream broke in a way that was not foreseen")
            was_connected, self.connected = self.connected, False
            failures = 0 if was_connected or self._current.revision > started else failures + 1
            self.tried.set()
            self._turned()
            await asyncio.sleep(self._asked_pause() + full_jitter_seconds(self._clock, failures))

    async def poll(self) -> None:
        """Ask every few seconds for as long as there is no stream, until cancelled. Soon at first: someone may wait."""
        pause = FIRST_POLL_SECONDS
        while True:
            await asyncio.sleep(pause * (0.8 + 0.4 * self._clock.random()))
            pause, was_polled = POLL_SECONDS, self.polled
            is_due = not self.connected and not self._asked_pause()
            is_answered = is_due and await self.fetch() is not None
            self.polled = is_answered and not self.connected
            self.found_count += self.polled and not was_polled
            if is_answered:
                self.tried.set()
            if self.polled or was_polled:
                self._turned()

    def failed(self, error: Unreachable | ApiError) -> None:
        """The server refused or could not be reached: said once, until it was heard again."""
        self.last_error = str(error)
        if isinstance(error, ApiError) and error.retry_after_seconds:
            self._not_before = self._clock.monotonic() + error.retry_after_seconds
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

    async def fetch(self, at_least: Revision | None = None, how: str = POLL) -> Fetched | None:
        """Fetch the snapshot, all who ask for as much sharing one request; or None where no answer came.

        One that is under way for less is waited for: its answer may be enough, and if not, all who wait share the next. An
        acknowledgement will say `how` it was found to be needed, by the first one who asked.
        """
        while self.is_fetching() and at_least is not None and at_least > self._asked:
            answer = await self._share()
            if answer is None or answer.revision >= at_least:
                return answer
        if not self.is_fetching():
            self._asked = at_least or NOTHING
            self._fetching = asyncio.ensure_future(self._fetch(at_least, how))
        return await self._share()

    async def _share(self) -> Fetched | None:
        fetching = self._fetching
        assert fetching is not None
        try:
            return await asyncio.shield(fetching)
        except asyncio.CancelledError:
            if fetching.cancelled():  # by `close`: nobody cancelled who asked
                return None
            raise

    def is_fetching(self) -> bool:
        """Whether whoever asks now shares a request that is under way."""
        return self._fetching is not None and not self._fetching.done()

    def tasks(self) -> list[asyncio.Task[Any]]:
        """What is under way for all who asked."""
        return [self._fetching] if self._fetching is not None else []

    async def reach(self, revision: Revision) -> None:
        """Return once `current` is at `revision` or later."""
        while self._current.revision < revision:
            self._moved.clear()
            await self._moved.wait()

    def _asked_pause(self) -> float:
        return max(0.0, self._not_before - self._clock.monotonic())

    async def _follow(self) -> None:
        revision = self._current.revision
        headers = {} if revision == NOTHING else {"last-event-id": str(revision)}
        async with self._api.events(
            self._api.within("/stream"), params=dict(self._who), headers=headers, silence_seconds=self._silence_seconds
        ) as stream:
            await self._read(stream)

    async def _read(self, stream: EventStream) -> None:
        known_at = self._clock.monotonic() - stream.age_seconds
        while (events := await stream.next()) is not None:
            for event in events:
                self._heard()
                if not self.connected:
                    self.connected, self.polled = True, False
                    self.found_count += 1
                    self._turned()
                if not await self._take(event, known_at):
                    await self.fetch(self._current.revision, PUSH)
                self.tried.set()
            stream.silence_seconds = self._silence_seconds
        self.last_error = "the server ended the stream"

    async def _take(self, event: Event, known_at: float) -> bool:
        """Take one event in; False where it does not follow or cannot be read, and a snapshot is needed.

        `known_at`: when the peer, as the stream began, last knew that it had the newest revision.

        A snapshot of thousands of flags takes milliseconds to split off, to read and to install: the loop comes round between.
        """
        try:
            match event.event:
                case "snapshot":
                    await asyncio.sleep(0)
                    snapshot = await read_between(event.data)
                    self._done(self._current.take_snapshot(snapshot), PUSH)
                    self._current.freshness.confirm(known_at)
                case "change":
                    self._done(self._current.take_change(read_change(event.data)), PUSH)
                case "heartbeat":
                    return self._beat(_heartbeat.decode(event.data))
        except DoesNotFollow:
            return False
        except msgspec.MsgspecError as error:
            self._unreadable("an event", error)
            return False
        return True

    def _beat(self, beat: Heartbeat) -> bool:
        """False where the peer has a later revision. One that is cut off itself says how old its knowledge is."""
        interval = min(max(beat.interval_seconds, INTERVAL_SECONDS_MIN), INTERVAL_SECONDS_MAX)
        self._silence_seconds = interval * HEARTBEATS_MISSED_MAX + SILENCE_SLACK_SECONDS
        if beat.revision > self._current.revision:
            return False
        self._current.freshness.confirm(self._clock.monotonic() - max(0.0, beat.age_seconds))
        return True

    async def _fetch(self, at_least: Revision | None, how: str) -> Fetched | None:
        asked_at = self._clock.monotonic()
        try:
            answer = await self._api.send(
                "GET",
                self._api.within("/snapshot"),
                params={**self._who, "at_least": str(at_least) if at_least else None},
                headers={"if-none-match": self._etag} if self._etag else {},
                timeout_seconds=SNAPSHOT_TIMEOUT_SECONDS,
            )
            revision = self._current.revision if answer.status == 304 else await self._take_fetched(answer, how)
        except (Unreachable, ApiError) as error:
            self.failed(error)
            return None
        except msgspec.MsgspecError as error:
            self._unreadable("a snapshot", error)
            return None
        self._heard()
        if revision >= self._current.revision:
            self._current.freshness.confirm(asked_at - age_of(answer.headers))
        return Fetched(at_least, revision)

    async def _take_fetched(self, answer: Answer, how: str) -> Revision:
        snapshot = await read_between(answer.content)
        self._done(self._current.take_snapshot(snapshot), how)
        self._etag = answer.headers.get("etag", "")
        return snapshot.revision

    def _unreadable(self, what: str, error: Exception) -> None:
        """Said, counted, and the snapshot that is held stays (P6)."""
        self.fault_count += 1
        self.last_error = f"{what} that cannot be read: {error}"
        logger.warning("%s; keeping revision %s", self.last_error, self._current.revision)

    def _heard(self) -> None:
        self.heard_at = self._clock.monotonic()
        self._warned = self.refused = False

    def _done(self, applied: Applied | None, how: str) -> None:
        if applied is None:
            return
        self._etag = f'"{applied.revision}"' if how == PUSH else self._etag
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

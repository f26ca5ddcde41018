"""Counts on their way to the server: a window each ten seconds, sent once in a while, never in anybody's way (P6).

Windows end where the server's clock is at a multiple of ten seconds: it says with each answer how long that is from now, which
the monotonic clock then measures. Each has a sequence number, by which the server knows a repeat. A server that cannot be
reached costs nothing but windows: they are held within their bounds and the oldest are dropped, counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from rescind.clock import Clock
from rescind.counts import HELD_ROWS_MAX, Counts, Window
from rescind.errors import ApiError, Unreachable
from rescind.settings import ClientSettings
from rescind.transport import AsyncApi
from rescind.wire import COUNTS_WINDOW_SECONDS, CountsAnswer, CountsRequest

logger = logging.getLogger("rescind.counts")

SPREAD_SECONDS: Final = 2.0
"""A fleet whose windows end at once does not send at once: each instance has a place of its own in so many seconds."""
SEND_SECONDS: Final = 5.0
LAST_SECONDS: Final = 1.0
"""What closing gives the last window."""
REQUEST_WINDOWS_MAX: Final = 60
REQUEST_ROWS_MAX: Final = HELD_ROWS_MAX // 2
SHIFT_SECONDS: Final = 0.25
"""Windows follow the server's clock where they are off by more: an answer that was slow says nothing."""
ABSENT: Final = (404, 405, 501)


class Summaries:
    """Delivers what `counts` has, on the core's loop."""

    def __init__(
        self, api: AsyncApi, settings: ClientSettings, counts: Counts, clock: Clock, connections: Callable[[], int]
    ) -> None:
        """`connections` counts how often a server was found: one that knows no counts is asked again when it is found anew."""
        self._api = api
        self._settings = settings
        self._counts = counts
        self._clock = clock
        self._connections = connections
        self._absent_at: int | None = None
        self._not_before = 0.0
        self._spread_seconds = SPREAD_SECONDS * clock.random()
        self._phase = (clock.monotonic() - clock.now().timestamp()) % COUNTS_WINDOW_SECONDS
        """Of the window's end, on the monotonic clock."""
        self.last_error = ""

    async def run(self) -> None:
        """Close a window at each end of one, and send what is held, until cancelled."""
        while True:
            ends_at = self._next_end()
            await asyncio.sleep(ends_at - self._clock.monotonic())
            self._counts.close_window(ends_at)
            await asyncio.sleep(self._spread_seconds)
            await self.deliver()

    async def deliver(self) -> None:
        """Send what is held, once: what does not go now goes with the next window. Never raises for a server's trouble."""
        try:
            while self._counts.held and self._may_send():
                await self._send(self._next_batch(), SEND_SECONDS)
        except (Unreachable, ApiError) as error:
            self.last_error = str(error)
            self._heed(error)

    async def finish(self) -> None:
        """Send the present window too: the last. Bounded by a second."""
        self._counts.close_window(self._next_end())
        if self._api.environment is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_SECONDS):
                    await self.deliver()

    def _next_end(self) -> float:
        now = self._clock.monotonic()
        return now + (self._phase - now) % COUNTS_WINDOW_SECONDS

    def _may_send(self) -> bool:
        return self._connections() != self._absent_at and self._clock.monotonic() >= self._not_before

    def _next_batch(self) -> list[Window]:
        batch: list[Window] = []
        row_count = 0
        for window in self._counts.held:
            row_count += window.row_count
            if batch and (row_count > REQUEST_ROWS_MAX or len(batch) >= REQUEST_WINDOWS_MAX):
                break
            batch.append(window)
        return batch

    async def _send(self, batch: list[Window], timeout_seconds: float) -> None:
        now, last = self._clock.monotonic(), batch[-1].sequence
        request = CountsRequest(
            run=self._counts.run,
            service=self._settings.service,
            instance=self._settings.instance,
            windows=[window.message(now) for window in batch],
        )
        try:
            path = self._api.within("/counts")
            answer = await self._api.repeatable(path, request, CountsAnswer, timeout_seconds=timeout_seconds)
        except ApiError as error:
            if not error.blames_body:
                raise
            self.last_error = str(error)
            logger.warning("the server refused %d windows of counts, which are dropped: %s", len(batch), error)
            self._counts.give_up(last)
            return
        self.last_error = ""
        self._counts.delivered(last)
        self._follow(answer)

    def _follow(self, answer: CountsAnswer) -> None:
        if answer.next_window_in_ms is None:
            return
        phase = (self._clock.monotonic() + answer.next_window_in_ms / 1000) % COUNTS_WINDOW_SECONDS
        off = (phase - self._phase) % COUNTS_WINDOW_SECONDS
        if min(off, COUNTS_WINDOW_SECONDS - off) > SHIFT_SECONDS:
            self._phase = phase

    def _heed(self, error: Unreachable | ApiError) -> None:
        if not isinstance(error, ApiError):
            return
        if error.status in ABSENT:
            self._absent_at = self._connections()
        self._not_before = self._clock.monotonic() + (error.retry_after_seconds or 0.0)

"""An open event stream: bytes in, events out, and an end when nothing comes any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from rescind.answers import unreachable
from rescind.errors import Unreachable
from rescind.sse import Event, EventParser

REFUSAL_BYTES_MAX = 64 * 1024


class EventStream:
    """The events of an open stream. `abort` ends it when nothing came for `silence_seconds`, which may be changed."""

    def __init__(
        self,
        url: str,
        more: Callable[[], Awaitable[bytes]],
        silence_seconds: float = 0.0,
        abort: Callable[[], None] | None = None,
        *,
        age_seconds: float = 0.0,
    ) -> None:
        self._url = url
        self._more = more
        self._abort = abort
        self._parser = EventParser()
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        self._is_silent = False
        self.silence_seconds = silence_seconds
        self.age_seconds = age_seconds
        """How old the peer's knowledge was when the stream began."""
        self._watching = None if abort is None else self._loop.call_later(silence_seconds, self._watch)

    async def next(self) -> list[Event] | None:
        """The events that the next bytes complete, often none; None at the end. Raises `Unreachable`."""
        part = await self._part()
        return list(self._parser.feed(part)) if part else None

    async def rest(self) -> bytes:
        """What an answer that is no stream says, 64 KiB at most."""
        content = b""
        while len(content) < REFUSAL_BYTES_MAX and (part := await self._part()):
            content += part
        return content

    def close(self) -> None:
        """Watch no longer."""
        if self._watching is not None:
            self._watching.cancel()

    async def _part(self) -> bytes:
        try:
            part = await self._more()
        except OSError as error:
            if self._is_silent:
                raise Unreachable(f"{self._url} was silent for {self.silence_seconds:.0f} s") from None
            raise unreachable(self._url, error) from error
        self._heard_at = self._loop.time()
        return part

    def _watch(self) -> None:
        """One timer that comes back, instead of one for each event."""
        left = self._heard_at + self.silence_seconds - self._loop.time()
        if left > 0:
            self._watching = self._loop.call_later(left, self._watch)
        elif self._abort is not None:
            self._is_silent = True
            self._abort()

"""Open event streams: their number is bounded, and all of them end when the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from runtime.problem import Problem

STREAMS_MAX = 200


class Streams:
    """Counts streams, and closes them."""

    def __init__(self) -> None:
        self._open = 0
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """End every stream at its next event, and within a moment where none comes."""
        self._stopped.set()

    def bounded(self, frames: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same frames, until the server stops. Raises `Problem` 503 where too many streams are open."""
        if self._open >= STREAMS_MAX:
            raise Problem(503, "unavailable", "Too many streams", f"{STREAMS_MAX} are open here; poll instead.", retry_after=5)
        return self._until_stopped(frames)

    async def _until_stopped(self, frames: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self._open += 1
        stopped = asyncio.ensure_future(self._stopped.wait())
        try:
            while True:
                step = asyncio.ensure_future(anext(frames, None))
                await asyncio.wait((step, stopped), return_when=asyncio.FIRST_COMPLETED)
                if not step.done():
                    step.cancel()
                    await asyncio.gather(step, return_exceptions=True)
                    return
                frame = step.result()
                if frame is None:
                    return
                yield frame
        finally:
            stopped.cancel()
            self._open -= 1

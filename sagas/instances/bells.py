"""The bells of this process: something lies ready, something has ended. Polling is enough on its own."""

from __future__ import annotations

import asyncio


class Bells:
    """Taken before a look, awaited after it."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.ended = asyncio.Event()

    def ring_ready(self) -> None:
        """There may be work for workers."""
        bell, self.ready = self.ready, asyncio.Event()
        bell.set()

    def ring_ended(self) -> None:
        """An instance may have ended."""
        bell, self.ended = self.ended, asyncio.Event()
        bell.set()

    def news(self, is_ready: bool, has_ended: bool) -> None:
        """Ring for what a flush brought."""
        if is_ready:
            self.ring_ready()
        if has_ended:
            self.ring_ended()

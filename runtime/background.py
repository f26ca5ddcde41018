"""Work that goes on beside everything else, from `start` to `stop`."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod


class Background(ABC):
    """What it does stands in `run`."""

    _task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self.run(), name=f"{type(self).__module__}.{type(self).__name__}")

    async def stop(self) -> None:
        """End, wherever it is: what it does by then is whole, or has left nothing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    @abstractmethod
    async def run(self) -> None:
        """Go on until cancelled."""

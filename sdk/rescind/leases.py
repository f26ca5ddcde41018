"""The leases of what a worker holds, each extended when a third of it is over (P13).

Extensions that are due at the same time go out together.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from contextlib import suppress

from msgspec import Struct

from rescind.clock import Clock
from rescind.errors import ApiError, Unreachable
from rescind.transport import AsyncApi
from rescind.wire import Task, TaskHeartbeat

logger = logging.getLogger("rescind.worker")

SLACK_SECONDS = 0.2
"""What is due so soon goes along."""


class Held(Struct):
    """A task's lease, and when it wants extending, on the monotonic clock."""

    lease_seconds: float
    due: float


class Leases:
    """Of one worker."""

    def __init__(self, api: AsyncApi, clock: Clock, worker: str) -> None:
        self._api = api
        self._clock = clock
        self._worker = worker
        self._held: dict[str, Held] = {}
        self._news = asyncio.Event()

    def hold(self, task: Task) -> None:
        """Extend it from now on."""
        self._held[name_of(task)] = Held(task.lease_seconds, self._clock.monotonic() + task.lease_seconds / 3)
        self._news.set()

    def release(self, task: Task) -> None:
        """No more."""
        self._held.pop(name_of(task), None)

    async def run(self) -> None:
        """Extend what is due, until cancelled."""
        while True:
            self._news.clear()
            due = min((held.due for held in self._held.values()), default=None)
            with suppress(TimeoutError):
                async with asyncio.timeout(None if due is None else max(0.0, due - self._clock.monotonic())):
                    await self._news.wait()
            for lease_seconds, names in self._due().items():
                await self._extend(names, lease_seconds)

    def _due(self) -> dict[float, list[str]]:
        now = self._clock.monotonic()
        due: dict[float, list[str]] = defaultdict(list)
        for name, held in self._held.items():
            if held.due <= now + SLACK_SECONDS:
                due[held.lease_seconds].append(name)
                held.due = now + held.lease_seconds / 3
        return due

    async def _extend(self, names: list[str], lease_seconds: float) -> None:
        beat = TaskHeartbeat(worker=self._worker, tasks=names, lease_seconds=lease_seconds)
        try:
            await self._api.send(
                "POST", self._api.within("/tasks:heartbeat"), beat, timeout_seconds=max(1.0, lease_seconds / 3)
            )
        except (Unreachable, ApiError) as error:
            logger.warning("the leases of %d tasks were not extended: %s", len(names), error)


def name_of(task: Task) -> str:
    """As the server knows what is held."""
    return f"{task.id}:{task.token}"

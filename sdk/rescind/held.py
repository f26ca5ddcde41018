"""Outcomes that the server has not got yet: durable, delivered again and again, jammed by none of them (P11).

What the server refuses for good, alone, is set aside for people and named in the status, so that the others go on. A refusal
that is not about what was sent (a token withdrawn, an environment unknown) holds everything until it passes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

import msgspec

from rescind.clock import Clock, full_jitter_seconds
from rescind.errors import ApiError, Unreachable
from rescind.journal import Journal
from rescind.threads import in_thread
from rescind.wire import EffectReport, ReportResult

logger = logging.getLogger("rescind.effects")

BATCH_MAX = 256
BODY_BYTES_MAX = 4 * 1024 * 1024
"""Half of what the server takes in one request."""
RESULT_BYTES_MAX = 1024 * 1024
HELD_MAX = 100_000
"""In memory, where the disk takes no more."""
ADOPT_SECONDS = 60.0
REFUSED = ("unknown_effect", "invalid")


class Held:
    """The outcomes that one instance holds, in the order in which they are tried."""

    def __init__(self, send: Callable[[list[EffectReport]], Awaitable[list[ReportResult]]], clock: Clock) -> None:
        self._send = send
        self._clock = clock
        self._queue: deque[EffectReport] = deque()
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self._journal: Journal | None = None
        self.adopt_seconds = ADOPT_SECONDS
        self.error = ""
        """Why outcomes cannot be kept on disk, if they cannot."""
        self.refused_count = 0
        self.refused_place = ""
        """Where those stand that the server refused."""

    @property
    def journal(self) -> Journal | None:
        """Of this instance, once it is open."""
        return self._journal

    def __len__(self) -> int:
        return len(self._queue)

    async def open(self, journal: Journal) -> None:
        """Use `journal`, and take over what instances that are gone have left."""
        self._journal = journal
        await self.adopt()

    async def adopt(self) -> None:
        """Take over what instances that are gone have left."""
        async with self._writing:
            if self._journal is None:
                return
            try:
                self._queue.extend(await in_thread(self._journal.adopt))
            except OSError as error:
                self.error = str(error)
        if self._queue:
            self._wake.set()

    async def adopt_orphans(self) -> None:
        """Look every minute whether a sibling has gone, until cancelled."""
        while True:
            await asyncio.sleep(self.adopt_seconds)
            await self.adopt()

    async def hold(self, report: EffectReport) -> None:
        """Return once the outcome is on disk; where the disk takes none, it is kept in memory."""
        async with self._writing:
            try:
                if self._journal is None:
                    raise OSError("the journal is not open")
                await in_thread(self._journal.append, [report])
            except OSError as error:
                self.error = str(error)
                if len(self._queue) >= HELD_MAX:
                    logger.error("outcome of effect %s is lost, its effect in doubt: %s", report.effect_id, error)
                    return
                logger.error("outcome of effect %s is held in memory only: %s", report.effect_id, error)
            self._queue.append(report)
        self._wake.set()

    async def run(self) -> None:
        """Deliver what is held, with back-off, until cancelled. A batch that fails comes again as a smaller one."""
        failures, size = 0, BATCH_MAX
        while True:
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
            batch = self._next(size)
            try:
                results = await self._send(batch)
            except (Unreachable, ApiError) as error:
                blamed = isinstance(error, ApiError) and error.blames_body
                size = max(1, len(batch) // 2)
                if len(batch) == 1 and blamed:
                    await self.set_aside(batch[0], str(error))
                    await self._done(1)
                    continue
                if len(batch) == 1:
                    self._queue.rotate(-1)  # whoever it is that cannot be taken, the next one has its turn
                if not blamed:
                    failures += 1
                    logger.debug("%d outcomes still held: %s", len(self._queue), error)
                    await asyncio.sleep(full_jitter_seconds(self._clock, failures))
                continue
            failures, size = 0, min(BATCH_MAX, size * 2)
            for report, result in zip(batch, results, strict=True):
                await self.check(report, result)
            await self._done(len(batch))

    async def check(self, report: EffectReport, result: ReportResult) -> None:
        """An outcome that the server has answered is delivered, unless it was refused."""
        if result.outcome in REFUSED:
            await self.set_aside(report, f"{result.outcome} {result.error}")

    async def set_aside(self, report: EffectReport, why: str) -> None:
        """Keep for people what no repeat will deliver."""
        logger.error("the server refused the outcome of effect %s: %s", report.effect_id, why)
        self.refused_count += 1
        if self._journal is None:
            return
        self.refused_place = str(self._journal.refused_path)
        try:
            async with self._writing:
                await in_thread(self._journal.set_aside, report)
        except OSError as error:
            self.error = str(error)

    async def close(self) -> None:
        """Leave what is held to whoever comes after."""
        async with self._writing:
            if self._journal is not None:
                self._journal.close(delivered=not self._queue)

    def _next(self, size: int) -> list[EffectReport]:
        batch: list[EffectReport] = []
        total = 0
        for report in self._queue:
            total += size_of(report)
            if batch and (total > BODY_BYTES_MAX or len(batch) >= size):
                break
            batch.append(report)
        return batch

    async def _done(self, count: int) -> None:
        """The first `count` need no more; nothing else moves the head of the queue."""
        for _ in range(count):
            self._queue.popleft()
        async with self._writing:
            if not self._queue and self._journal is not None:
                try:
                    await in_thread(self._journal.clear)
                except OSError as error:
                    self.error = str(error)


def size_of(report: EffectReport) -> int:
    """Its bytes in a request."""
    return len(msgspec.json.encode(report))


def sendable(report: EffectReport) -> EffectReport:
    """The outcome without a result that no request could carry: that it happened is not lost for what it gave."""
    if (size := len(msgspec.json.encode(report.result))) <= RESULT_BYTES_MAX:
        return report
    logger.error("the result of effect %s is too large to keep: %d bytes", report.effect_id, size)
    return msgspec.structs.replace(report, result={"rescind.dropped_bytes": size})

"""Outcomes, and effects begun without the server, that it has not got yet: durable, delivered again and again, jammed by none
of them (P11).

What the server refuses for good, alone, is set aside for people and named in the status, so that the others go on. A refusal
that is not about what was sent (a token withdrawn, an environment unknown) holds everything until it passes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Protocol, TypeVar

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


class Line(Protocol):
    """What is held."""

    @property
    def effect_id(self) -> str:
        """The effect that it is about."""


Item = TypeVar("Item", bound=Line)


def as_they_are(lines: list[Item]) -> list[Item]:
    """Every line of a journal is to be delivered."""
    return lines


class Held(Generic[Item]):
    """The news that one instance holds, in the order in which it is tried."""

    def __init__(
        self,
        send: Callable[[list[Item]], Awaitable[list[ReportResult]]],
        clock: Clock,
        read: Callable[[list[Item]], list[Item]] = as_they_are,
        on_empty: Callable[[], None] = lambda: None,
    ) -> None:
        """`read` says what of a journal's lines is to be delivered."""
        self._send = send
        self._clock = clock
        self._read = read
        self._on_empty = on_empty
        self._queue: deque[Item] = deque()
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._unwritten: list[tuple[Item, asyncio.Future[None]]] = []
        self._syncing: asyncio.Task[None] | None = None
        self.unfinished = 0
        """Lines in the journal whose news is not complete: they keep it, and are not tried yet."""
        self.opened = asyncio.Event()
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

    @property
    def is_empty(self) -> bool:
        """Whether the server has everything."""
        return not (self._queue or self._unwritten or self.unfinished)

    async def open(self, journal: Journal) -> None:
        """Use `journal`, and take over what instances that are gone have left."""
        self._journal = journal
        await self.adopt()
        self.opened.set()

    def hurry(self) -> None:
        """The server is heard again: try now."""
        self._hurry.set()

    async def adopt(self) -> None:
        """Take over what instances that are gone have left."""
        async with self._writing:
            if self._journal is None:
                return
            try:
                self._queue.extend(self._read(await in_thread(self._journal.adopt)))
            except OSError as error:
                self.error = str(error)
        if self._queue:
            self._wake.set()

    async def adopt_orphans(self) -> None:
        """Look every minute whether a sibling has gone, until cancelled."""
        while True:
            await asyncio.sleep(self.adopt_seconds)
            await self.adopt()

    async def hold(self, report: Item) -> None:
        """Return once the outcome is on disk; where the disk takes none, it is kept in memory."""
        self.unfinished += 1  # or the line would go with those before it, that are delivered just now
        try:
            await self._hold(report)
        finally:
            self.unfinished -= 1

    async def _hold(self, report: Item) -> None:
        try:
            await self.write(report)
        except OSError as error:
            if len(self._queue) >= HELD_MAX:
                logger.error("outcome of effect %s is lost, its effect in doubt: %s", report.effect_id, error)
                return
            logger.error("outcome of effect %s is held in memory only: %s", report.effect_id, error)
        self._queue.append(report)
        self._wake.set()

    async def write(self, line: Item) -> None:
        """Return once `line` is in the journal, synced; those who come together share a sync. Raises `OSError`."""
        synced: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unwritten.append((line, synced))
        if self._syncing is None or self._syncing.done():
            self._syncing = asyncio.ensure_future(self._sync())
        await synced

    async def _sync(self) -> None:
        while self._unwritten:
            async with self._writing:
                batch, self._unwritten = self._unwritten[:BATCH_MAX], self._unwritten[BATCH_MAX:]
                error: OSError | None = None
                try:
                    if self._journal is None:
                        raise OSError("the journal is not open")
                    await in_thread(self._journal.append, [line for line, _ in batch])
                except (OSError, TypeError, ValueError) as failure:
                    self.error, error = str(failure), OSError(str(failure))
                for _, synced in batch:
                    if synced.done():
                        continue
                    if error is None:
                        synced.set_result(None)
                    else:
                        synced.set_exception(error)
        self._syncing = None

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
                    await self._pause(full_jitter_seconds(self._clock, failures))
                continue
            failures, size = 0, min(BATCH_MAX, size * 2)
            for report, result in zip(batch, results, strict=True):
                await self.check(report, result)
            await self._done(len(batch))

    async def _pause(self, seconds: float) -> None:
        self._hurry.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        except TimeoutError:
            pass

    async def check(self, report: Item, result: ReportResult) -> None:
        """An outcome that the server has answered is delivered, unless it was refused."""
        if result.outcome in REFUSED:
            await self.set_aside(report, f"{result.outcome} {result.error}")

    async def set_aside(self, report: Item, why: str) -> None:
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
        if self._syncing is not None and not self._syncing.done():
            await asyncio.shield(self._syncing)
        async with self._writing:
            if self._journal is not None:
                self._journal.close(delivered=self.is_empty)

    def _next(self, size: int) -> list[Item]:
        batch: list[Item] = []
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
            if self.is_empty and self._journal is not None:
                try:
                    await in_thread(self._journal.clear)
                except OSError as error:
                    self.error = str(error)
        if self.is_empty:
            self._on_empty()


def size_of(report: object) -> int:
    """Its bytes in a request."""
    return len(msgspec.json.encode(report))


def sendable(report: EffectReport) -> EffectReport:
    """The outcome without a result that no request could carry: that it happened is not lost for what it gave."""
    kept = sendable_result(report.effect_id, report.result)
    return report if kept is report.result else msgspec.structs.replace(report, result=kept)


def sendable_result(effect_id: str, result: Any) -> Any:
    """The result, or how large it was."""
    if (size := len(msgspec.json.encode(result))) <= RESULT_BYTES_MAX:
        return result
    logger.error("the result of effect %s is too large to keep: %d bytes", effect_id, size)
    return {"rescind.dropped_bytes": size}

"""What SDKs counted, taken in from many instances at once and read by window: for guards, previews and people.

Summaries are summed in memory and written in batches, each as soon as the one before it is done, as heartbeats are: a thousand
instances are a few rows. One connection at most is used for it, no other table is locked and nothing waits for it: where
PostgreSQL is slow or away, counts are late, and in the end lost, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from msgspec import Struct
from rescind import wire

from flagd.core import tallied
from flagd.core.counting import AGE_MS_MAX, WINDOW_SECONDS, Room, Summary, Sums, begin_of, unseen
from runtime.clock import Clock
from runtime.errors import Unavailable
from runtime.postgres import Connection, Postgres
from runtime.queries import Queries

COUNT = "evaluate"
"""The scope of counts: who evaluates says what it served."""
BATCH_MAX = 1_000
WAITING_MAX = 10_000
WAITING_ROWS_MAX = 500_000
KEEP_SECONDS = 8 * 86_400.0
"""A week of windows to look back at, and a day more."""
KEEP_RUNS_SECONDS = 2 * AGE_MS_MAX / 1000
"""A process that was silent for so long has no window left that would be taken."""
FORGET_ROWS_MAX = 10_000
FORGET_STEPS_MAX = 100
LAG_SECONDS = 5.0
"""An instance that is up to time has sent its window so long after the window's end."""
READ_ROWS_MAX = 20_000

_COUNTS = Queries.load("flagd", "counts")


class Waiting(NamedTuple):
    """A summary that is not written yet."""

    environment: str
    summary: Summary
    came_at: float
    """On the monotonic clock."""
    done: asyncio.Future[wire.CountsAnswer]


class FlagCounts(Struct, frozen=True, kw_only=True):
    """`GET /flags/{key}/counts`."""

    key: str
    since: datetime
    until: datetime
    window_seconds: int
    truncated: bool
    """There are more rows than are read at a time: ask for fewer or longer windows."""
    windows: list[tallied.WindowCounts]
    totals: list[tallied.Served]


class Counts:
    """The counts of every environment. Summaries are taken from any task of one event loop."""

    def __init__(self, pg: Postgres, clock: Clock) -> None:
        self._pg = pg
        self._clock = clock
        self._room = Room()
        self._waiting: list[Waiting] = []
        self._row_count = 0
        self._flushing: asyncio.Task[None] | None = None

    async def take(self, environment: str, summary: Summary) -> wire.CountsAnswer:
        """Take a summary in. Returns once it has committed; a repeat is counted once.

        Raises `Unavailable` or `OutcomeUnknown`: it may be sent again.
        """
        if len(self._waiting) >= WAITING_MAX or self._row_count + summary.row_count > WAITING_ROWS_MAX:
            raise Unavailable("PostgreSQL", "too many counts are waiting for it")
        done: asyncio.Future[wire.CountsAnswer] = asyncio.get_running_loop().create_future()
        self._waiting.append(Waiting(environment, summary, self._clock.monotonic(), done))
        self._row_count += summary.row_count
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush(), name="flagd.counts.flush")
        return await done

    async def of_flag(self, environment: str, key: str, since: datetime, until: datetime, window_seconds: int) -> FlagCounts:
        """The flag's counts from `since` until `until`, by windows of a multiple of ten seconds."""
        asked = (environment, key, since, until, float(window_seconds), READ_ROWS_MAX)
        async with self._pg.connection() as connection:
            evaluations = await connection.fetch(_COUNTS.evaluations, *asked)
            outcomes = await connection.fetch(_COUNTS.outcomes, *asked)
            now = await connection.fetchval(_COUNTS.now)
        complete_until = now - timedelta(seconds=window_seconds + LAG_SECONDS)
        windows, totals = tallied.windows_of(evaluations, outcomes, complete_until)
        truncated = READ_ROWS_MAX in (len(evaluations), len(outcomes))
        return FlagCounts(
            key=key,
            since=since,
            until=until,
            window_seconds=window_seconds,
            truncated=truncated,
            windows=windows,
            totals=totals,
        )

    async def forget(self) -> None:
        """Drop what is older than eight days, so many rows at a time."""
        for query in (_COUNTS.forget_evaluations, _COUNTS.forget_outcomes):
            for _ in range(FORGET_STEPS_MAX):
                async with self._pg.connection() as connection:
                    if await connection.execute(query, KEEP_SECONDS, FORGET_ROWS_MAX) != f"DELETE {FORGET_ROWS_MAX}":
                        break
        async with self._pg.connection() as connection:
            await connection.execute(_COUNTS.forget_runs, KEEP_RUNS_SECONDS)

    async def _flush(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
                self._row_count -= sum(one.summary.row_count for one in batch)
                await self._write(batch)
        finally:
            self._flushing = None

    async def _write(self, batch: Sequence[Waiting]) -> None:
        try:
            async with self._pg.transaction() as connection:
                answers = await self._add(connection, batch)
        except BaseException as error:
            for one in batch:
                if not one.done.done():
                    one.done.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            for one, answer in zip(batch, answers, strict=True):
                if not one.done.done():
                    one.done.set_result(answer)

    async def _add(self, connection: Connection, batch: Sequence[Waiting]) -> list[wire.CountsAnswer]:
        runs = sorted({(one.environment, one.summary.run) for one in batch})
        rows = await connection.fetch(_COUNTS.open_runs, *columns(runs, 2))
        reached = {(row["environment"], row["run"]): row["sequence"] for row in rows}
        now = rows[0]["now"]
        begun = dict(reached)
        known = await self._known(connection, batch)
        sums = Sums(lambda place: place in known, self._room)
        taken = [self._sum(one, reached, sums, now) for one in batch]
        moved = [(*run, sequence) for run, sequence in sorted(reached.items()) if sequence != begun[run]]
        await connection.execute(_COUNTS.advance_runs, *columns(moved, 3))
        await connection.execute(_COUNTS.add_evaluations, sums.evaluation_rows())
        await connection.execute(_COUNTS.add_outcomes, sums.outcome_rows())
        next_window_in_ms = round((WINDOW_SECONDS - now % WINDOW_SECONDS) * 1000)
        return [wire.CountsAnswer(next_window_in_ms=next_window_in_ms, taken=number) for number in taken]

    async def _known(self, connection: Connection, batch: Sequence[Waiting]) -> set[tuple[str, str]]:
        """The flags of these summaries that are there."""
        asked = {(one.environment, flag) for one in batch for flag in one.summary.flags}
        found = await connection.fetch(_COUNTS.known_flags, *columns(sorted(asked), 2))
        return {(row["environment"], row["key"]) for row in found}

    def _sum(self, one: Waiting, reached: dict[tuple[str, str], int], sums: Sums, now: float) -> int:
        """Add the windows that are not in yet; how many."""
        run = (one.environment, one.summary.run)
        waited_ms = (self._clock.monotonic() - one.came_at) * 1000
        number = 0
        for window in unseen(one.summary.windows, reached[run]):
            reached[run] = window.sequence
            ended_ms_ago = window.ended_ms_ago + waited_ms
            if ended_ms_ago <= AGE_MS_MAX:
                sums.add(one.environment, one.summary.service, window, begin_of(ended_ms_ago, now))
                number += 1
        return number


def columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """Rows as arrays, one for each column."""
    return [[row[index] for row in rows] for index in range(width)]

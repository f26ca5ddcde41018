"""Writes down how attempts ended, in batches, each batch one transaction (P13, P16).

Whoever holds an attempt's token may say how it ended. A compensation that is final says so in its effects' dispositions and
closes the effects for ever; its subject is released unless the attempt may have acted without our knowing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import asyncpg
from msgspec import Struct

from runtime.clock import Clock, Entropy
from runtime.errors import RuntimeFault
from runtime.postgres import Connection, Postgres
from runtime.queries import Queries
from runtime.telemetry import counter
from sagas.breakers import ERROR_LENGTH_MAX, Breakers, Place, Told
from sagas.catalogue import Rules
from sagas.conclusions import conclude
from sagas.core.compensation import Event, Move, State, Trial, after
from sagas.core.retry import delay_seconds
from sagas.enumeration import Enumeration, LookUp, Rollback
from sagas.executors.outcomes import LOST, Done, Doubt, NotYet, Outcome, Refused, Sighting, plain
from sagas.leases import LeaseLost, Leases

QUERIES = Queries.load("sagas", "dispatch")
BATCH_MAX = 256
AGAIN_SECONDS = 0.2
STALL_MS, WRITE_MS = "5000", "30000"
TRIES_MAX = 3
STUCK_SECONDS = 30.0
"""A writer whose oldest outcome waits for longer is one that cannot write: its process holds no leases meanwhile."""

log = logging.getLogger("rescind.outcomes")
attempts = counter("rescind.compensations.attempts")
unwritable = counter("rescind.compensations.unwritable")
survived = counter("rescind.compensations.writer_errors")


class Ended(Struct, frozen=True, kw_only=True):
    """How one attempt ended and where that leaves its compensation."""

    id: UUID
    token: UUID
    attempt: int
    event: Event
    move: Move
    delay_seconds: float
    detail: dict[str, Any]
    place: Place | None = None
    """Whose breaker counts it; none of an attempt that says nothing of its kind: cut off, or never sent."""


def ended(
    identity: UUID,
    token: UUID,
    number: int,
    trial: Trial,
    rules: Rules,
    outcome: Outcome | None,
    *,
    chance: float,
    environment: str = "",
) -> Ended:
    """The machine's answer to an outcome; null is an attempt that was interrupted. `chance` is in [0, 1)."""
    event, detail, asked = _read(outcome)
    retry = rules.retry
    delay = delay_seconds(
        max(1, trial.attempt),
        first_seconds=retry.first_seconds,
        factor=retry.factor,
        cap_seconds=retry.cap_seconds,
        chance=chance,
    )
    delay = max(delay, min(asked or 0.0, retry.cap_seconds))
    move = after(trial, event, delay_seconds=delay)
    place = None if outcome in (None, LOST) else (environment, rules.kind)
    return Ended(
        id=identity, token=token, attempt=number, event=event, move=move, delay_seconds=delay, detail=detail, place=place
    )


def told(ends: Sequence[Ended]) -> list[Told]:
    """What the breakers count of them."""
    return [
        Told(
            place=each.place,
            is_good=each.event is Event.DONE,
            error=None if each.event is Event.DONE else (plain(each.detail) or "")[:ERROR_LENGTH_MAX],
        )
        for each in ends
        if each.place is not None
    ]


def _read(outcome: Outcome | None) -> tuple[Event, dict[str, Any], float | None]:
    match outcome:
        case Done(proof=proof):
            return Event.DONE, proof, None
        case NotYet(error=error, retry_after_seconds=seconds):
            return Event.NOT_YET, {"error": error}, seconds
        case Doubt(evidence=evidence):
            return Event.DOUBT, evidence, None
        case Refused(reason=reason, evidence=evidence):
            return Event.REFUSED, {"reason": reason, **evidence}, None
        case None:
            return Event.INTERRUPTED, {}, None


async def record(connection: Connection, batch: Sequence[Ended]) -> set[UUID]:
    """Write the batch in the caller's transaction. Returns the compensations whose attempt's token still counted.

    The evidence of an attempt is kept either way: beside what was concluded about it meanwhile, as `lost`.
    """
    batch = sorted(batch, key=lambda each: each.id)
    ids = [each.id for each in batch]
    await connection.execute(QUERIES.lock_compensations, ids)
    rows = await connection.fetch(
        QUERIES.finish,
        ids,
        [each.token for each in batch],
        [each.move.state for each in batch],
        [each.move.reason for each in batch],
        [each.move.doubtful for each in batch],
        [each.delay_seconds for each in batch],
        [_proof(each) for each in batch],
    )
    won = {row["id"] for row in rows}
    final = [each.id for each in batch if each.id in won and each.move.state is State.FINAL]
    released = [each.id for each in batch if each.id in won and not each.move.keeps_subject]
    await connection.execute(QUERIES.follow, list(won))
    if final:
        await connection.execute(QUERIES.close_effects, final)
    if released:
        await connection.execute(QUERIES.release_subjects, released)
    await connection.execute(
        QUERIES.end_attempts,
        ids,
        [each.attempt for each in batch],
        [each.event if each.id in won else "lost" for each in batch],
        [plain(each.detail) for each in batch],
    )
    lost = [each for each in batch if each.id not in won]
    if lost:
        await connection.execute(
            QUERIES.note_lost,
            [each.id for each in lost],
            [each.attempt for each in lost],
            [each.event for each in lost],
            [plain(each.detail) for each in lost],
        )
    return won


def _proof(each: Ended) -> str | None:
    """What stays on the compensation: the proof of a final one, the evidence of one that waits."""
    if each.move.state is State.DUE or not each.detail:
        return None
    return plain(each.detail)


class News(Struct, kw_only=True):
    """What is to be written: an attempt's end, or a sighting. `since` is on the process's monotonic clock."""

    shards: int
    rollback: Rollback
    since: float
    ended: Ended | None = None
    sighting: tuple[LookUp, Sighting] | None = None
    tries: int = 0


class Writer:
    """Writes news while more gather, one batch after the other, each of all ranges. One per dispatcher.

    What an attempt said is kept until it is written, however long PostgreSQL is away: where the range's lease moved on
    meanwhile, the attempt's own token decides whether it still counts (P13). An outcome that cannot be written holds nobody
    else up, and a writer that cannot go on says so by `able`: its process must hold no leases then (P18).
    """

    def __init__(
        self,
        pg: Postgres,
        clock: Clock,
        entropy: Entropy,
        leases: Leases,
        enumeration: Enumeration,
        *,
        actor: str,
        on_news: Callable[[UUID], None],
        breakers: Breakers,
    ) -> None:
        self._breakers = breakers
        self._pg = pg
        self._clock = clock
        self._entropy = entropy
        self._leases = leases
        self._enumeration = enumeration
        self._actor = actor
        self._on_news = on_news
        self._news: list[News] = []
        self._bell = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start writing."""
        self._task = asyncio.create_task(self._run())

    async def stop(self, grace_seconds: float) -> None:
        """Write what there is within `grace_seconds`; what is left is recovered when its attempts' leases have run out."""
        deadline = self._clock.monotonic() + grace_seconds
        while self._news and self._clock.monotonic() < deadline:
            await self._clock.sleep(0.01)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._news:
            log.error("%d outcomes were not written before the end", len(self._news))

    def tell(self, news: News) -> None:
        """Have it written."""
        self._news.append(news)
        self._bell.set()

    @property
    def waiting(self) -> list[News]:
        """What is not written yet."""
        return self._news

    @property
    def able(self) -> bool:
        """Whether outcomes are being written."""
        if self._task is None or self._task.done():
            return False
        oldest = min((news.since for news in self._news), default=None)
        return oldest is None or self._clock.monotonic() - oldest < STUCK_SECONDS

    async def _run(self) -> None:
        while True:
            await self._bell.wait()
            self._bell.clear()
            while self._news:
                try:
                    moved = await self._round()
                except Exception:
                    survived.add(1)
                    log.exception("writing outcomes failed and begins again")
                    moved = False
                if not moved:
                    await self._clock.sleep(AGAIN_SECONDS)

    async def _round(self) -> bool:
        """Write one batch. Returns whether anything of it needs no more care."""
        batch = self._news[:BATCH_MAX]
        done = set(map(id, await self._dealt_with(batch)))
        tried = set(map(id, batch)) - done
        rest = [news for news in self._news if id(news) not in done]
        self._news = [news for news in rest if id(news) not in tried] + [news for news in rest if id(news) in tried]
        for rollback_id in {news.rollback.id for news in batch if id(news) in done}:
            self._on_news(rollback_id)
        return bool(done)

    async def _dealt_with(self, batch: list[News]) -> list[News]:
        """What of the batch is written, or set aside because it never can be."""
        try:
            await self._write(batch)
        except Exception as error:
            if is_passing(error):
                log.warning("%d outcomes are to be written again: %s: %s", len(batch), type(error).__name__, error)
                return []
            if len(batch) > 1:
                return [each for news in batch for each in await self._dealt_with([news])]
            return self._doubted(batch[0], error)
        for news in batch:
            attempts.add(1, {"outcome": news.ended.event if news.ended is not None else "look_up"})
        return batch

    def _doubted(self, news: News, error: Exception) -> list[News]:
        """One that cannot be written is tried again, then set aside: its attempt is recovered as an interrupted one."""
        news.tries += 1
        if news.tries < TRIES_MAX:
            log.warning("an outcome of rollback %s is to be written again: %s", news.rollback.id, error)
            return []
        unwritable.add(1)
        log.error("an outcome of rollback %s cannot be written", news.rollback.id, exc_info=error)
        return [news]

    async def _write(self, batch: list[News]) -> None:
        """What lies in ranges that are ours, in one transaction under their leases; of the others, ends by their own tokens."""
        held: set[int] = set()
        try:
            async with self._pg.transaction() as connection:
                held = await self._leases.fence_all(connection, {news.shards for news in batch})
                await self._write_held(connection, [news for news in batch if news.shards in held])
        except LeaseLost:
            held = set()
        await self._write_lost([news for news in batch if news.shards not in held])
        await self._breakers.tell(
            self._pg.connection, told([news.ended for news in batch if news.ended is not None and news.shards in held])
        )

    async def _write_lost(self, late: Sequence[News]) -> None:
        ends = [news.ended for news in late if news.ended is not None]
        won = await self._write_late(ends, [news.rollback.id for news in late]) if ends else set()
        for number in sorted({news.shards for news in late}):
            of_range = [news.ended for news in late if news.shards == number]
            counted = sum(one is not None and one.id in won for one in of_range)
            log.warning("the lease of range %d was lost: %d of %d outcomes still counted", number, counted, len(of_range))

    async def _write_held(self, connection: Connection, batch: Sequence[News]) -> None:
        ends = [news.ended for news in batch if news.ended is not None]
        if ends:
            await conclude(connection, await record(connection, ends))
        rollbacks = {news.rollback.id: news.rollback for news in batch}
        for rollback_id, rollback in sorted(rollbacks.items()):
            seen = [news.sighting for news in batch if news.sighting is not None and news.rollback.id == rollback_id]
            if seen:
                await self._enumeration.sighted(connection, rollback, self._actor, seen, self._entropy.random())

    async def _write_late(self, ends: Sequence[Ended], rollbacks: Sequence[UUID]) -> set[UUID]:
        """Ends of attempts in a range that is not ours any more, by their own tokens, as a worker's report is written.

        What another has concluded with a token of its own, or a person, stands. Sightings are made again by who holds the
        range.
        """
        async with self._pg.transaction() as connection:
            await connection.execute(QUERIES.unfenced, STALL_MS, WRITE_MS)
            won = await record(connection, ends)
            if won:
                await connection.execute(QUERIES.ring, sorted(set(rollbacks)))
        return won


def is_passing(error: Exception) -> bool:
    """Whether the error says nothing of what was to be written: the same may be written later."""
    if isinstance(error, asyncpg.PostgresError):
        return not isinstance(error, asyncpg.DataError | asyncpg.IntegrityConstraintViolationError)
    return isinstance(error, RuntimeFault | OSError | TimeoutError)

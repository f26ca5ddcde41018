"""Carries out what was claimed, beside each other, and has it written down how it ended (P13, P16, P18).

Attempts and look-ups run as tasks; what they report is gathered while the last batch is being written, so that one writer keeps
up with hundreds of outcomes a second and waits for nobody when there is one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from functools import partial
from typing import Any
from uuid import UUID

import asyncpg

from runtime.clock import Clock, Entropy
from runtime.errors import RuntimeFault
from runtime.postgres import Postgres
from runtime.telemetry import counter
from runtime.tracing import continued
from sagas import connections
from sagas.breakers import Breakers
from sagas.catalogue import Rules
from sagas.claims import Attempt
from sagas.connections import Connection
from sagas.definitions import Refund, Worker
from sagas.enumeration import Enumeration, LookUp, Rollback
from sagas.executors.outcomes import Context, NotYet, Outcome, Refused, Sighting, Subject, Unknown
from sagas.executors.registry import Executors
from sagas.failures import Failures
from sagas.leases import Leases
from sagas.outcomes import News, Writer, ended

CONCURRENCY = 64
FRESH_SECONDS = 2.0

log = logging.getLogger("rescind.dispatch")
failed = counter("rescind.compensations.failed_tasks")


class Dispatcher:
    """One per coordinator. `on_news` is called with a rollback's id when something of it was written down."""

    def __init__(
        self,
        pg: Postgres,
        clock: Clock,
        entropy: Entropy,
        leases: Leases,
        enumeration: Enumeration,
        executors: Executors,
        *,
        actor: str,
        on_news: Callable[[UUID], None],
        breakers: Breakers,
        concurrency: int = CONCURRENCY,
    ) -> None:
        self._pg = pg
        self._clock = clock
        self._entropy = entropy
        self._leases = leases
        self._executors = executors
        self._concurrency = concurrency
        self._running: dict[UUID, asyncio.Task[None]] = {}
        self._writer = Writer(pg, clock, entropy, leases, enumeration, actor=actor, on_news=on_news, breakers=breakers)
        self._failures = Failures(clock)
        self._connections: dict[tuple[str, str], tuple[float, Connection | None]] = {}

    def start(self) -> None:
        """Start the writer."""
        self._writer.start()

    async def stop(self, grace_seconds: float) -> None:
        """Let what runs end within `grace_seconds` and write it down; cut off the rest."""
        if self._running:
            await asyncio.wait(list(self._running.values()), timeout=grace_seconds)
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._writer.stop(grace_seconds)

    @property
    def able(self) -> bool:
        """Whether outcomes are being written; while they are not, this process must hold no leases (P18)."""
        return self._writer.able

    @property
    def free(self) -> int:
        """How many more may begin in this process."""
        return max(0, self._concurrency - len(self._running) - len(self._writer.waiting))

    def busy(self) -> list[UUID]:
        """What is running here, or ended and not yet written: compensations, and effects being looked up."""
        waiting = [news.ended.id for news in self._writer.waiting if news.ended]
        looked_up = [news.sighting[0].effect.id for news in self._writer.waiting if news.sighting]
        return [*self._running, *waiting, *looked_up]

    def carry_out(self, attempt: Attempt, rollback: Rollback, shards: int) -> None:
        """Run a claimed attempt."""
        self._spawn(attempt.id, self._attempt(attempt, rollback, shards))

    def look_up(self, look_up: LookUp, rollback: Rollback, shards: int) -> None:
        """Ask the provider about an effect in doubt."""
        self._spawn(look_up.effect.id, self._sight(look_up, rollback, shards))

    def _spawn(self, identity: UUID, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._running[identity] = task
        task.add_done_callback(partial(self._ended, identity))

    def _ended(self, identity: UUID, task: asyncio.Task[None]) -> None:
        self._running.pop(identity, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            failed.add(1)
            log.error("%s ended without an outcome; it is recovered when its lease has run out", identity, exc_info=error)

    async def _attempt(self, attempt: Attempt, rollback: Rollback, shards: int) -> None:
        outcome: Outcome
        executor = attempt.rules.notice if attempt.ends_as == "irreversible" else attempt.rules.compensation
        if executor is None or isinstance(executor, Worker) or not attempt.effects:
            outcome = Refused(reason="its definition has nothing to carry out")
        else:
            try:
                connection = await self._connection(attempt.environment, attempt.connection)
            except (RuntimeFault, asyncpg.PostgresError) as error:
                outcome = NotYet(error=f"the connection could not be read: {type(error).__name__}")
            else:
                if connection is None:
                    outcome = Refused(reason=f"there is no connection named {attempt.connection!r}")
                else:
                    with _span(attempt):
                        outcome = await self._executors.execute(
                            Context(
                                compensation_id=attempt.id,
                                action_key=attempt.action_key,
                                executor=executor,
                                connection=connection,
                                effects=attempt.effects,
                                rollback_id=attempt.rollback_id,
                                reason=attempt.reason,
                                incident=attempt.incident,
                                attempt=attempt.number,
                                doubtful=attempt.trial.doubtful,
                                timeout_seconds=attempt.rules.timeout_seconds,
                                may_act=lambda: self._leases.trusted(shards),
                            )
                        )
        end = ended(
            attempt.id,
            attempt.token,
            attempt.number,
            attempt.trial,
            attempt.rules,
            outcome,
            chance=self._entropy.random(),
            environment=attempt.environment,
        )
        self._failures.tell(attempt, end)
        self._writer.tell(News(shards=shards, rollback=rollback, since=self._clock.monotonic(), ended=end))

    async def _sight(self, look_up: LookUp, rollback: Rollback, shards: int) -> None:
        sighting = await self._sighting(look_up, rollback, look_up.rules, shards)
        news = News(shards=shards, rollback=rollback, since=self._clock.monotonic(), sighting=(look_up, sighting))
        self._writer.tell(news)

    async def _sighting(self, look_up: LookUp, rollback: Rollback, rules: Rules, shards: int) -> Sighting:
        effect, executor = look_up.effect, rules.compensation
        if not isinstance(executor, Refund):
            return Unknown(error="its executor has no look-up")
        try:
            connection = await self._connection(rollback.environment, executor.connection)
        except (RuntimeFault, asyncpg.PostgresError) as error:
            return Unknown(error=f"the connection could not be read: {type(error).__name__}")
        if connection is None:
            return Unknown(error=f"there is no connection named {executor.connection!r}")
        subject = Subject(
            id=effect.id,
            kind=effect.kind,
            key=effect.key,
            subject=effect.subject,
            payload=effect.payload,
            result=effect.result,
            amount_minor=None,
            currency=None,
        )
        return await self._executors.look_up(
            Context(
                compensation_id=effect.id,
                action_key=f"{effect.id}:look_up",
                executor=executor,
                connection=connection,
                effects=[subject],
                rollback_id=rollback.id,
                reason=rollback.reason,
                incident=rollback.incident,
                attempt=effect.judge_count + 1,
                doubtful=True,
                timeout_seconds=rules.timeout_seconds,
                may_act=lambda: self._leases.trusted(shards),
            )
        )

    async def _connection(self, environment: str, name: str) -> Connection | None:
        now = self._clock.monotonic()
        kept = self._connections.get((environment, name))
        if kept is None or now - kept[0] > FRESH_SECONDS:
            async with self._pg.connection() as lent:
                kept = (now, await connections.get(lent, environment, name))
            self._connections[environment, name] = kept
        return kept[1]


def _span(attempt: Attempt) -> AbstractContextManager[None]:
    """In the trace of the saga instance, with links to where what it undoes was done."""
    done = [place["traceparent"] for place in attempt.instances if place["traceparent"]]
    return continued(f"undo {attempt.kind}", attempt.traceparent, done)

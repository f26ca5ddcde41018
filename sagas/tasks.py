"""Workers: teams' own handlers claim compensations, report and keep their leases over HTTP (P13, P15, P17).

Any server answers them. A claim begins as a coordinator's does: subject, pace and order are judged in the claiming
transaction, and the attempt is on record before the worker hears of it; what many workers say and ask at once is one group
(`undoing.py`). A worker that falls silent loses its lease, and the coordinator decides by the step's guarantee. A claim waits
for work by polling; `ring` shortens the wait.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import msgspec
from rescind.wire import (
    Task,
    TaskClaim,
    TaskClaimAnswer,
    TaskHeartbeat,
    TaskReportAnswer,
    TaskReportRequest,
)

from runtime.clock import Clock, Entropy
from runtime.postgres import Connection, Postgres
from runtime.queries import Queries
from runtime.right import Right
from runtime.tokens import Principal
from sagas import look_ups
from sagas.breakers import Breakers
from sagas.claims import Attempt
from sagas.definitions import store as definitions
from sagas.undoing import Answer, Turn, Undoing, uuid_of

QUERIES = Queries.load("sagas", "tasks")
POLL_SECONDS = 0.25
REPORTS_MAX = 1_000
GREET_SECONDS = 10.0
"""Far less than after what silence nobody is taken to serve a step (`NO_WORKER_SECONDS`)."""
GREETED_MAX = 4_096


class TaskService:
    """One per process."""

    def __init__(
        self,
        pg: Postgres,
        clock: Clock,
        entropy: Entropy,
        *,
        breakers: Breakers | None = None,
        on_news: Callable[[bool, bool], None] = lambda is_ready, has_ended: None,
    ) -> None:
        self._pg = pg
        self._clock = clock
        self._on_news = on_news
        self._undoing = Undoing(pg, clock, entropy, breakers or Breakers(clock, "undo"), on_news=self._news)
        self._bell = asyncio.Event()
        self._greeted: dict[tuple[str, ...], float] = {}

    async def start(self) -> None:
        """Begin to write."""
        await self._undoing.start()

    async def stop(self) -> None:
        """Finish what is queued, within moments."""
        await self._undoing.stop()

    def _news(self, is_ready: bool, has_ended: bool) -> None:
        if is_ready:
            self.ring()
        self._on_news(is_ready, has_ended)

    def ring(self) -> None:
        """There may be work: every waiting claim looks again."""
        bell, self._bell = self._bell, asyncio.Event()
        bell.set()

    async def claim(
        self,
        environment: str,
        request: TaskClaim,
        principal: Principal,
        right: Right | None = None,
        gone: asyncio.Event | None = None,
    ) -> TaskClaimAnswer:
        """Begin up to `limit` compensations for the worker; wait up to `wait_seconds` for the first. Once `gone`, begin none.

        Raises `Problem` 403, 401 for who loses the right while waiting (it is looked at before each attempt to claim), and 404
        where the saga is not registered when the wait is over: a worker may start before it is.
        """
        principal.require(f"work:{request.saga}", environment)
        deadline = self._clock.monotonic() + request.wait_seconds
        await self.greet(environment, request)
        while True:
            bell = self._bell
            if gone is not None and gone.is_set():
                return TaskClaimAnswer(tasks=[])
            tasks = await self.take(environment, request)
            left = deadline - self._clock.monotonic()
            if tasks or left <= 0:
                if not tasks:
                    await self.require_registered(environment, request.saga)
                return TaskClaimAnswer(tasks=tasks)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, POLL_SECONDS)):
                    await bell.wait()
            if right is not None:
                await right.check()

    async def report(
        self, environment: str, request: TaskReportRequest, principal: Principal, claim: TaskClaim | None = None
    ) -> TaskReportAnswer:
        """Record how the worker's attempts ended, in order, and begin what is claimed with it. A worker reports on sagas it may
        work for, else they are `lost`."""
        answer = await self._undoing.turn(
            Turn(
                environment=environment,
                principal=principal,
                worker=request.worker,
                reports=request.reports[:REPORTS_MAX],
                claim=claim,
            )
        )
        results: list[Any] = answer.results
        return TaskReportAnswer(results=results, tasks=_tasks(answer, claim))

    async def heartbeat(self, environment: str, beat: TaskHeartbeat, principal: Principal) -> list[str]:
        """Extend the leases of what the worker holds. Returns the ids that it still holds."""
        pairs = [
            (uuid_of(identity), uuid_of(token))
            for identity, _, token in (task.partition(":") for task in beat.tasks[:REPORTS_MAX])
        ]
        known = [(identity, token) for identity, token in pairs if identity is not None and token is not None]
        async with self._pg.transaction() as connection:
            held = await self._held(connection, environment, known, principal)
            ids, tokens = [identity for identity, _ in held], [token for _, token in held]
            rows = await connection.fetch(QUERIES.keep, environment, ids, tokens, beat.lease_seconds)
        return [str(row["id"]) for row in rows]

    async def lives(self, environment: str, request: TaskClaim) -> None:
        """A worker whose reports bring it the next tasks claims nothing by itself for as long as there are some: note now and
        then that it lives."""
        now, place = self._clock.monotonic(), (environment, request.worker, request.saga, *request.versions, "", *request.steps)
        if now - self._greeted.get(place, -GREET_SECONDS) < GREET_SECONDS:
            return
        if len(self._greeted) >= GREETED_MAX:
            self._greeted.clear()
        self._greeted[place] = now
        await self.greet(environment, request)

    async def greet(self, environment: str, request: TaskClaim) -> None:
        """Note that the worker lives, and have what waited for one tried again."""
        async with self._pg.transaction() as connection:
            await connection.execute(
                QUERIES.seen,
                environment,
                request.worker,
                request.saga,
                request.versions,
                request.steps,
                request.look_ups,
            )
            rows = await connection.fetch(QUERIES.revive, environment, request.saga, request.versions, request.steps)
            if rows:
                await connection.execute(QUERIES.follow_revival, [row["id"] for row in rows])
            concerned = {row["rollback_id"] for row in rows}
            if request.look_ups:
                concerned |= await look_ups.revive(connection, environment, request)
            if concerned:
                await connection.execute(QUERIES.reopen, sorted(concerned))

    async def require_registered(self, environment: str, saga: str) -> None:
        """Raise `Problem` 404 where there is no such saga."""
        async with self._pg.connection() as connection:
            await definitions.require(connection, environment, saga)

    async def take(self, environment: str, request: TaskClaim) -> list[Task]:
        """Begin up to `limit` compensations for the worker, without waiting."""
        turn = Turn(environment=environment, principal=None, worker=request.worker, claim=request)
        return _tasks(await self._undoing.turn(turn), request)

    async def _held(
        self, connection: Connection, environment: str, pairs: Sequence[tuple[UUID, UUID]], principal: Principal
    ) -> list[tuple[UUID, UUID]]:
        """Those of these attempts that are the worker's to say something of."""
        ids, tokens = [identity for identity, _ in pairs], [token for _, token in pairs]
        return [
            (row["id"], row["token"])
            for row in await connection.fetch(QUERIES.held, ids, tokens)
            if row["environment"] == environment and principal.allows(f"work:{row['definition']}", environment)
        ]


def _tasks(answer: Answer, claim: TaskClaim | None) -> list[Task]:
    return [_task(attempt, claim.lease_seconds) for attempt in answer.attempts] if claim is not None else []


def _task(attempt: Attempt, lease_seconds: float) -> Task:
    effects: list[dict[str, Any]] = [
        {**msgspec.to_builtins(effect), **place} for effect, place in zip(attempt.effects, attempt.instances, strict=True)
    ]
    return Task(
        id=str(attempt.id),
        token=str(attempt.token),
        saga=attempt.reference.name,
        version=attempt.reference.version,
        step=attempt.step or "",
        attempt=attempt.number,
        action_key=attempt.action_key,
        effects=effects,
        lease_seconds=lease_seconds,
        heartbeat_timeout_seconds=attempt.rules.heartbeat_timeout_seconds,
        traceparent=attempt.traceparent,
    )

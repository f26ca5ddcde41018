"""Workers: teams' own handlers claim compensations, report and keep their leases over HTTP (P13, P15, P17).

Any server answers them. A claim begins as a coordinator's does: subject, pace and order are judged in the claiming transaction,
and the attempt is on record before the worker hears of it. A worker that falls silent loses its lease, and the coordinator
decides by the step's guarantee. A claim waits for work by polling; `ring` shortens the wait.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from asyncpg import Record
from rescind.wire import (
    Task,
    TaskClaim,
    TaskClaimAnswer,
    TaskHeartbeat,
    TaskReport,
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
from sagas.catalogue import Catalogue
from sagas.claims import Attempt, Claims, WorkerFilter, reference_of, trial_of
from sagas.definitions import store as definitions
from sagas.executors.outcomes import Done, Doubt, NotYet, Outcome, plain
from sagas.outcomes import Ended, ended, record, told

QUERIES = Queries.load("sagas", "tasks")
DISPATCH = Queries.load("sagas", "dispatch")
POLL_SECONDS = 0.25
REPORTS_MAX = 1_000


class TaskService:
    """One per process."""

    def __init__(self, pg: Postgres, clock: Clock, entropy: Entropy, *, breakers: Breakers | None = None) -> None:
        self._pg = pg
        self._clock = clock
        self._entropy = entropy
        self._catalogue = Catalogue(clock)
        self._breakers = breakers or Breakers(clock, "undo")
        self._claims = Claims(self._catalogue, entropy, breakers=self._breakers)
        self._bell = asyncio.Event()

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

    async def report(self, environment: str, request: TaskReportRequest, principal: Principal) -> TaskReportAnswer:
        """Record how the worker's attempts ended, in order. A worker reports on sagas it may work for, else they are `lost`."""
        reports = request.reports[:REPORTS_MAX]
        named = [(_uuid(report.id), _uuid(report.token)) for report in reports]
        async with self._pg.transaction() as connection:
            await connection.execute(DISPATCH.prefer_indexes)
            known = [(identity, token) for identity, token in named if identity is not None and token is not None]
            held = await self._held(connection, environment, known, principal)
            ends: dict[UUID, Ended] = {}
            for (identity, token), report in zip(named, reports, strict=True):
                if identity is not None and token is not None and (identity, token) in held and identity not in ends:
                    ends[identity] = await self._ended(connection, held[identity, token], report)
            won = await record(connection, list(ends.values())) if ends else set()
            lost = [
                (identity, report)
                for (identity, _), report in zip(named, reports, strict=True)
                if identity is not None and identity not in ends
            ]
            if lost:
                details = [plain(report) for _, report in lost]
                await connection.execute(QUERIES.note_late, request.worker, [identity for identity, _ in lost], details)
            await connection.execute(QUERIES.ring, sorted({row["rollback_id"] for row in held.values()}))
        await self._breakers.tell(self._pg.connection, told(list(ends.values())))
        self.ring()
        return TaskReportAnswer(results=["recorded" if identity in won else "lost" for identity, _ in named])

    async def heartbeat(self, environment: str, beat: TaskHeartbeat, principal: Principal) -> list[str]:
        """Extend the leases of what the worker holds. Returns the ids that it still holds."""
        pairs = [
            (_uuid(identity), _uuid(token)) for identity, _, token in (task.partition(":") for task in beat.tasks[:REPORTS_MAX])
        ]
        known = [(identity, token) for identity, token in pairs if identity is not None and token is not None]
        async with self._pg.transaction() as connection:
            held = list(await self._held(connection, environment, known, principal))
            ids, tokens = [identity for identity, _ in held], [token for _, token in held]
            rows = await connection.fetch(QUERIES.keep, environment, ids, tokens, beat.lease_seconds)
        return [str(row["id"]) for row in rows]

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
        async with self._pg.connection() as connection:
            rows = await connection.fetch(QUERIES.running_rollbacks, environment, request.saga, request.versions, request.steps)
        rollbacks = [row["id"] for row in rows]
        worker = WorkerFilter(saga=request.saga, versions=request.versions, steps=request.steps)
        tasks: list[Task] = []
        for rollback_id in rollbacks:
            if len(tasks) >= request.limit:
                break
            async with self._pg.transaction() as connection:
                await connection.execute(DISPATCH.prefer_indexes)
                claimed = await self._claims.claim(
                    connection,
                    rollback_id,
                    actor=request.worker,
                    limit=request.limit - len(tasks),
                    worker=worker,
                    lease_seconds=request.lease_seconds,
                )
            if claimed is not None:
                tasks += [_task(attempt, request.lease_seconds) for attempt in claimed.attempts]
        return tasks

    async def _held(
        self, connection: Connection, environment: str, pairs: Sequence[tuple[UUID, UUID]], principal: Principal
    ) -> dict[tuple[UUID, UUID], Record]:
        rows = await connection.fetch(
            QUERIES.held, environment, [identity for identity, _ in pairs], [token for _, token in pairs]
        )
        return {(row["id"], row["token"]): row for row in rows if principal.allows(f"work:{row['definition']}", environment)}

    async def _ended(self, connection: Connection, row: Record, report: TaskReport) -> Ended:
        rules = await self._catalogue.rules(connection, reference_of(row))
        assert rules is not None, "definitions are never deleted"
        return ended(
            row["id"],
            row["token"],
            row["attempt"],
            trial_of(row, rules),
            rules,
            _outcome(report),
            chance=self._entropy.random(),
            environment=row["environment"],
        )


def _outcome(report: TaskReport) -> Outcome:
    match report.outcome:
        case "succeeded":
            return Done(proof={"proof": report.proof})
        case "failed" | "not_started":
            return NotYet(error=plain(report.error))
        case "unknown":
            return Doubt(evidence={"error": report.error})


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


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None

"""Workers: steps to act and effects to undo, through the same three requests (P8, P13, P15).

What undoes goes first, then what is to be looked up: a claim is never so full of steps that a kill's compensations wait for it.
A report brings the next steps in its answer; a claim waits for the first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID

import msgspec
from rescind.wire import (
    ReportRequest,
    Task,
    TaskClaim,
    TaskClaimAnswer,
    TaskHeartbeat,
    TaskReport,
    TaskReportAnswer,
    TaskReportRequest,
)

from runtime.clock import Clock
from runtime.errors import Unavailable
from runtime.postgres import Connection, Postgres
from runtime.problem import Problem
from runtime.right import Right
from runtime.tokens import Principal
from sagas import look_ups
from sagas.core import reports
from sagas.core.reports import Report
from sagas.core.sightings import Said
from sagas.instances.bells import Bells
from sagas.instances.engine import Engine
from sagas.instances.rows import QUERIES
from sagas.instances.turns import Hands, Sighting, Turn
from sagas.ledger import Ledger
from sagas.tasks import POLL_SECONDS, REPORTS_MAX, TaskService

BATCH_MAX = 256
SAID = {"succeeded": Said.FOUND, "failed": Said.ABSENT}
ExpectOpen = Callable[[str], Awaitable[None]]


class Work:
    """One per process."""

    def __init__(
        self,
        pg: Postgres,
        clock: Clock,
        engine: Engine,
        undoing: TaskService,
        ledger: Ledger,
        bells: Bells,
        *,
        expect_open: ExpectOpen | None = None,
    ) -> None:
        self._pg = pg
        self._clock = clock
        self._engine = engine
        self._undoing = undoing
        self._ledger = ledger
        self._bells = bells
        self._expect_open = expect_open

    def ring(self) -> None:
        """There may be work: every waiting claim looks again."""
        self._undoing.ring()
        self._bells.ring_ready()

    async def claim(
        self,
        environment: str,
        request: TaskClaim,
        principal: Principal,
        right: Right | None = None,
        gone: asyncio.Event | None = None,
    ) -> TaskClaimAnswer:
        """Up to `limit` tasks; waits up to `wait_seconds` for the first. A worker that acts nothing is given no steps.

        Once `gone` is set, its worker takes nothing more. Raises `Problem` 403, 401 for who loses the right while waiting, and
        404 where the saga is not registered when the wait is over.
        """
        if not request.acts and not request.look_ups:
            return await self._undoing.claim(environment, request, principal, right, gone)
        principal.require(f"work:{request.saga}", environment)
        begun = self._clock.monotonic()
        deadline = begun + request.wait_seconds
        await self._undoing.greet(environment, request)
        while True:
            bell = self._bells.ready
            if gone is not None and gone.is_set():
                return TaskClaimAnswer(tasks=[])
            tasks = await self._undoing.take(environment, request) if request.steps else []
            tasks += await self._look_ups(environment, request, request.limit - len(tasks))
            held_ms = round((self._clock.monotonic() - begun) * 1000)
            tasks += await self._acts(environment, request, request.limit - len(tasks), held_ms)
            left = deadline - self._clock.monotonic()
            if tasks or left <= 0:
                if not tasks:
                    await self._undoing.require_registered(environment, request.saga)
                return TaskClaimAnswer(tasks=tasks)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, POLL_SECONDS)):
                    await bell.wait()
            if right is not None:
                await right.check()

    async def _acts(self, environment: str, request: TaskClaim, limit: int, held_ms: int) -> list[Task]:
        if limit <= 0 or not request.acts or not await self._is_open(environment):
            return []
        hands = Hands(environment, msgspec.structs.replace(request, limit=limit))
        answer = await self._engine.turn(Turn(hands=hands))
        return [msgspec.structs.replace(task, held_ms=held_ms) for task in answer.tasks]

    async def _look_ups(self, environment: str, request: TaskClaim, limit: int) -> list[Task]:
        """Effects in doubt that this worker can look up."""
        if limit <= 0 or not request.look_ups:
            return []
        async with self._pg.transaction() as connection:
            rows = await look_ups.take(connection, environment, request, limit)
            timeouts = [await self._timeout_seconds(connection, environment, row) for row in rows]
        return [_question(row, request.lease_seconds, seconds) for row, seconds in zip(rows, timeouts, strict=True)]

    async def _timeout_seconds(self, connection: Connection, environment: str, row: Mapping[str, Any]) -> float | None:
        planned = await self._engine.plans.get(connection, (environment, row["saga"], row["saga_version"]))
        step = None if planned is None else planned.definition.step(row["step"])
        return None if step is None else step.act.timeout_seconds

    async def _is_open(self, environment: str) -> bool:
        """Whether effects are admitted there now; outcomes are recorded all the same."""
        if self._expect_open is None:
            return True
        try:
            await self._expect_open(environment)
        except (Problem, Unavailable):
            return False
        return True

    async def report(self, environment: str, request: TaskReportRequest, principal: Principal) -> TaskReportAnswer:
        """Record how tasks ended, in order, and hand out what is claimed with it. Nothing is waited for.

        A worker reports on sagas it may work for, else its reports are `lost`.
        """
        claim = request.claim
        if claim is not None:
            principal.require(f"work:{claim.saga}", environment)
            await self._undoing.lives(environment, claim)
        told = request.reports[:REPORTS_MAX]
        acts = [report for report in told if report.verb == "act"]
        seen = [report for report in told if report.verb == "look_up"]
        undone = [report for report in told if report.verb not in ("act", "look_up")]
        results: dict[int, str] = {}
        for start in range(0, len(seen), BATCH_MAX):
            batch = seen[start : start + BATCH_MAX]
            words = await self._sight(environment, request.worker, batch, principal)
            results |= dict(zip(map(id, batch), words, strict=True))
        tasks: list[Task] = []
        if undone:
            answer = await self._undoing.report(environment, msgspec.structs.replace(request, reports=undone), principal, claim)
            results |= dict(zip(map(id, undone), answer.results, strict=True))
            tasks = answer.tasks
        if claim is not None:
            tasks += await self._look_ups(environment, claim, claim.limit - len(tasks))
        has_laid = False
        if acts or claim is not None:
            is_claiming = claim is not None and bool(claim.acts) and await self._is_open(environment)
            hands = _hands(environment, claim, len(tasks)) if claim is not None and is_claiming else None
            for start in range(0, max(1, len(acts)), BATCH_MAX):
                batch = acts[start : start + BATCH_MAX]
                told_of, laid = await self._record(environment, batch, principal, hands)
                results |= dict(zip(map(id, batch), told_of, strict=True))
                has_laid |= laid
            tasks += hands.tasks if hands is not None else []
        if has_laid and claim is not None and claim.steps:
            tasks += await self._undone_at_once(environment, claim, claim.limit - len(tasks))
        return TaskReportAnswer(
            results=[results[id(report)] for report in told],  # type: ignore[misc] # recorded or lost
            tasks=tasks,
        )

    async def _undone_at_once(self, environment: str, claim: TaskClaim, room: int) -> list[Task]:
        """What turned back with a report is undone by whoever reported it, where it has room; else by who waits."""
        if room <= 0:
            self.ring()
            return []
        return await self._undoing.take(environment, msgspec.structs.replace(claim, limit=room))

    async def _record(
        self, environment: str, batch: list[TaskReport], principal: Principal, hands: Hands | None
    ) -> tuple[list[str], bool]:
        """What became of each report, and whether workers have something to undo now."""
        read = [_report(environment, report) for report in batch]
        sound = [report for report in read if report is not None]
        answer = await self._engine.turn(Turn(reports=sound, sagas=_sagas(principal), hands=hands))
        told = iter(answer.reported)
        return ["lost" if report is None else next(told) for report in read], answer.laid

    async def _sight(self, environment: str, worker: str, batch: list[TaskReport], principal: Principal) -> list[str]:
        """Record what look-ups said; the instances that asked go on with it."""
        read = [_sighting(environment, worker, report) for report in batch]
        sound = [sighting for sighting in read if sighting is not None]
        answer = await self._engine.turn(Turn(sightings=sound, sagas=_sagas(principal)))
        told = iter(answer.sighted)
        return ["lost" if sighting is None else next(told) for sighting in read]

    async def heartbeat(self, environment: str, beat: TaskHeartbeat, principal: Principal) -> list[str]:
        """Extend the leases of what the worker holds. Returns the ids that it still holds."""
        held = await self._undoing.heartbeat(environment, beat, principal)
        left = [task for task in beat.tasks[:REPORTS_MAX] if task.partition(":")[0] not in held]
        named = [(identity, token) for identity, _, token in (task.partition(":") for task in left)]
        ids = [(one, two) for identity, token in named if (one := _uuid(identity)) and (two := _uuid(token))]
        if not ids:
            return held
        async with self._pg.transaction() as connection:
            asked = await look_ups.keep(connection, environment, ids, beat.lease_seconds)
        held += [str(identity) for identity in asked]
        ids = [(one, two) for one, two in ids if one not in asked]
        if not ids:
            return held
        news = [
            {"effect_id": str(identity), "token": str(token), "outcome": "extend", "lease_seconds": beat.lease_seconds}
            for identity, token in await self._alive(environment, ids)
        ]
        for start in range(0, len(news), BATCH_MAX):
            await self._ledger.report(environment, ReportRequest(reports=list(news[start : start + BATCH_MAX])))
        return held + [str(identity) for identity, _ in await self._alive(environment, ids)]

    async def _alive(self, environment: str, ids: list[tuple[UUID, UUID]]) -> list[tuple[UUID, UUID]]:
        """Those of these steps whose lease runs, by id and token."""
        async with self._pg.connection() as connection:
            rows = await connection.fetch(QUERIES.held, environment, [one for one, _ in ids], [two for _, two in ids])
        alive = {row["id"] for row in rows}
        return [pair for pair in ids if pair[0] in alive]


def _hands(environment: str, claim: TaskClaim, taken: int) -> Hands | None:
    """For what may still be given; none where the worker has its hands full."""
    left = claim.limit - taken
    return Hands(environment, msgspec.structs.replace(claim, limit=left)) if left > 0 else None


def _sagas(principal: Principal) -> frozenset[str] | None:
    """The sagas a worker may report of, null for all of them."""
    scopes = {scope.partition(":")[2] for scope in principal.scopes if scope.startswith("work:")}
    return None if "admin" in principal.scopes or "work" in principal.scopes else frozenset(scopes)


def _report(environment: str, told: TaskReport) -> Report | None:
    error = told.error
    if told.outcome == "failed" and told.final:
        error = {**(error or {}), "final": True}
    document = {
        "effect_id": told.id,
        "token": told.token,
        "outcome": told.outcome,
        "result": told.proof,
        "error": error,
        "traceparent": told.traceparent,
    }
    return reports.parse(environment, document)[0]


def _sighting(environment: str, worker: str, told: TaskReport) -> Sighting | None:
    """What a look-up's report says; anything but "it was done" and "it never was" is that nobody can say yet."""
    effect, token = _uuid(told.id), _uuid(told.token)
    if effect is None or token is None:
        return None
    said = SAID.get(told.outcome, Said.UNKNOWN)
    error = {**(told.error or {}), "final": True} if told.final and said is Said.ABSENT else told.error
    told_json, _ = reports.kept(told.proof if said is Said.FOUND else error)
    return Sighting(environment=environment, effect_id=effect, token=token, said=said, told_json=told_json, worker=worker)


def _question(row: Mapping[str, Any], lease_seconds: float, timeout_seconds: float | None) -> Task:
    """An effect in doubt, for a worker to look up: what it was given, and the key that its provider was."""
    names = (
        "kind",
        "key",
        "flag",
        "variant",
        "epoch",
        "attributes",
        "subject",
        "payload",
        "saga",
        "saga_instance",
        "step",
        "attempt",
    )
    return Task(
        id=str(row["id"]),
        token=str(row["token"]),
        saga=row["saga"],
        version=row["saga_version"],
        step=row["step"],
        attempt=row["count"] + 1,
        action_key=str(row["id"]),
        effects=[{"id": str(row["id"]), **{name: row[name] for name in names}}],
        lease_seconds=lease_seconds,
        verb="look_up",
        instance=row["saga_instance"],
        timeout_seconds=timeout_seconds,
        traceparent=row["instance_traceparent"],
    )


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None

"""Instances as services and people meet them: started, awaited, spoken to (P8, P19, P20).

instances = Instances(pg, clock, engine)
await instances.start("production", "order", request, principal)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID

import msgspec
from asyncpg import Record
from rescind.wire import (
    Fault,
    InstanceAwait,
    InstanceAwaitAnswer,
    InstanceStartAnswer,
    InstanceStarted,
    InstanceStartRequest,
    InstanceState,
)

from runtime.clock import Clock
from runtime.postgres import Postgres
from runtime.problem import Problem, suggest
from runtime.right import Right
from runtime.tokens import Principal
from sagas import sealing
from sagas.core.reports import RESULT_BYTES_MAX
from sagas.decisions import Decisions
from sagas.definitions import store as definitions
from sagas.instances import starting
from sagas.instances.bells import Bells
from sagas.instances.engine import Engine
from sagas.instances.plans import Planned
from sagas.instances.rows import QUERIES
from sagas.instances.turns import Hands, Heard, Start, Turn, Word, plain
from sagas.instances.words import VERBS

BATCH_MAX = 256
AWAITED_MAX = 256
POLL_SECONDS = 0.25
STANDS = ("done", "undone", "killed", "waiting")
"""Where an instance does not go on by itself."""

ExpectOpen = Callable[[str], Awaitable[None]]


class Instances:
    """One per process. `expect_open` raises where an environment takes no effects now."""

    def __init__(
        self,
        pg: Postgres,
        clock: Clock,
        engine: Engine,
        bells: Bells,
        decisions: Decisions,
        *,
        expect_open: ExpectOpen | None = None,
    ) -> None:
        self._pg = pg
        self._clock = clock
        self._engine = engine
        self._bells = bells
        self._decisions = decisions
        self._expect_open = expect_open

    async def start(
        self, environment: str, saga: str, request: InstanceStartRequest, principal: Principal
    ) -> InstanceStartAnswer:
        """One result per instance, in order; one bad item never fails the batch. With `claim`, their first steps in the answer.

        Raises `Problem` 413 for more than `BATCH_MAX`, `Unavailable` (nothing was begun), `OutcomeUnknown` (start again).
        """
        principal.require("effects", environment)
        if request.claim is not None:
            principal.require(f"work:{request.claim.saga}", environment)
        if len(request.instances) > BATCH_MAX:
            raise Problem(413, "too_large", "Too large", f"A batch has at most {BATCH_MAX} instances.")
        if self._expect_open is not None:
            await self._expect_open(environment)
        read = [starting.parse(environment, saga, document, principal.name) for document in request.instances]
        planned = await self._planned(environment, saga, {start.version for start, _ in read if start is not None})
        results: list[InstanceStarted | None] = []
        starts: list[Start] = []
        for start, faults in read:
            known = planned.get(start.version) if start is not None else None
            if start is not None and known is not None:
                faults = starting.missing(start, known)
            results.append(starting.invalid(faults) if faults else None)
            if start is not None and not faults:
                starts.append(start)
        hands = Hands(environment, request.claim) if request.claim is not None else None
        answer = await self._engine.turn(Turn(starts=starts, hands=hands))
        told = iter(answer.started)
        return InstanceStartAnswer(results=[next(told) if one is None else one for one in results], tasks=answer.tasks)

    async def wait(
        self, environment: str, saga: str, request: InstanceAwait, principal: Principal, right: Right | None = None
    ) -> InstanceAwaitAnswer:
        """Those that do not go on by themselves, as soon as there is one, else none after `wait_seconds`.

        Raises `Problem` 413 for more than `AWAITED_MAX` ids; 403 and 401 as the right to ask ends.
        """
        principal.require("effects", environment)
        if len(request.ids) > AWAITED_MAX:
            raise Problem(413, "too_large", "Too large", f"At most {AWAITED_MAX} instances are awaited at once.")
        deadline = self._clock.monotonic() + request.wait_seconds
        while True:
            bell = self._bells.ended
            async with self._pg.connection() as connection:
                found, ring = await connection.fetch(QUERIES.states, environment, saga, request.ids), connection.ring
            known = {row["id"] for row in found}
            unknown = [identity for identity in request.ids if identity not in known]
            name = {"environment": environment, "saga": saga}
            ended = [state_of(sealing.instance(ring, {**name, **row})) for row in found if row["state"] in STANDS]
            left = deadline - self._clock.monotonic()
            if ended or left <= 0 or (unknown and not known):
                return InstanceAwaitAnswer(ended=ended, unknown=unknown)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, POLL_SECONDS)):
                    await bell.wait()
            if right is not None:
                await right.check()

    async def verb(
        self, environment: str, saga: str, identity: str, verb: str, *, name: str, principal: Principal, reason: str
    ) -> Heard:
        """cancel, pause, resume, retry or skip. Nothing changes the second time. Raises `Problem` 404 and 422."""
        if verb not in VERBS:
            detail = f"There is no {verb[:40]!r} of an instance."
            raise Problem(404, "not_found", "Not found", detail, suggestion=suggest(verb, VERBS))
        row = await self.find(environment, saga, identity)
        planned = await self._of(row)
        if verb == "skip" and not name:
            raise _refused("/step", "`skip` names its step or wait; `cancel` undoes the whole instance")
        if name and planned.definition.step(name) is None and planned.wait(name) is None:
            known = [step.name for step in planned.definition.steps] + [wait.name for wait in planned.plan.waits]
            raise Problem(
                404, "unknown_step", "No such step", f"{saga!r} has no step {name[:80]!r}.", suggestion=suggest(name, known)
            )
        if row["laid"] and verb in ("retry", "skip"):
            return await self.decide_undoing(row, verb, name, principal.name, reason)
        return await self._say(row, verb, name, None, principal, reason)

    async def event(
        self,
        environment: str,
        saga: str,
        identity: str,
        name: str,
        *,
        payload: Any,
        event_id: str | None,
        principal: Principal,
    ) -> Heard:
        """An event from outside, before or while it is waited for. A known `event_id` changes nothing."""
        row = await self.find(environment, saga, identity)
        await self._require_wait(row, name, "event")
        if len(msgspec.json.encode(payload)) > RESULT_BYTES_MAX:
            raise _refused("/payload", f"is larger than {RESULT_BYTES_MAX} bytes of JSON")
        return await self._say(row, "event", name, {"payload": payload, "event_id": event_id}, principal, None, event_id)

    async def approval(
        self, environment: str, saga: str, identity: str, name: str, *, approve: bool, principal: Principal, reason: str
    ) -> Heard:
        """A person's yes or no; the first word stands."""
        row = await self.find(environment, saga, identity)
        await self._require_wait(row, name, "approval")
        return await self._say(row, "approved" if approve else "refused", name, None, principal, reason)

    async def find(self, environment: str, saga: str, identity: str) -> Record:
        """The instance's row. Raises `Problem` 404."""
        async with self._pg.connection() as connection:
            row = await connection.fetchrow(QUERIES.one, environment, saga, identity)
            near = [] if row else [one["id"] for one in await connection.fetch(QUERIES.near, environment, saga)]
        if row is None:
            detail = f"There is no instance {identity[:80]!r} of saga {saga[:80]!r} in {environment!r}."
            raise Problem(404, "unknown_instance", "No such instance", detail, suggestion=suggest(identity, near))
        return row

    async def _say(
        self,
        row: Record,
        fact: str,
        name: str,
        detail: dict[str, Any] | None,
        principal: Principal,
        reason: str | None,
        event_id: str | None = None,
    ) -> Heard:
        word = Word(
            uid=row["uid"],
            environment=row["environment"],
            fact=fact,
            name=name,
            detail=detail,
            by_whom=principal.name,
            reason=reason,
            event_id=event_id,
        )
        [heard] = (await self._engine.turn(Turn(words=[word]))).heard
        return heard

    async def decide_undoing(
        self, row: Record, verb: str, name: str, by_whom: str, reason: str, operation: UUID | None = None
    ) -> Heard:
        """Of one that is being undone: what waits for a person is tried again, or left as it is, by name.

        In transactions of its own; its history says who and why, as that of any other. `operation`: of a bulk operation.
        """
        async with self._pg.connection() as connection:
            found = await connection.fetch(
                QUERIES.undoing_effects, row["environment"], row["saga"], row["id"], name or None, verb == "skip"
            )
        by_rollback: dict[Any, list[Any]] = {}
        for one in found:
            by_rollback.setdefault(one["rollback_id"], []).append(one["effect_id"])
        decide = self._decisions.retry if verb == "retry" else self._decisions.skip
        changed = 0
        for rollback_id, effects in sorted(by_rollback.items()):
            changed += (await decide(rollback_id, effects, actor=by_whom, reason=reason)).changed
        if changed:
            detail = plain({"effects": changed, **({"operation": str(operation)} if operation else {})})
            async with self._pg.connection() as connection:
                await connection.execute(QUERIES.say, [row["uid"]], [verb], [name], [detail], [by_whom], [reason])
        return Heard(changed=changed > 0, state=row["state"], paused=row["paused"])

    async def _of(self, row: Record) -> Planned:
        async with self._pg.connection() as connection:
            planned = await self._engine.plans.get(connection, (row["environment"], row["saga"], row["version"]))
        assert planned is not None, "definitions are never deleted"
        return planned

    async def _require_wait(self, row: Record, name: str, what: str) -> None:
        planned = await self._of(row)
        waits = [wait.name for wait in planned.plan.waits if wait.what == what]
        if name not in waits:
            detail = f"{row['saga']!r} waits for no {what} named {name[:80]!r}."
            raise Problem(404, "unknown_wait", "No such wait", detail, suggestion=suggest(name, waits))

    async def _planned(self, environment: str, saga: str, versions: set[str]) -> dict[str, Planned]:
        """These versions of the saga. Raises `Problem` 404 where it has none at all."""
        async with self._pg.connection() as connection:
            found = {version: await self._engine.plans.get(connection, (environment, saga, version)) for version in versions}
            if versions and not any(found.values()):
                await definitions.require(connection, environment, saga)
        return {version: planned for version, planned in found.items() if planned is not None}


def state_of(row: Mapping[str, Any]) -> InstanceState:
    """Where an instance stands, in the wire's words."""
    return InstanceState(id=row["id"], state=row["state"], result=row["result"], reason=row["reason"], error=row["error"])


def _refused(pointer: str, detail: str) -> Problem:
    return Problem(422, "invalid", "Not acceptable as it is", detail, [Fault(pointer=pointer, detail=detail)])

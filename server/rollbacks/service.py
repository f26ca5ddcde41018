"""Kill and lift, as every path calls them (P1, P4, P8, P19, P20).

One SQL function in one short transaction decides; what follows the commit (replicas, the coordinator's bell) is told, never
waited for: a kill stands when it is committed, whatever else is broken (P5).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
from msgspec import Struct
from rescind.wire import Revision

from flagd import declarations
from runtime.clock import Entropy
from runtime.errors import OutcomeUnknown, Unavailable
from runtime.postgres import Connection, Postgres, transaction_on
from runtime.queries import Queries
from runtime.telemetry import counter
from server.rollbacks import standby
from server.rollbacks.errors import UNKNOWN_ENVIRONMENT, UNKNOWN_FLAG, problem_of, state_of, unknown_environment, unknown_flag
from server.rollbacks.recovery import NOTHING_SEEN, Recovery, Seen, expect_current, refusal
from server.rollbacks.requests import KillRequest, LiftRequest, since_of
from server.rollbacks.standby import Standby

QUERIES = Queries.load("server.rollbacks", "kills")
KILL_ATTEMPTS_MAX = 3
"""A commit whose outcome is unknown is repeated: the second one joins the first, if that stood."""
STAMP_SECONDS = 1.0

log = logging.getLogger("rescind.kills")
killed = counter("rescind.kills")
lifted = counter("rescind.lifts")
AfterCommit = Callable[[str, Revision], Awaitable[None]]
Within = Callable[[Connection, "KillAnswer"], Awaitable[None]]
"""Written in the kill's own transaction."""


class KillAnswer(Struct, frozen=True, kw_only=True):
    """202: the fence has committed. `joined`: the standing kill covered it; `widened`: it now undoes, or covers, more.

    `standby`: whether the synchronous standby has it; null where PostgreSQL has none, or it could not be asked."""

    rollback_id: str
    revision: str
    fenced_at: datetime
    joined: bool
    widened: bool
    kill_count: int
    compensate: str
    standby: Standby | None = None


class LiftAnswer(Struct, frozen=True, kw_only=True):
    """The flag is under its own rules again. `settled`: rollbacks that ended with nothing undone."""

    revision: str
    lifted_at: datetime
    rollback_ids: list[str]
    kill_count: int
    settled: list[str]


class Kills:
    """Kills and lifts flags. `after_commit` brings the replicas up to a revision, `nudge` rings the coordinator's bell."""

    def __init__(
        self, pg: Postgres, entropy: Entropy, recovery: Recovery, after_commit: AfterCommit, nudge: Callable[[], None]
    ) -> None:
        self._pg = pg
        self._recovery = recovery
        self._entropy = entropy
        self._after_commit = after_commit
        self._nudge = nudge
        self._tasks: set[asyncio.Task[None]] = set()

    async def kill(
        self, environment: str, flags: Sequence[str], request: KillRequest, actor: str, within: Within | None = None
    ) -> KillAnswer:
        """Kill the flags in one transaction. Raises `Problem` 404 for an unknown flag, `Unavailable` if PostgreSQL is away."""
        rollback_id = self._entropy.uuid7()
        seen = await self.seen(environment)
        for _ in range(KILL_ATTEMPTS_MAX - 1):
            try:
                return await self._kill(environment, flags, request, actor, rollback_id, seen, within)
            except OutcomeUnknown as error:
                log.warning("the kill of %s is repeated: %s", ", ".join(flags), error)
        return await self._kill(environment, flags, request, actor, rollback_id, seen, within)

    async def seen(self, environment: str) -> Seen:
        """What is known outside PostgreSQL, for a kill to be above it."""
        return await self._recovery.seen(environment)

    async def _kill(
        self, environment: str, flags: Sequence[str], request: KillRequest, actor: str, rollback_id: UUID, seen: Seen,
        within: Within | None,
    ) -> KillAnswer:  # fmt: skip
        try:
            async with self._pg.urgent() as connection, standby.unhindered(self._pg.dedicated), transaction_on(connection):
                answer = await kill_within(connection, environment, flags, request, actor, rollback_id=rollback_id, seen=seen)
                if within is not None:
                    await within(connection, answer)
        except asyncpg.PostgresError as error:
            raise await self.refusal(error, environment, flags) or error from error
        self.told(environment, Revision.parse(answer.revision))
        answer = await self.stamped(answer)
        killed.add(1, {"joined": answer.joined})
        log.warning(
            "killed %s in %s: rollback %s, revision %s", ", ".join(flags), environment, answer.rollback_id, answer.revision
        )
        return answer

    async def stamped(self, answer: KillAnswer) -> KillAnswer:
        """The answer with the instant after its commit, which is *fenced*, and what the standby has."""
        if not answer.joined:
            with suppress(Unavailable, OutcomeUnknown):
                async with self._pg.urgent() as connection:
                    at = await connection.fetchval(
                        QUERIES.fenced, UUID(answer.rollback_id), answer.fenced_at, timeout=STAMP_SECONDS
                    )
                answer = msgspec.structs.replace(answer, fenced_at=at or answer.fenced_at)
        with suppress(Unavailable, OutcomeUnknown):
            async with self._pg.urgent() as connection:
                confirmed = await standby.confirm(connection, UUID(answer.rollback_id))
            answer = msgspec.structs.replace(answer, standby=confirmed)
        if answer.standby is not None and not answer.standby.confirmed:
            log.warning("the synchronous standby has not confirmed the kill of rollback %s", answer.rollback_id)
        return answer

    async def lift(self, environment: str, flag: str, request: LiftRequest, actor: str) -> LiftAnswer:
        """Lift every standing kill of the flag.

        Raises `Problem` 404, or 409 where a kill came in between, effects are being undone or the environment is in recovery.
        """
        seen = await self.seen(environment)
        try:
            async with self._pg.transaction() as connection:
                await expect_current(connection, environment, seen)
                await declarations.expect_lift(
                    connection, environment, flag, actor=actor, reason=request.reason, past_gate=request.past_gate
                )
                row = await connection.fetchrow(
                    QUERIES.lift, environment, flag, actor, request.reason, request.kill_count, request.force
                )
        except asyncpg.PostgresError as error:
            raise await self.refusal(error, environment, [flag]) or error from error
        revision = Revision(row["generation"], row["revision"])
        lifted.add(1)
        log.warning("lifted %s in %s: revision %s", flag, environment, revision)
        self.told(environment, revision)
        return LiftAnswer(
            revision=str(revision),
            lifted_at=row["lifted_at"],
            rollback_ids=[str(one) for one in row["rollback_ids"]],
            kill_count=row["kill_count"],
            settled=[str(one) for one in row["settled"]],
        )

    def told(self, environment: str, revision: Revision) -> None:
        """Tell replicas and coordinator of a commit, without waiting for either."""
        self._nudge()
        task = asyncio.create_task(self._tell(environment, revision))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Wait for what is being told."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _tell(self, environment: str, revision: Revision) -> None:
        try:
            await self._after_commit(environment, revision)
        except Exception:
            # the replicas' own poll of PostgreSQL brings it within a second
            log.warning("revision %s of %s could not be told at once", revision, environment, exc_info=True)

    async def environments(self) -> list[str]:
        """The names of all environments."""
        return await self._names(QUERIES.environments)

    async def refusal(self, error: asyncpg.PostgresError, environment: str, flags: Sequence[str]) -> Exception | None:
        """The `Problem` behind an error of the SQL functions, with suggestions; null for an error of another kind."""
        match state_of(error):
            case state if state == UNKNOWN_ENVIRONMENT:
                return unknown_environment(environment, await self.environments())
            case state if state == UNKNOWN_FLAG:
                key = getattr(error, "detail", None) or flags[0]
                return unknown_flag(key, environment, await self._names(QUERIES.flags, environment))
        return refusal(error, environment) or problem_of(error, environment=environment, flag=flags[0])

    async def _names(self, query: str, *arguments: Any) -> list[str]:
        async with self._pg.connection() as connection:
            return [row[0] for row in await connection.fetch(query, *arguments)]


async def kill_within(
    connection: asyncpg.Connection,
    environment: str,
    flags: Sequence[str],
    request: KillRequest,
    actor: str,
    *,
    rollback_id: UUID,
    seen: Seen = NOTHING_SEEN,
    in_change: bool = False,
) -> KillAnswer:
    """Kill in the caller's transaction. `in_change`: it is a change list's and has taken its revision already (P1).

    `seen`: where PostgreSQL is older than that, the kill is in a new generation above it (P2, P4)."""
    since = since_of(request.since)
    row = await connection.fetchrow(
        QUERIES.kill, environment, list(flags), request.reason, actor, request.incident, request.compensate,
        request.grace_seconds, request.scope, since.at,
        since.revision.generation if since.revision else None, since.revision.n if since.revision else None,
        request.fault_at, request.detected_at, request.decided_at, rollback_id, in_change,
        seen.revision.generation, seen.revision.n, seen.kills,
    )  # fmt: skip
    return KillAnswer(
        rollback_id=str(row["rollback_id"]),
        revision=str(Revision(row["generation"], row["revision"])),
        fenced_at=row["fenced_at"],
        joined=row["joined"],
        widened=row["widened"],
        kill_count=row["kill_count"],
        compensate=row["compensate"],
    )

"""PostgreSQL came back older than what was seen: recovery, which a kill goes through and a person ends (P2, P4, P5, hazard 5).

Whoever is ahead of PostgreSQL puts the environment in recovery: a server that notices, or a kill that comes first. It takes a
new generation above everything that was seen, closes every epoch and lays the known kills again. Changes, lifts and
admissions are refused until `rescind doctor --restored`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import asyncpg
from msgspec import Struct
from rescind.wire import Revision

from flagd.errors import in_recovery
from flagd.replica import Newest, Replicas
from runtime.clock import Clock
from runtime.errors import InRecovery, OutcomeUnknown, Unavailable
from runtime.postgres import Connection, Postgres
from runtime.problem import Problem
from runtime.queries import Queries
from runtime.telemetry import counter
from server.rollbacks.errors import IN_RECOVERY, UNKNOWN_ENVIRONMENT, state_of, unknown_environment

QUERIES = Queries.load("server.rollbacks", "recovery")
ACTOR = "recovery"
LOOK_SECONDS = 1.0
SEEN_SECONDS = 0.5
"""How long a kill waits for what Redis has seen; it goes on with what this process has."""

log = logging.getLogger("rescind.recovery")
survived = counter("rescind.recovery.errors")
Told = Callable[[str, Revision], Awaitable[None]]


class Seen(Struct, frozen=True, kw_only=True):
    """The newest revision that is known outside PostgreSQL, and the kills that stand there."""

    revision: Revision = Revision()
    kills: list[dict[str, Any]] = []


NOTHING_SEEN = Seen()


class Restored(Struct, frozen=True, kw_only=True):
    """`ended`: the environment was in recovery until now. `lost`: flags that were killed and that PostgreSQL does not know."""

    environment: str
    revision: str
    ended: bool
    lost: list[str]


class Recovery:
    """Enters recovery wherever this process is ahead of PostgreSQL, and ends it when a person says so."""

    def __init__(self, pg: Postgres, replicas: Replicas, clock: Clock, told: Told) -> None:
        self._pg = pg
        self._replicas = replicas
        self._clock = clock
        self._told = told
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._run(), name="recovery")

    async def stop(self) -> None:
        """Stop; another server or the next start goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def seen(self, environment: str) -> Seen:
        """What this process and Redis have seen, within `SEEN_SECONDS`."""
        try:
            async with asyncio.timeout(SEEN_SECONDS):
                return seen_of(await self._replicas.newest(environment))
        except TimeoutError:
            return seen_of(self._replicas.newest_held(environment))

    async def expect_open(self, environment: str) -> None:
        """Raise `Unavailable` while the environment is in recovery: nothing may be admitted (hazard 5)."""
        if self._replicas.held(environment) is None:
            with contextlib.suppress(Problem, Unavailable):
                await self._replicas.get(environment)
        if self._replicas.is_closed(environment):
            raise InRecovery(
                "The ledger", f"environment {environment} is in recovery, until an admin runs `rescind doctor --restored`"
            )

    async def look(self) -> None:
        """Put every environment in recovery that this process has seen newer than PostgreSQL has it."""
        for environment in self._replicas.ahead():
            seen = await self.seen(environment)
            async with self._pg.transaction() as connection:
                row = await recover(connection, environment, seen, ACTOR)
            if row["entered"]:
                revision = Revision(row["generation"], row["revision"])
                log.error("environment %s is in recovery since revision %s", environment, revision)
                if row["lost"]:
                    log.error("killed flags that PostgreSQL has lost: %s", ", ".join(row["lost"]))
                await self._told(environment, revision)

    async def restored(self, environment: str, actor: str, reason: str) -> Restored:
        """End the recovery. Raises `Problem` 404, `Unavailable`."""
        seen = await self.seen(environment)
        try:
            async with self._pg.transaction() as connection:
                row = await connection.fetchrow(
                    QUERIES.restored, environment, seen.revision.generation, seen.revision.n, seen.kills, actor, reason
                )
        except asyncpg.PostgresError as error:
            if state_of(error) == UNKNOWN_ENVIRONMENT:
                raise unknown_environment(environment, []) from None
            raise
        revision = Revision(row["generation"], row["revision"])
        with contextlib.suppress(Unavailable):
            await self._told(environment, revision)
            await self._replicas.look()
        return Restored(environment=environment, revision=str(revision), ended=row["ended"], lost=row["lost"])

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
            except (Unavailable, OutcomeUnknown) as error:
                log.debug("recovery waits: %s", error)
            except Exception:
                survived.add(1)
                log.exception("recovery goes on")
            await self._clock.sleep(LOOK_SECONDS)


async def recover(connection: Connection, environment: str, seen: Seen, actor: str) -> Any:
    """Put the environment in recovery, if it is older than what was seen, in the caller's transaction."""
    return await connection.fetchrow(QUERIES.recover, environment, seen.revision.generation, seen.revision.n, seen.kills, actor)


async def expect_current(connection: Connection, environment: str, seen: Seen) -> None:
    """Lock the environment. Raises an error of state RS006 in recovery, which `refusal` reads."""
    await connection.execute(QUERIES.expect_current, environment, seen.revision.generation, seen.revision.n)


def refusal(error: asyncpg.PostgresError, environment: str) -> Problem | None:
    """409 behind an error of `expect_current`; null for another one."""
    if state_of(error) != IN_RECOVERY:
        return None
    held, newest = (Revision.parse(text) for text in str(getattr(error, "detail", "0.0 0.0")).split())
    return in_recovery(environment, held, newest)


def seen_of(newest: Newest) -> Seen:
    """In the form that the SQL functions read; a kill whose rollback has no readable id gets a new one."""
    kills = [
        {"flag": flag, "scope": kill.scope, "rollback_id": _uuid(kill.rollback_id)}
        for flag, standing in newest.kills.items()
        for kill in standing
    ]
    return Seen(revision=newest.revision, kills=kills)


def _uuid(text: str) -> str | None:
    try:
        return str(UUID(text))
    except ValueError:
        return None

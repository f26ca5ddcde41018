"""Look-ups by a team's own function, beside those of declared executors (P16, docs/decisions/0032).

Whoever meets an effect in doubt, the instance that cannot go on or the undoing, has the question laid down once; a worker that
serves the step's look-up takes it, and its answer is the effect's news for both. Rows: one typed function per query of
`sql/look_ups.sql`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from asyncpg import Record
from msgspec import Struct
from rescind.wire import TaskClaim

from runtime.postgres import Connection
from runtime.queries import Queries
from runtime.sealing import Ring
from sagas import sealing
from sagas.core.sightings import Policy
from sagas.definitions import StepDefinition

QUERIES = Queries.load("sagas", "look_ups")
EVIDENCE_MAX = 128


class Again(Struct, frozen=True, kw_only=True):
    """One that nobody could say yet: asked again in so many seconds, or given up and left to a person."""

    effect_id: UUID
    in_seconds: float
    given_up: bool
    said: str | None


class Note(Struct, frozen=True, kw_only=True):
    """What is kept of an answer, for people."""

    effect_id: UUID
    number: int
    actor: str
    outcome: str
    detail: str | None


def policy_of(step: StepDefinition) -> Policy:
    """How often a step's look-up is asked: as often as the step itself may be tried."""
    retry = step.act.retry
    return Policy(
        first_seconds=retry.first_seconds,
        factor=retry.factor,
        cap_seconds=retry.cap_seconds,
        attempts_max=retry.attempts_max,
    )


async def lay(connection: Connection, asked: Sequence[tuple[UUID, float]]) -> None:
    """Ask what became of these effects, each with its settle delay in seconds."""
    await connection.execute(QUERIES.lay, [effect for effect, _ in asked], [settle for _, settle in asked])


async def take(connection: Connection, environment: str, claim: TaskClaim, limit: int) -> list[dict[str, Any]]:
    """What this worker is to say of, up to `limit`."""
    rows = await connection.fetch(
        QUERIES.take, environment, claim.saga, claim.versions, claim.look_ups, claim.instance, limit, claim.lease_seconds
    )
    return [sealing.opened(connection.ring, {**row, "environment": environment}) for row in rows]


async def keep(connection: Connection, environment: str, held: Sequence[tuple[UUID, UUID]], lease_seconds: float) -> set[UUID]:
    """Extend what is held, by id and token. Returns the ids that still are."""
    ids, tokens = [one for one, _ in held], [token for _, token in held]
    return {row["effect_id"] for row in await connection.fetch(QUERIES.keep, environment, ids, tokens, lease_seconds)}


async def held(connection: Connection, told: Sequence[tuple[UUID, UUID]]) -> dict[UUID, Record]:
    """The questions that these answers, by id and token, are to; effects and questions locked."""
    ids = [one for one, _ in told]
    await connection.execute(QUERIES.lock_effects, ids)
    rows = await connection.fetch(QUERIES.held, ids, [token for _, token in told])
    return {row["effect_id"]: row for row in rows}


async def settle(
    connection: Connection,
    environments: Mapping[UUID, str],
    found: Sequence[tuple[UUID, str | None]],
    absent: Sequence[tuple[UUID, str | None]],
) -> None:
    """Write down what was found, with its result, and what never happened, with why."""
    if found:
        ring: Ring = connection.ring
        results = [ring.seal(told, sealing.effect_name(environments[one], one)) for one, told in found]
        await connection.execute(QUERIES.found, [one for one, _ in found], results, EVIDENCE_MAX)
    if absent:
        await connection.execute(QUERIES.absent, [one for one, _ in absent], [told for _, told in absent], EVIDENCE_MAX)
    await connection.execute(QUERIES.settle, [one for one, _ in (*found, *absent)])


async def ask_again(connection: Connection, again: Sequence[Again]) -> None:
    """Put the question again later, or give it up."""
    await connection.execute(
        QUERIES.ask_again,
        [one.effect_id for one in again],
        [one.in_seconds for one in again],
        [one.given_up for one in again],
        [one.said for one in again],
    )


async def note(connection: Connection, notes: Sequence[Note]) -> None:
    """Keep what was said, whether it counted or not."""
    values = [(one.effect_id, one.number, one.actor, one.outcome, one.detail) for one in notes]
    await connection.execute(QUERIES.note, *([row[index] for row in values] for index in range(5)))


async def stands(connection: Connection, ids: Sequence[UUID], *, unserved_seconds: float) -> dict[UUID, Any]:
    """How these questions stand: `given_up`, `is_served`."""
    return {row["effect_id"]: row for row in await connection.fetch(QUERIES.stands, list(ids), unserved_seconds)}


async def anew(connection: Connection, ids: Sequence[UUID]) -> None:
    """Put these questions again, as a person said."""
    await connection.execute(QUERIES.anew, list(ids))


async def revive(connection: Connection, environment: str, claim: TaskClaim) -> set[UUID]:
    """Have judged again what waited for such a worker. Returns the rollbacks that are concerned."""
    rows = await connection.fetch(QUERIES.revive, environment, claim.saga, claim.versions, claim.look_ups)
    return {row["rollback_id"] for row in rows}

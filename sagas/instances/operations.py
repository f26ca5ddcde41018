"""Bulk operations as people meet them: previewed, begun, watched, cancelled (P19, P20). `bulk.py` carries them out.

operations = Operations(pg)
preview = await operations.preview("production", asked)
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

import asyncpg
import msgspec
from asyncpg import Record
from msgspec import Meta, Struct

from runtime import audit
from runtime.postgres import Connection, Postgres
from runtime.problem import Problem, suggest
from runtime.queries import Queries
from sagas.definitions import store as definitions
from sagas.instances import search
from sagas.instances.search import Filter

QUERIES = Queries.load("sagas", "operations")
COUNTED_MAX = 10_000
SAMPLE = 5
PER_SECOND = 50.0
PER_SECOND_MAX = 1_000.0
REASON_MAX = 2_000


class Asked(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A verb for every instance of `saga` (null: of all) that `filter` finds. `step`: as with one instance's verb."""

    verb: Literal["cancel", "pause", "resume", "retry", "skip"]
    saga: search.Text | None = None
    filter: Filter = Filter()
    step: Annotated[str, Meta(max_length=128)] = ""
    reason: Annotated[str, Meta(min_length=1, max_length=REASON_MAX)]
    per_second: Annotated[float, Meta(ge=0.1, le=PER_SECOND_MAX)] = PER_SECOND
    dry_run: bool = False


class Estimate(Struct, frozen=True, kw_only=True):
    """How many instances a filter finds: counted up to a limit (`is_exact`), beyond it what the planner's statistics say."""

    estimated: int
    is_exact: bool
    sample: list[str]
    """ids of some, the youngest"""


class Operations:
    """One per process."""

    def __init__(self, pg: Postgres) -> None:
        self._pg = pg

    async def preview(self, environment: str, asked: Asked) -> Estimate:
        """What it would be about. Bounded: it never waits for all of them. Raises `Problem` 404 and 422."""
        try:
            async with self._pg.transaction() as connection:
                await _require(connection, environment, asked)
                return await _estimate(connection, environment, asked)
        except asyncpg.QueryCanceledError:
            raise search.too_broad() from None

    async def begin(self, environment: str, asked: Asked, *, actor: str) -> dict[str, Any]:
        """Begin it: instances that stand now, and none that is started later. Raises as `preview` does."""
        preview = await self.preview(environment, asked)
        async with self._pg.transaction() as connection:
            now = await connection.fetchval(QUERIES.now)
            before = min(now, asked.filter.started_before or now)
            wanted = msgspec.to_builtins(msgspec.structs.replace(asked.filter, started_before=before))
            identity = await connection.fetchval(
                QUERIES.begin, environment, asked.saga, asked.verb, asked.step, wanted, asked.per_second, asked.reason, actor,
                preview.estimated, preview.is_exact,
            )  # fmt: skip
            detail = {"verb": asked.verb, "saga": asked.saga, "step": asked.step, "filter": wanted}
            await _audit(connection, "begin", environment, identity, actor, asked.reason, detail)
            row = await connection.fetchrow(QUERIES.one, environment, identity)
        return shown(row)

    async def one(self, environment: str, identity: str) -> dict[str, Any]:
        """One operation and how far it is. Raises `Problem` 404."""
        async with self._pg.connection() as connection:
            return shown(await _find(connection, environment, identity))

    async def listing(self, environment: str, *, after: UUID | None, limit: int) -> list[dict[str, Any]]:
        """Operations, the youngest first."""
        async with self._pg.connection() as connection:
            return [shown(row) for row in await connection.fetch(QUERIES.listing, environment, after, limit)]

    async def cancel(self, environment: str, identity: str, *, actor: str, reason: str) -> dict[str, Any]:
        """Go on with no further instance; what is done stays done. The second time nothing changes. Raises `Problem` 404."""
        async with self._pg.transaction() as connection:
            row = await _find(connection, environment, identity)
            changed = await connection.fetchval(QUERIES.cancel, environment, row["id"], actor, reason) is not None
            if changed:
                await _audit(connection, "cancel", environment, row["id"], actor, reason, {})
            row = await connection.fetchrow(QUERIES.one, environment, row["id"])
        return {**shown(row), "changed": changed}


def shown(row: Record) -> dict[str, Any]:
    """An operation as it is answered."""
    values = {name: value for name, value in row.items() if name not in ("cursor", "next_at")}
    state = "running" if row["ended_at"] is None else "cancelled" if row["cancelled_by"] is not None else "done"
    left = max(0, row["estimated"] - row["done"] - sum(row["refused"].values()))
    return {**values, "state": state, "left": 0 if state == "done" else left}


async def _estimate(connection: Connection, environment: str, asked: Asked) -> Estimate:
    page = await search.page(connection, environment, asked.saga, asked.filter, below=None, limit=COUNTED_MAX)
    sample = [row["id"] for row in page.rows[:SAMPLE]]
    if page.next is None:
        return Estimate(estimated=len(page.rows), is_exact=True, sample=sample)
    wanted = asked.filter
    [plan] = await connection.fetchval(
        QUERIES.guess, environment, asked.saga, wanted.version, wanted.status, wanted.paused, wanted.flag, wanted.subject,
        wanted.attributes, wanted.cause, wanted.error, wanted.started_after, wanted.started_before,
    )  # fmt: skip
    return Estimate(estimated=max(len(page.rows), int(plan["Plan"]["Plan Rows"])), is_exact=False, sample=sample)


async def _require(connection: Connection, environment: str, asked: Asked) -> None:
    """Refuse what can be meant for no instance: a saga, or a step, that there is not."""
    if asked.verb == "skip" and not (asked.step and asked.saga):
        raise Problem(422, "invalid", "Not acceptable as it is", "`skip` names its saga, and its step or wait")
    if asked.saga is None:
        return
    versions = await definitions.versions(connection, environment, asked.saga)
    if not versions:
        near = suggest(asked.saga, await definitions.names(connection, environment))
        raise Problem(404, "unknown_saga", "No such saga", f"{environment!r} has no saga {asked.saga!r}.", suggestion=near)
    if asked.step and asked.step not in (names := await _steps(connection, environment, asked.saga)):
        detail = f"No version of {asked.saga!r} has a step {asked.step!r}."
        raise Problem(404, "unknown_step", "No such step", detail, suggestion=suggest(asked.step, names))


async def _steps(connection: Connection, environment: str, saga: str) -> list[str]:
    return [row["name"] for row in await connection.fetch(search.QUERIES.steps, environment, saga)]


async def _find(connection: Connection, environment: str, identity: str) -> Record:
    try:
        row = await connection.fetchrow(QUERIES.one, environment, UUID(identity))
    except ValueError:
        row = None
    if row is None:
        raise Problem(404, "unknown_operation", "No such operation", f"There is no operation {identity[:80]!r} here.")
    return row


async def _audit(
    connection: Connection, what: str, environment: str, identity: UUID, actor: str, reason: str, detail: dict[str, Any]
) -> None:
    """Once for the whole: the facts of each instance name the operation."""
    await audit.append(
        connection,
        actor=actor,
        action=f"operation.{what}",
        environment=environment,
        object=str(identity),
        reason=reason,
        detail=detail,
    )

"""`/v1/rollbacks`: the record, waiting for it, its events and its report."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Controller, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Stream

from flagd.http.bodies import AnyRequest, answer
from runtime.errors import Unavailable
from runtime.postgres import Postgres
from runtime.principal import Principal
from runtime.problem import Problem
from runtime.right import Right
from server.http.asking import find, require_sight, rollback_id_of
from server.http.streams import Streams
from server.rollbacks import record
from server.rollbacks.record import RollbackRecord
from server.rollbacks.report import EFFECTS_MAX, Reports
from server.rollbacks.watching import GOALS, Goal, Watching

BEAT = b"event: beat\ndata: {}\n\n"


class RollbackController(Controller):
    """Reading rollbacks."""

    path = "/v1/rollbacks"
    tags = ["rollbacks"]

    @get("/", summary="List rollbacks")
    async def listing(
        self,
        request: AnyRequest,
        pg: NamedDependency[Postgres],
        principal: NamedDependency[Principal],
        environment: FromQuery[str | None] = None,
        flag: FromQuery[str | None] = None,
        in_state: Annotated[str | None, QueryParameter(name="state")] = None,
        limit: FromQuery[int] = 50,
        after: FromQuery[str | None] = None,
    ) -> Response[bytes]:
        """The youngest first; a token bound to an environment sees that one's."""
        named = environment or principal.environment
        principal.require("read", named)
        size = max(1, min(limit, record.LISTED_MAX))
        last = rollback_id_of(after) if after else None
        async with pg.connection() as connection:
            rows = await record.listing(connection, environment=named, after=last, state=in_state, flag=flag, limit=size)
        return answer(request, {"rollbacks": rows, "next": rows[-1].id if len(rows) == size else None})

    @get("/{rollback:str}", summary="Get a rollback")
    async def get_rollback(
        self,
        request: AnyRequest,
        rollback: FromPath[str],
        watching: NamedDependency[Watching],
        principal: NamedDependency[Principal],
        right: NamedDependency[Right],
        wait: FromQuery[str | None] = None,
        timeout_seconds: FromQuery[float] = 30.0,
    ) -> Response[bytes]:
        """The rollback now; with `?wait=` once it has come so far, or when `timeout_seconds` are over, as it stands then."""
        found = await seen(watching, rollback, principal)
        if wait is not None:
            found = await watching.wait(UUID(found.id), goal_of(wait), max(0.0, timeout_seconds), right)
        return answer(request, found)

    @get("/{rollback:str}/events", summary="Follow a rollback", media_type="text/event-stream")
    async def events(
        self,
        rollback: FromPath[str],
        watching: NamedDependency[Watching],
        streams: NamedDependency[Streams],
        principal: NamedDependency[Principal],
        right: NamedDependency[Right],
    ) -> Stream:
        """Server-sent events: `rollback` with the record at once and at every change, until it has settled."""
        identity = UUID((await seen(watching, rollback, principal)).id)
        followed = streams.bounded(frames(watching, identity, right))
        return Stream(followed, media_type="text/event-stream", headers={"cache-control": "no-cache"})

    @get("/{rollback:str}/report", summary="Report of a rollback")
    async def report(
        self,
        request: AnyRequest,
        rollback: FromPath[str],
        watching: NamedDependency[Watching],
        reports: NamedDependency[Reports],
        principal: NamedDependency[Principal],
        form: Annotated[str | None, QueryParameter(name="format")] = None,
        limit: FromQuery[int] = EFFECTS_MAX,
        after: FromQuery[str | None] = None,
    ) -> Response[bytes] | Stream:
        """What became of every effect, and that it adds up. `?format=csv`: every effect as a line."""
        identity = UUID((await seen(watching, rollback, principal)).id)
        if form == "csv":
            headers = {"content-disposition": f'attachment; filename="rollback-{identity}.csv"'}
            return Stream(reports.csv(identity), media_type="text/csv; charset=utf-8", headers=headers)
        last = rollback_id_of(after) if after else None
        return answer(request, await reports.report(identity, after=last, limit=max(1, limit)))


async def seen(watching: Watching, text: str, principal: Principal) -> RollbackRecord:
    """The rollback, if this token may see it. Raises `Problem` 403 and 404."""
    found = await find(watching, text, principal)
    require_sight(principal, found)
    return found


def goal_of(text: str) -> Goal:
    """Raises `Problem` 422 for a word that is no goal."""
    if text not in GOALS:
        raise Problem(422, "invalid", "No such goal", f"`wait` is one of {', '.join(GOALS)}, not {text[:40]!r}")
    return text


async def frames(watching: Watching, identity: UUID, right: Right) -> AsyncIterator[bytes]:
    """The rollback's changes as events. It ends with the right to see them, and where PostgreSQL goes away."""
    try:
        async for found in watching.changes(identity, right):
            yield BEAT if found is None else b"event: rollback\ndata: " + msgspec.json.encode(found) + b"\n\n"
    except Unavailable:
        return
    except Problem as problem:
        if problem.status != 401:
            raise

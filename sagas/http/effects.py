"""`/effects:admit`, `/effects:report` and `GET /effects`: the ledger over HTTP."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, Parameter
from rescind.wire import AdmitRequest, Fault, ProceededRequest, ReportRequest

from runtime.errors import Code
from runtime.postgres import Postgres
from runtime.problem import Problem
from runtime.tokens import Principal
from sagas import store_listing
from sagas.http.bodies import LIMIT_MAX, AnyRequest, answer, read, refused
from sagas.ledger import Ledger, TooManyItems
from sagas.store_listing import Filter

SCOPE = "effects"
STATUSES = ("admitted", "succeeded", "failed", "in_doubt")
Limit = Annotated[int, Parameter(ge=1, le=LIMIT_MAX)]


class EffectController(Controller):
    """The effect ledger."""

    path = "/v1/environments/{environment:str}"
    tags = ["effects"]

    @post("/effects:admit", status_code=200, summary="Admit effects")
    async def admit(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        ledger: NamedDependency[Ledger],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """One result per effect, in order; one bad item never fails the batch. A repeat brings the same `token`."""
        principal.require(SCOPE, environment)
        try:
            return answer(request, await ledger.admit(environment, await read(request, AdmitRequest), principal))
        except TooManyItems as error:
            raise _too_many(error) from None

    @post("/effects:report", status_code=200, summary="Report what became of effects")
    async def report(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        ledger: NamedDependency[Ledger],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """One result per report, in order. A report may be repeated."""
        principal.require(SCOPE, environment)
        try:
            return answer(request, await ledger.report(environment, await read(request, ReportRequest)))
        except TooManyItems as error:
            raise _too_many(error) from None

    @post("/effects:proceeded", status_code=200, summary="Bring effects that were begun without the server")
    async def proceeded(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        ledger: NamedDependency[Ledger],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """One result per effect, in order: taken in, also after a kill, which then undoes them. It may be repeated."""
        principal.require(SCOPE, environment)
        try:
            return answer(request, await ledger.proceeded(environment, await read(request, ProceededRequest)))
        except TooManyItems as error:
            raise _too_many(error) from None

    @get("/effects", summary="List effects")
    async def list_effects(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        pg: NamedDependency[Postgres],
        principal: NamedDependency[Principal],
        flag: FromQuery[str | None] = None,
        saga: FromQuery[str | None] = None,
        status: FromQuery[str | None] = None,
        epoch: FromQuery[int | None] = None,
        rollback: FromQuery[str | None] = None,
        saga_instance: FromQuery[str | None] = None,
        kind: FromQuery[str | None] = None,
        key: FromQuery[str | None] = None,
        after: FromQuery[str | None] = None,
        limit: FromQuery[Limit] = 100,
    ) -> Response[bytes]:
        """Effects in the order in which they were admitted; `next` is the `after` of the next page, null on the last."""
        principal.require("read", environment)
        faults = (
            [Fault(pointer="/status", detail=f"is one of {', '.join(STATUSES)}")] if status not in (None, *STATUSES) else []
        )
        rollback_id, cursor = _id(rollback, "/rollback", faults), _id(after, "/after", faults)
        if epoch is not None and not 0 <= epoch < 2**63:
            faults.append(Fault(pointer="/epoch", detail="is out of range"))
        texts = {"flag": flag, "saga": saga, "saga_instance": saga_instance, "kind": kind, "key": key}
        faults += [Fault(pointer=f"/{name}", detail="holds a NUL") for name, text in texts.items() if text and "\0" in text]
        if faults:
            raise refused(faults, "Not a filter")
        wanted = Filter(status=status, epoch=epoch, rollback=rollback_id, **texts)
        async with pg.connection() as connection:
            rows = await store_listing.listing(connection, environment, wanted, after=cursor, limit=limit + 1)
        shown = [_shown(row) for row in rows[:limit]]
        return answer(request, {"effects": shown, "next": shown[-1]["id"] if len(rows) > limit else None})


def _id(text: str | None, pointer: str, faults: list[Fault]) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        faults.append(Fault(pointer=pointer, detail="is not an id"))
        return None


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """An effect in the words of the request that admitted it."""
    generation, n = row.pop("revision_generation"), row.pop("revision")
    name, version, instance = row.pop("saga"), row.pop("saga_version"), row.pop("saga_instance")
    return {
        "effect_id": row["id"],
        **row,
        "revision": f"{generation}.{n}",
        "saga": {"name": name, "version": version, "id": instance} if name else None,
    }


def _too_many(error: TooManyItems) -> Problem:
    return Problem(413, Code.TOO_LARGE, "Too large", f"A batch has at most {error.limit} items; this one has {error.count}.")

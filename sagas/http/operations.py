"""Bulk operations over HTTP: one verb for every instance that a filter finds (P19, P20)."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, Parameter
from msgspec import Meta, Struct, to_builtins
from rescind.wire import Fault

from runtime.tokens import Principal
from sagas.http.bodies import LIMIT_MAX, REASON_MAX, AnyRequest, answer, read_checked, refused
from sagas.http.environments import Environments
from sagas.instances.operations import Asked, Operations

SCOPE = "compensate"
Limit = Annotated[int, Parameter(ge=1, le=LIMIT_MAX)]


class CancelRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why it is to go on no further."""

    reason: Annotated[str, Meta(min_length=1, max_length=REASON_MAX)]


class OperationController(Controller):
    """Operations of an environment."""

    path = "/v1/environments/{environment:str}/operations"
    tags = ["instances"]

    @post("/", status_code=200, summary="Preview or begin a bulk operation")
    async def begin(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        operations: NamedDependency[Operations],
        environments: NamedDependency[Environments],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """Answered at once; it is carried out by the coordinator, `per_second` instances at most. With `dry_run` nothing is
        begun: `estimated` is counted up to a limit (`is_exact`), beyond it what PostgreSQL's statistics say."""
        principal.require(SCOPE, environment)
        await environments.require(environment)
        asked = await read_checked(request, Asked)
        if asked.dry_run:
            return answer(request, {"dry_run": True, **to_builtins(await operations.preview(environment, asked))})
        return answer(request, await operations.begin(environment, asked, actor=principal.name))

    @get("/", summary="List bulk operations")
    async def list_operations(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        operations: NamedDependency[Operations],
        principal: NamedDependency[Principal],
        after: FromQuery[str | None] = None,
        limit: FromQuery[Limit] = 100,
    ) -> Response[bytes]:
        """The youngest first, each with how far it is."""
        principal.require("read", environment)
        found = await operations.listing(environment, after=_id(after), limit=limit + 1)
        shown = found[:limit]
        return answer(request, {"operations": shown, "next": shown[-1]["id"] if len(found) > limit else None})

    @get("/{operation:str}", summary="Read a bulk operation")
    async def read_one(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        operation: FromPath[str],
        operations: NamedDependency[Operations],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """How many are done, how many were refused for which reason, and how many are left."""
        principal.require("read", environment)
        return answer(request, await operations.one(environment, operation))

    @post("/{operation:str}/cancel", status_code=200, summary="Cancel a bulk operation")
    async def cancel(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        operation: FromPath[str],
        operations: NamedDependency[Operations],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """When it is answered no further instance is touched. What is done stays done."""
        principal.require(SCOPE, environment)
        told = await read_checked(request, CancelRequest)
        return answer(request, await operations.cancel(environment, operation, actor=principal.name, reason=told.reason))


def _id(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        raise refused([Fault(pointer="/after", detail="is not an id")], "Not a page") from None

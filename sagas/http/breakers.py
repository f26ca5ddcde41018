"""Circuit breakers over HTTP: which kinds are held back and why, and a person's word that they may begin again (P17, P20)."""

from __future__ import annotations

from typing import Annotated

from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import Meta, Struct

from runtime import audit
from runtime.errors import Code
from runtime.postgres import Postgres
from runtime.problem import Problem, suggest
from runtime.tokens import Principal
from sagas import breakers
from sagas.breakers import SIDES, Side
from sagas.http.bodies import REASON_MAX, AnyRequest, answer, read_checked
from sagas.http.environments import Environments

SCOPE = "compensate"
NAME_MAX = 128


class ResetRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a reset. Without `side`: of both."""

    reason: Annotated[str, Meta(min_length=1, max_length=REASON_MAX)]
    side: Side | None = None


class BreakerController(Controller):
    """Breakers of kinds that fail."""

    path = "/v1/environments/{environment:str}/breakers"
    tags = ["breakers"]

    @get("/", summary="List breakers")
    async def list_breakers(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        pg: NamedDependency[Postgres],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """Those that are open or half open, the oldest first, then closed ones with failures in a row."""
        principal.require("read", environment)
        async with pg.connection() as connection:
            return answer(request, {"breakers": await breakers.listing(connection, environment)})

    @post("/{kind:str}/reset", status_code=200, summary="Reset a breaker")
    async def reset(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        kind: FromPath[str],
        pg: NamedDependency[Postgres],
        environments: NamedDependency[Environments],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """Attempts of the kind begin again. `changed` names the sides that were not at rest; a repeat changes nothing."""
        principal.require(SCOPE, environment)
        await environments.require(environment)
        told = await read_checked(request, ResetRequest)
        sides = SIDES if told.side is None else (told.side,)
        async with pg.transaction() as connection:
            known = await breakers.kinds(connection, environment)
            if kind not in known:
                raise _unknown(environment, kind, known)
            changed = await breakers.reset(connection, environment, kind, sides)
            await audit.append(
                connection,
                actor=principal.name,
                action="breaker.reset",
                environment=environment,
                object=f"breaker/{kind}",
                reason=told.reason,
                detail={"changed": changed},
            )
        return answer(request, {"kind": kind, "changed": changed})


def _unknown(environment: str, kind: str, known: list[str]) -> Problem:
    return Problem(
        404,
        Code.NOT_FOUND,
        "No such breaker",
        f"no attempt of {kind[:NAME_MAX]!r} has failed in {environment!r}.",
        suggestion=suggest(kind, known),
    )

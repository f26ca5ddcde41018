"""`/v1/tokens`, `/v1/self`, `/v1/audit`: who may ask, who one is, and what was done."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from msgspec import Meta, Struct
from rescind.version import __version__

from flagd.http.bodies import AnyRequest, answer
from runtime import audit, tokens
from runtime.clock import Entropy
from runtime.postgres import Connection, Postgres
from runtime.principal import Principal
from runtime.problem import Problem
from sagas.http.environments import Environments
from server.http.asking import read
from server.rollbacks.requests import Reason

AUDIT_MAX = 1000


class NewToken(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/tokens`."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    scopes: Annotated[list[str], Meta(min_length=1, max_length=64)]
    environment: Annotated[str, Meta(max_length=63)] | None = None
    expires_at: datetime | None = None
    reason: Reason


class Revocation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/tokens/{id}/revoke`."""

    reason: Reason


async def make(connection: Connection, asked: NewToken, actor: str, entropy: Entropy) -> dict[str, Any]:
    """Make a token and its audit entry in the caller's transaction; what the API answers. Raises `Problem` 422."""
    if asked.expires_at is not None and asked.expires_at.tzinfo is None:
        raise Problem(422, "invalid", "The document has faults", "`expires_at` needs a time zone", [
            {"pointer": "/expires_at", "code": "invalid", "detail": "needs a time zone, for example Z"}])  # fmt: skip
    text, identity = await tokens.create(
        connection, asked.name, asked.environment, asked.scopes, actor, asked.expires_at, entropy
    )
    await audit.append(
        connection, actor=actor, action="token.create", environment=asked.environment, object=identity,
        reason=asked.reason, detail={"name": asked.name, "scopes": asked.scopes},
    )  # fmt: skip
    return {"id": identity, "token": text, "name": asked.name, "scopes": asked.scopes, "environment": asked.environment}


class TokenController(Controller):
    """Tokens: admins make and revoke them."""

    path = "/v1/tokens"
    tags = ["tokens"]

    @post("/", status_code=201, summary="Make a token")
    async def create(
        self,
        request: AnyRequest,
        pg: NamedDependency[Postgres],
        entropy: NamedDependency[Entropy],
        environments: NamedDependency[Environments],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """The answer holds the token's text, which is never to be had again."""
        principal.require("admin")
        asked = await read(request, NewToken)
        if asked.environment is not None:
            await environments.require(asked.environment)
        async with pg.transaction() as connection:
            shown = await make(connection, asked, principal.name, entropy)
        return answer(request, shown, 201)

    @get("/", summary="List tokens")
    async def listing(
        self, request: AnyRequest, pg: NamedDependency[Postgres], principal: NamedDependency[Principal]
    ) -> Response[bytes]:
        """Every token without its secret."""
        principal.require("admin")
        async with pg.connection() as connection:
            return answer(request, {"tokens": await tokens.listing(connection)})

    @post("/{token_id:str}/revoke", status_code=200, summary="Revoke a token")
    async def revoke(
        self,
        request: AnyRequest,
        token_id: FromPath[str],
        pg: NamedDependency[Postgres],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """It is refused everywhere within a second. Revoking it again changes nothing."""
        principal.require("admin")
        asked = await read(request, Revocation)
        async with pg.transaction() as connection:
            revoked_at = await tokens.revoke(connection, token_id)
            if revoked_at is None:
                raise Problem(404, "unknown_token", "Unknown token", f"There is no token {token_id[:40]!r}.",
                              next_step="`rescind token list` shows their ids")  # fmt: skip
            await audit.append(
                connection, actor=principal.name, action="token.revoke", environment=None, object=token_id,
                reason=asked.reason, detail={},
            )  # fmt: skip
        return answer(request, {"id": token_id, "revoked_at": revoked_at})


class IdentityController(Controller):
    """Who one is, and what was done by whom."""

    path = "/v1"
    tags = ["tokens"]

    @get("/self", summary="Who am I")
    async def me(self, request: AnyRequest, principal: NamedDependency[Principal]) -> Response[bytes]:
        """Name, environment and scopes of the token that asks."""
        return answer(request, {
            "id": principal.id, "name": principal.name, "environment": principal.environment,
            "scopes": sorted(principal.scopes), "server_version": __version__, "measures_health": False,
        })  # fmt: skip

    @get("/audit", summary="The audit log")
    async def audit_log(
        self,
        request: AnyRequest,
        pg: NamedDependency[Postgres],
        principal: NamedDependency[Principal],
        environment: FromQuery[str | None] = None,
        subject: FromQuery[str | None] = None,
        before: FromQuery[UUID | None] = None,
        limit: FromQuery[int] = 100,
    ) -> Response[bytes]:
        """Entries, newest first; `?subject=` for one object's, `?before=` an entry for older ones."""
        named = environment or principal.environment
        principal.require("read", named)
        size = max(1, min(limit, AUDIT_MAX))
        async with pg.connection() as connection:
            entries = await audit.newest(connection, environment=named, object=subject, before=before, limit=size)
        return answer(request, {"entries": entries, "next": str(entries[-1].id) if len(entries) == size else None})

"""Connections over HTTP: where executors reach the world. Admins only; secrets are references, never values."""

from __future__ import annotations

import asyncio
import os

import msgspec
from litestar import Controller, Response, delete, get, put
from litestar.di import NamedDependency
from litestar.params import FromPath
from rescind.wire import Fault

from runtime import audit
from runtime.errors import Code
from runtime.postgres import Connection, Postgres
from runtime.problem import Problem, suggest
from runtime.tokens import ADMIN, Principal
from sagas import connections
from sagas.http.bodies import AnyRequest, answer, read_document, reason_of, refused
from sagas.http.environments import Environments

NAME_MAX = 128


class ConnectionController(Controller):
    """Payment providers, mail hosts, webhook hosts."""

    path = "/v1/environments/{environment:str}/connections"
    tags = ["connections"]

    @get("/", summary="List connections")
    async def list_connections(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        pg: NamedDependency[Postgres],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """All of them, by name."""
        principal.require(ADMIN, environment)
        async with pg.connection() as connection:
            return answer(request, {"connections": await connections.listing(connection, environment)})

    @get("/{name:str}", summary="Read a connection")
    async def read_connection(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        name: FromPath[str],
        pg: NamedDependency[Postgres],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """The connection as it is kept."""
        principal.require(ADMIN, environment)
        async with pg.connection() as connection:
            rows = await connections.listing(connection, environment)
        for row in rows:
            if row.name == name:
                return answer(request, row)
        raise _unknown(environment, name, [row.name for row in rows])

    @put("/{name:str}", summary="Set up a connection")
    async def write_connection(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        name: FromPath[str],
        pg: NamedDependency[Postgres],
        environments: NamedDependency[Environments],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """Replaces what stands under this name."""
        principal.require(ADMIN, environment)
        await environments.require(environment)
        document, reason = await read_document(request, "connection", "document")
        parsed, faults = connections.parse(document)
        if not connections.is_name(name):
            faults = [Fault(pointer="", detail=f"{name[:40]!r} is not a name", code="name"), *faults]
        if faults or parsed is None:
            raise refused(faults, "The connection has faults")
        async with pg.transaction() as connection:
            row = await connections.put(connection, environment, name, parsed, actor=principal.name)
            await _audit(connection, principal, "connection.put", environment, name, reason)
        told = await asyncio.to_thread(connections.warnings, parsed, os.environ)
        return answer(request, msgspec.structs.replace(row, warnings=told))

    @delete("/{name:str}", status_code=200, summary="Remove a connection")
    async def delete_connection(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        name: FromPath[str],
        pg: NamedDependency[Postgres],
        environments: NamedDependency[Environments],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """Compensations that need it wait for a person from now on."""
        principal.require(ADMIN, environment)
        await environments.require(environment)
        reason = reason_of(request.query_params.get("reason"))
        async with pg.transaction() as connection:
            if not await connections.delete(connection, environment, name):
                rows = await connections.listing(connection, environment)
                raise _unknown(environment, name, [row.name for row in rows])
            await _audit(connection, principal, "connection.delete", environment, name, reason)
        return answer(request, {"deleted": name})


async def _audit(
    connection: Connection, principal: Principal, action: str, environment: str, name: str, reason: str | None
) -> None:
    await audit.append(
        connection, actor=principal.name, action=action, environment=environment, object=f"connection/{name}", reason=reason
    )


def _unknown(environment: str, name: str, known: list[str]) -> Problem:
    return Problem(
        404,
        Code.NOT_FOUND,
        "No such connection",
        f"{environment!r} has no {name[:NAME_MAX]!r}.",
        suggestion=suggest(name, known),
    )

"""`rescind kill --direct`: the same SQL function that every path calls, on PostgreSQL itself, where no server answers (P5).

The right to do so is the right to connect to the database. Replicas that live learn of it by PostgreSQL's own bell.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
from typing import Any

import asyncpg
import msgspec
from rescind.errors import ApiError, ConfigurationError, Unreachable
from rescind.wire import Fault

from runtime.clock import Entropy
from runtime.errors import RuntimeFault
from runtime.postgres import BEGIN, connect
from runtime.problem import Problem, fault_of
from runtime.queries import Queries
from runtime.storable import nul_faults
from server.rollbacks.errors import UNKNOWN_ENVIRONMENT, UNKNOWN_FLAG, state_of, unknown_environment, unknown_flag
from server.rollbacks.requests import KillRequest, faults_of
from server.rollbacks.service import KillAnswer, kill_within

QUERIES = Queries.load("server.rollbacks", "kills")
URL = "RESCIND_DATABASE_URL"


def kill(environment: str, flag: str, body: dict[str, Any]) -> dict[str, Any]:
    """Kill, and return the API's own answer. Raises what `rescind.transport` would."""
    url = os.environ.get(URL)
    if not url:
        raise ConfigurationError(f"--direct needs {URL}: the URL of Rescind's PostgreSQL")
    try:
        request = msgspec.convert(body, KillRequest)
        faults = [*nul_faults(body), *faults_of(request)]
    except msgspec.ValidationError as error:
        found = fault_of(error)
        raise ApiError(422, "invalid", str(error), errors=[Fault(pointer=found.pointer, detail=found.detail)]) from None
    if faults:
        found = faults[0]
        raise ApiError(422, "invalid", found.detail, errors=[Fault(pointer=one.pointer, detail=one.detail) for one in faults])
    try:
        answer = asyncio.run(carry_out(url, environment, flag, request))
    except Problem as problem:
        raise ApiError(
            problem.status, problem.code, problem.detail, suggestion=problem.suggestion, next_step=problem.next_step
        ) from None
    except RuntimeFault as error:
        raise Unreachable(str(error)) from None
    built: dict[str, Any] = msgspec.to_builtins(answer)
    return built


async def carry_out(url: str, environment: str, flag: str, request: KillRequest) -> KillAnswer:
    """One transaction. Raises `Problem` 404 with a suggestion, `Unavailable`."""
    connection = await connect(url, application_name="rescind kill --direct")
    actor = f"direct:{getpass.getuser()}@{socket.gethostname()}"
    try:
        await connection.execute(BEGIN)
        try:
            answer = await kill_within(connection, environment, [flag], request, actor, rollback_id=Entropy().uuid7())
        except asyncpg.PostgresError as error:
            await connection.execute("ROLLBACK")
            if state_of(error) == UNKNOWN_ENVIRONMENT:
                raise unknown_environment(environment, await names(connection, QUERIES.environments)) from None
            if state_of(error) == UNKNOWN_FLAG:
                raise unknown_flag(flag, environment, await names(connection, QUERIES.flags, environment)) from None
            raise
        await connection.execute("COMMIT")
        return answer
    finally:
        await connection.close()


async def names(connection: asyncpg.Connection, query: str, *arguments: str) -> list[str]:
    """The first column."""
    return [row[0] for row in await connection.fetch(query, *arguments)]

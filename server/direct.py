"""What works on PostgreSQL itself: `rescind kill --direct`, by the same SQL function that every path calls, where no server
answers (P5), and `rescind token create --direct`, for the first token of an installation (P20).

The right to do so is the right to connect to the database. Replicas that live learn of it by PostgreSQL's own bell.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import msgspec
from rescind.errors import ApiError, ConfigurationError, Unreachable
from rescind.wire import Fault

from flagd.releases import found_in
from runtime.clock import Entropy
from runtime.errors import Refused, RuntimeFault
from runtime.postgres import BEGIN, Connection, connect, transaction_on
from runtime.problem import Problem, fault_of
from runtime.queries import Queries
from runtime.storable import nul_faults
from server.http.tokens import NewToken, make
from server.rollbacks import standby
from server.rollbacks.errors import UNKNOWN_ENVIRONMENT, UNKNOWN_FLAG, state_of, unknown_environment, unknown_flag
from server.rollbacks.releases import flags_to_kill, note_of
from server.rollbacks.requests import KillRequest, faults_of
from server.rollbacks.service import KillAnswer, Within, kill_within

QUERIES = Queries.load("server.rollbacks", "kills")
URL = "RESCIND_DATABASE_URL"

T = TypeVar("T")


def kill(environment: str, flag: str, body: dict[str, Any]) -> dict[str, Any]:
    """Kill, and return the API's own answer. Raises what `rescind.transport` would."""
    request = read(body, KillRequest)
    refuse(faults_of(request))
    built: dict[str, Any] = msgspec.to_builtins(run(lambda url: carry_out(url, environment, [flag], request)))
    return built


def kill_release(environment: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
    """The same for all flags of a release, in one revision and one rollback."""
    request = read(body, KillRequest)
    refuse(faults_of(request))
    built: dict[str, Any] = run(lambda url: carry_out_release(url, environment, name, request))
    return built


def token(body: dict[str, Any]) -> dict[str, Any]:
    """Make a token, and return the API's own answer. Raises what `rescind.transport` would."""
    asked = read(body, NewToken)
    return run(lambda url: make_token(url, asked))


def read(body: dict[str, Any], type_: type[T]) -> T:
    """The body as `type_`. Raises `ApiError` 422 with the pointers to what is wrong."""
    try:
        found = msgspec.convert(body, type_)
    except msgspec.ValidationError as error:
        fault = fault_of(error)
        raise ApiError(422, "invalid", str(error), errors=[Fault(pointer=fault.pointer, detail=fault.detail)]) from None
    refuse(nul_faults(body))
    return found


def refuse(faults: Sequence[Any]) -> None:
    """Raise `ApiError` 422 for faults that were found."""
    if faults:
        errors = [Fault(pointer=one.pointer, detail=one.detail) for one in faults]
        raise ApiError(422, "invalid", errors[0].detail, errors=errors)


def run(act: Callable[[str], Coroutine[Any, Any, T]]) -> T:
    """Act on the database of `RESCIND_DATABASE_URL`. Raises `ConfigurationError`, `ApiError`, `Unreachable`."""
    url = os.environ.get(URL)
    if not url:
        raise ConfigurationError(f"--direct needs {URL}: the URL of Rescind's PostgreSQL")
    try:
        return asyncio.run(act(url))
    except Problem as problem:
        raise ApiError(
            problem.status, problem.code, problem.detail, suggestion=problem.suggestion, next_step=problem.next_step
        ) from None
    except asyncpg.UndefinedTableError:
        raise ConfigurationError(f"the database of {URL} has no tables of Rescind's: run `rescind migrate`") from None
    except Refused as error:
        raise ConfigurationError(str(error)) from None
    except RuntimeFault as error:
        raise Unreachable(str(error)) from None


def actor_of_this_machine() -> str:
    """Who acts, in the audit log: the account and the machine."""
    try:
        account = getpass.getuser()
    except (KeyError, OSError):  # a container's number without a name
        account = str(os.getuid())
    return f"direct:{account}@{socket.gethostname()}"


async def make_token(url: str, asked: NewToken) -> dict[str, Any]:
    """One transaction, with its audit entry. Raises `Problem` 422, `Unavailable`."""
    connection = await connect(url, application_name="rescind token create --direct")
    try:
        async with transaction_on(connection):
            return await make(connection, asked, actor_of_this_machine(), Entropy())
    finally:
        await connection.close()


async def carry_out_release(url: str, environment: str, name: str, request: KillRequest) -> dict[str, Any]:
    """Look the release up, then kill what it names. Raises `Problem` 404 and 409, `Unavailable`."""
    connection = await connect(url, application_name="rescind kill --direct")
    try:
        flags = flags_to_kill(name, (await found_in(connection, environment, name)).release)
    finally:
        await connection.close()
    answer = await carry_out(
        url, environment, flags, request, note_of(environment, name, flags, request, actor_of_this_machine())
    )
    return {**msgspec.to_builtins(answer), "release": name, "flags": flags}


async def carry_out(
    url: str, environment: str, flags: list[str], request: KillRequest, within: Within | None = None
) -> KillAnswer:
    """One transaction. Raises `Problem` 404 with a suggestion, `Unavailable`."""
    connection = await connect(url, application_name="rescind kill --direct")
    actor = actor_of_this_machine()
    try:
        await connection.execute(BEGIN)
        try:
            async with standby.unhindered(lambda: connect(url, application_name="rescind kill --direct")):
                answer = await kill_within(connection, environment, flags, request, actor, rollback_id=Entropy().uuid7())
                if within is not None:
                    await within(connection, answer)
        except asyncpg.PostgresError as error:
            await connection.execute("ROLLBACK")
            if state_of(error) == UNKNOWN_ENVIRONMENT:
                raise unknown_environment(environment, await names(connection, QUERIES.environments)) from None
            if state_of(error) == UNKNOWN_FLAG:
                raise unknown_flag(
                    getattr(error, "detail", None) or flags[0], environment, await names(connection, QUERIES.flags, environment)
                ) from None
            raise
        await connection.execute("COMMIT")
        return await confirmed(connection, answer)
    finally:
        await connection.close()


async def confirmed(connection: Connection, answer: KillAnswer) -> KillAnswer:
    """The answer with what the standby has; the kill stands without."""
    with contextlib.suppress(RuntimeFault, asyncpg.PostgresError):
        return msgspec.structs.replace(answer, standby=await standby.confirm(connection, UUID(answer.rollback_id)))
    return answer


async def names(connection: asyncpg.Connection, query: str, *arguments: str) -> list[str]:
    """The first column."""
    return [row[0] for row in await connection.fetch(query, *arguments)]

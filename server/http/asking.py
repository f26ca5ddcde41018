"""What the roof's handlers share: typed bodies, ids in paths, who may see a rollback, and refusals on record (P20)."""

from __future__ import annotations

from typing import Any, TypeVar
from uuid import UUID

import msgspec
from msgspec import Struct

from flagd.http.bodies import AnyRequest, read_object
from runtime.principal import Principal
from runtime.problem import Problem, fault_of
from runtime.storable import instant_faults
from server.rollbacks.errors import unknown_rollback
from server.rollbacks.record import RollbackRecord
from server.rollbacks.requests import Since, since_of
from server.rollbacks.watching import Watching

T = TypeVar("T", bound=Struct)
SCOPE_PREFIX = "scope."


async def read(request: AnyRequest, type_: type[T]) -> T:
    """The body as `type_`. Raises `Problem` 400 or 422 with the pointer to what is wrong."""
    body = await read_object(request)
    try:
        asked = msgspec.convert(body, type_)
    except msgspec.ValidationError as error:
        raise Problem(422, "invalid", "The document has faults", str(error), [fault_of(error)]) from None
    if faults := instant_faults(asked):
        raise Problem(422, "invalid", "The document has faults", f"{faults[0].pointer} {faults[0].detail}", faults)
    return asked


def read_since(value: Any, pointer: str = "/since") -> Since:
    """A point in time as people write it. Raises `Problem` 422."""
    try:
        return since_of(value)
    except ValueError as error:
        fault = {"pointer": pointer, "code": "invalid", "detail": str(error)}
        raise Problem(422, "invalid", "The document has faults", str(error), [fault]) from None


def scope_in(request: AnyRequest) -> dict[str, str | int | float | bool]:
    """`?scope.<attribute>=<value>` of a query, each value as the JSON scalar that it reads as, else as text."""
    query = request.query_params
    return {name.removeprefix(SCOPE_PREFIX): scalar_of(query[name]) for name in query if name.startswith(SCOPE_PREFIX)}


def scalar_of(text: str) -> str | int | float | bool:
    """The JSON scalar that the text is, else the text itself."""
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    return value if isinstance(value, str | int | float | bool) else text


def rollback_id_of(text: str) -> UUID:
    """The id in a path. Raises `Problem` 404."""
    try:
        return UUID(text)
    except ValueError:
        raise unknown_rollback(text) from None


async def find(watching: Watching, text: str, principal: Principal) -> RollbackRecord:
    """The rollback in a path. Raises `Problem` 404; who may read them is told which may have been meant."""
    try:
        return await watching.get(rollback_id_of(text))
    except Problem as error:
        if error.code != "unknown_rollback" or not principal.allows("read", principal.environment):
            raise
    raise await watching.unknown(text, principal.environment)


def require_sight(principal: Principal, record: RollbackRecord) -> None:
    """Who may read, kill or compensate in the environment may see its rollbacks. Raises `Problem` 403."""
    scopes = ("compensate", "read", *(f"kill:{flag.flag}" for flag in record.flags))
    if not any(principal.allows(scope, record.environment) for scope in scopes):
        principal.require("read", record.environment)

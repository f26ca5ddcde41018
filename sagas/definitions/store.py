"""Where definitions are kept, pinned by name and version (P15): what a version means never changes, how it is paced may."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Literal

import asyncpg
import msgspec
from msgspec import Struct
from rescind.wire import Fault

from runtime.problem import Problem, suggest
from runtime.queries import Queries
from sagas import connections
from sagas.connections import SmtpConnection, StripeConnection, WebhookConnection
from sagas.definitions.document import (
    Compensation,
    Definition,
    Email,
    KindDefinition,
    Refund,
    SagaDefinition,
    Webhook,
    arguments_of,
    encode,
    semantics_hash,
)

QUERIES = Queries.load("sagas", "definitions")
SUGGESTIONS_MAX = 1_000
CATALOGUE_MAX = 4_096
WARNED_MAX = 16
ALIVE_SECONDS = 60.0
"""A worker that has asked for tasks since then is alive."""


class Stored(Struct, frozen=True, kw_only=True):
    """A definition as it is kept."""

    name: str
    is_kind: bool
    version: str
    document: dict[str, Any]
    semantics_hash: bytes
    created_by: str
    created_at: datetime

    @property
    def definition(self) -> Definition:
        """The document, read."""
        if self.is_kind:
            return msgspec.convert(self.document, KindDefinition)
        return msgspec.convert(self.document, SagaDefinition)


Put = Literal["created", "tuned", "unchanged", "differs"]


async def put(connection: asyncpg.Connection, environment: str, definition: Definition, *, actor: str) -> Put:
    """Keep a definition. `differs`: this version is taken and means something else; nothing was changed.

    Retry, timeout and pace of a version that means the same are replaced: `tuned`. So are arguments that nobody has said yet.
    """
    is_kind = isinstance(definition, KindDefinition)
    name = definition.kind if isinstance(definition, KindDefinition) else definition.saga
    document, meaning, said = _bare(encode(definition)), semantics_hash(definition), arguments_of(definition)
    place = (environment, name, is_kind, definition.version)
    if await connection.fetchval(QUERIES.insert, *place, document, said, meaning, actor) is not None:
        return "created"
    standing = await get(connection, environment, name, definition.version, is_kind=is_kind)
    if standing is None or not agrees(standing, definition):
        return "differs"
    if _bare(standing.document) == document and (not said or said == arguments_of(standing.definition)):
        return "unchanged"
    tuned = await connection.fetchval(QUERIES.tune, *place, document, said, meaning)
    return "differs" if tuned is None else "tuned"


def agrees(standing: Stored, definition: Definition) -> bool:
    """Whether a definition means what is kept under its version. Who says no arguments, as 0.1.0, agrees with any."""
    kept, said = arguments_of(standing.definition), arguments_of(definition)
    return standing.semantics_hash == semantics_hash(definition) and (not kept or not said or kept == said)


def _bare(document: dict[str, Any]) -> dict[str, Any]:
    """Without arguments, which are kept beside it."""
    if "steps" not in document:
        return document
    steps = [{name: value for name, value in step.items() if name != "arguments"} for step in document["steps"]]
    return {**document, "steps": steps}


def _whole(document: dict[str, Any], arguments: dict[str, list[str]]) -> dict[str, Any]:
    if not arguments:
        return document
    steps = [
        {**step, "arguments": arguments[step["name"]]} if step["name"] in arguments else step for step in document["steps"]
    ]
    return {**document, "steps": steps}


async def get(
    connection: asyncpg.Connection, environment: str, name: str, version: str, *, is_kind: bool = False
) -> Stored | None:
    """The definition of this name and version, or null."""
    row = await connection.fetchrow(QUERIES.get, environment, name, is_kind, version)
    return None if row is None else _stored(row)


async def listing(
    connection: asyncpg.Connection,
    environment: str,
    *,
    is_kind: bool = False,
    after: tuple[str, str] = ("", ""),
    limit: int = 100,
) -> list[Stored]:
    """Definitions by name and version, from after `after`."""
    rows = await connection.fetch(QUERIES.listing, environment, is_kind, after[0], after[1], limit)
    return [_stored(row) for row in rows]


async def names(connection: asyncpg.Connection, environment: str, *, is_kind: bool = False) -> list[str]:
    """Every name with a definition, for suggestions."""
    return [row["name"] for row in await connection.fetch(QUERIES.names, environment, is_kind, SUGGESTIONS_MAX)]


async def versions(connection: asyncpg.Connection, environment: str, name: str, *, is_kind: bool = False) -> list[str]:
    """The versions of one name, oldest first."""
    rows = await connection.fetch(QUERIES.versions, environment, name, is_kind, SUGGESTIONS_MAX)
    return [row["version"] for row in rows]


async def require(connection: asyncpg.Connection, environment: str, saga: str) -> None:
    """Raise `Problem` 404, with the nearest name, where no version of the saga is registered."""
    if await versions(connection, environment, saga):
        return
    raise Problem(
        404,
        "unknown_saga",
        "No such saga",
        f"{environment!r} has no saga {saga[:255]!r}.",
        suggestion=suggest(saga, await names(connection, environment)),
        next_step="register its definition (`rescind sagas register FILE`), or start a client with `sagas=[...]`",
    )


def _stored(row: Any) -> Stored:
    return Stored(
        name=row["name"],
        is_kind=row["is_kind"],
        version=row["version"],
        document=_whole(row["document"], row["arguments"]),
        semantics_hash=row["semantics_hash"],
        created_by=row["created_by"],
        created_at=row["created_at"],
    )


async def check_connections(connection: asyncpg.Connection, environment: str, definition: Definition) -> list[Fault]:
    """Faults between a definition and the connections it names.

    What moves money needs a connection that is there and granted to it; any connection that is there must be of its
    executor's type. Others may be set up later: until then their effects wait for a person.
    """
    owner = definition.saga if isinstance(definition, SagaDefinition) else definition.kind
    faults: list[Fault] = []
    for at, compensation in _reaching_out(definition):
        found = await connections.get(connection, environment, compensation.connection)
        faults += _check(compensation, found, owner, at)
    return faults


async def missing_connections(connection: asyncpg.Connection, environment: str, definition: Definition) -> list[Fault]:
    """Connections that the definition names and that are not set up yet: until they are, its effects wait for a person."""
    return [
        Fault(pointer=at, detail=_not_yet(compensation.connection), code="unknown_connection")
        for at, compensation in _reaching_out(definition)
        if await connections.get(connection, environment, compensation.connection) is None
    ]


async def unserved_versions(connection: asyncpg.Connection, environment: str, saga: str, version: str) -> list[Fault]:
    """What is left without a handler when `version` is registered: itself, where live workers serve others only, and other
    versions with steps that lie ready."""
    served = [row["version"] for row in await connection.fetch(QUERIES.served, environment, saga, ALIVE_SECONDS, WARNED_MAX)]
    rows = await connection.fetch(QUERIES.unserved, environment, saga, ALIVE_SECONDS, WARNED_MAX)
    faults = [
        Fault(
            pointer="/version",
            detail=f"steps of version {row['version']!r} lie ready, and no live worker serves it",
            code="no_worker",
        )
        for row in rows
        if row["has_ready"]
    ]
    if served and version not in served:
        detail = f"live workers serve {', '.join(served)}, none serves {version!r}: what is for a worker waits until one does"
        faults.insert(0, Fault(pointer="/version", detail=detail, code="no_worker"))
    return faults


def _not_yet(name: str) -> str:
    return f"there is no connection {name!r} yet: rescind connections set {name}"


def _reaching_out(definition: Definition) -> Iterator[tuple[str, Refund | Email | Webhook]]:
    """Every compensation and notice that needs a connection, and where it names it."""
    steps: Sequence[Any] = definition.steps if isinstance(definition, SagaDefinition) else [definition]
    for index, step in enumerate(steps):
        at = f"/steps/{index}" if isinstance(definition, SagaDefinition) else ""
        for field, compensation in (("compensation", step.compensation), ("notice", step.notice)):
            if isinstance(compensation, Refund | Email | Webhook):
                yield f"{at}/{field}/connection", compensation


_TYPES: dict[type, tuple[type, str]] = {
    Refund: (StripeConnection, "stripe"),
    Email: (SmtpConnection, "smtp"),
    Webhook: (WebhookConnection, "webhook"),
}


def _check(compensation: Compensation, found: connections.Connection | None, owner: str, at: str) -> list[Fault]:
    moves_money = isinstance(compensation, Refund)
    name = getattr(compensation, "connection", "")
    if found is None:
        detail = (
            f"there is no connection {name!r}, and what moves money needs one granted to it: rescind connections set {name}"
        )
        return [Fault(pointer=at, detail=detail, code="unknown_connection")] if moves_money else []
    wanted, word = _TYPES[type(compensation)]
    if not isinstance(found, wanted):
        return [Fault(pointer=at, detail=f"{name!r} is not a {word} connection", code="wrong_connection")]
    if moves_money and not connections.grants(found, owner):
        granted = msgspec.json.encode([owner]).decode()
        detail = f'{name!r} is not granted to {owner!r}: an admin adds "granted": {granted} to the connection'
        return [Fault(pointer=at, detail=detail, code="not_granted")]
    return []


class Catalogue:
    """Definitions by name and version, read once per process: what a version means does not change.

    Retry, timeout and pace may: who needs those reads the store.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str, bool], Definition] = {}

    async def saga(self, connection: asyncpg.Connection, environment: str, name: str, version: str) -> Definition | None:
        """The saga's definition, or null while there is none."""
        return await self._of(connection, environment, name, version, False)

    async def kind(self, connection: asyncpg.Connection, environment: str, name: str, version: str) -> Definition | None:
        """The loose kind's definition, or null while there is none."""
        return await self._of(connection, environment, name, version, True)

    async def _of(
        self, connection: asyncpg.Connection, environment: str, name: str, version: str, is_kind: bool
    ) -> Definition | None:
        place = (environment, name, version, is_kind)
        known = self._known.get(place)
        if known is None:
            stored = await get(connection, environment, name, version, is_kind=is_kind)
            if stored is None:
                return None
            if len(self._known) >= CATALOGUE_MAX:
                self._known.clear()
            known = self._known[place] = stored.definition
        return known

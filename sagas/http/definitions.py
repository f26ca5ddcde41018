"""Definitions over HTTP: what undoes the effects of sagas and of loose kinds, pinned by version (P15)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from litestar import Controller, Response, get, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from rescind.wire import Fault

from runtime import audit
from runtime.errors import Code
from runtime.postgres import Connection, Postgres
from runtime.problem import Problem, suggest
from runtime.tokens import Principal
from sagas.definitions import Definition, KindDefinition, parse, semantics_hash
from sagas.definitions import store as definitions
from sagas.definitions.store import Stored
from sagas.http.bodies import LIMIT_MAX, AnyRequest, answer, read_document, refused
from sagas.http.environments import Environments


class DefinitionController(Controller):
    """Sagas, and loose kinds in one step's format."""

    path = "/v1/environments/{environment:str}"
    tags = ["definitions"]

    @get("/sagas", summary="List definitions")
    async def list_sagas(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        pg: NamedDependency[Postgres],
        principal: NamedDependency[Principal],
        limit: FromQuery[int] = 100,
        after: FromQuery[str | None] = None,
    ) -> Response[bytes]:
        """Sagas by name and version, and on the first page the loose kinds. `after` is `<name>/<version>`, as `next` says."""
        principal.require("read", environment)
        count = min(max(1, limit), LIMIT_MAX)
        name, _, version = (after or "").partition("/")
        async with pg.connection() as connection:
            sagas = await definitions.listing(connection, environment, after=(name, version), limit=count + 1)
            kinds = [] if after else await definitions.listing(connection, environment, is_kind=True, limit=LIMIT_MAX)
        following = f"{sagas[count - 1].name}/{sagas[count - 1].version}" if len(sagas) > count else None
        shown = {"sagas": [_shown(one) for one in sagas[:count]], "kinds": [_shown(one) for one in kinds], "next": following}
        return answer(request, shown)

    @get("/sagas/{name:str}/versions/{version:str}", summary="Read a saga's definition")
    async def read_saga(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        name: FromPath[str],
        version: FromPath[str],
        pg: NamedDependency[Postgres],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """The definition as it is kept."""
        _require_sight(principal, environment, name)
        return answer(request, _shown(await _found(pg, environment, name, version, is_kind=False)))

    @put("/sagas/{name:str}/versions/{version:str}", summary="Register a saga's definition")
    async def write_saga(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        name: FromPath[str],
        version: FromPath[str],
        pg: NamedDependency[Postgres],
        environments: NamedDependency[Environments],
        principal: NamedDependency[Principal],
        dry_run: FromQuery[bool] = False,
    ) -> Response[bytes]:
        """The same version with other semantics is 409; retry, timeout and pace may be tuned. `dry_run` only checks."""
        principal.require(f"define:{name}", environment)
        await environments.require(environment)
        return await _write(request, pg, principal, environment, {"saga": name, "version": version}, dry_run=dry_run)

    @get("/kinds/{name:str}/versions/{version:str}", summary="Read a loose kind's definition")
    async def read_kind(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        name: FromPath[str],
        version: FromPath[str],
        pg: NamedDependency[Postgres],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """The definition as it is kept."""
        _require_sight(principal, environment, name)
        return answer(request, _shown(await _found(pg, environment, name, version, is_kind=True)))

    @put("/kinds/{name:str}/versions/{version:str}", summary="Register a loose kind's definition")
    async def write_kind(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        name: FromPath[str],
        version: FromPath[str],
        pg: NamedDependency[Postgres],
        environments: NamedDependency[Environments],
        principal: NamedDependency[Principal],
        dry_run: FromQuery[bool] = False,
    ) -> Response[bytes]:
        """As for sagas."""
        principal.require(f"define:{name}", environment)
        await environments.require(environment)
        return await _write(request, pg, principal, environment, {"kind": name, "version": version}, dry_run=dry_run)


def _require_sight(principal: Principal, environment: str, name: str) -> None:
    if not principal.allows(f"define:{name}", environment) and not principal.allows(f"work:{name}", environment):
        principal.require("read", environment)


async def _missing_too(
    connection: Connection, environment: str, definition: Definition, faults: Sequence[Fault]
) -> list[Fault]:
    """Of a definition that is refused for a connection: the others that are missing, so that all are set up at once."""
    if not any(fault.code == "unknown_connection" for fault in faults):
        return []
    named = {fault.pointer for fault in faults}
    missing = await definitions.missing_connections(connection, environment, definition)
    return [fault for fault in missing if fault.pointer not in named]


async def _write(
    request: AnyRequest, pg: Postgres, principal: Principal, environment: str, path: dict[str, str], *, dry_run: bool
) -> Response[bytes]:
    document, reason = await read_document(request, "document", "definition")
    is_kind = "kind" in path
    faults = [
        Fault(pointer=f"/{field}", detail=f"is {document[field]!r}, and the path says {value!r}", code="other_path")
        for field, value in path.items()
        if field in document and document[field] != value
    ]
    if is_kind and ("saga" in document or "steps" in document):
        faults.append(Fault(pointer="/steps", detail="a loose kind has one step's format", code="unknown_field"))
    definition, found = parse({**path, **document} if is_kind else {**path, "steps": [], **document})
    faults += found
    async with pg.transaction() as connection:
        if definition is not None:
            faults += await definitions.check_connections(connection, environment, definition)
            faults += await _missing_too(connection, environment, definition, faults)
        if faults or definition is None:
            raise refused(faults, "The definition has faults")
        if dry_run:
            await _require_same(connection, environment, definition, path, is_kind=is_kind)
            warnings = await definitions.missing_connections(connection, environment, definition)
            warnings += await _unserved(connection, environment, definition)
            return answer(request, {"ok": True, **path, "warnings": warnings})
        outcome = await definitions.put(connection, environment, definition, actor=principal.name)
        if outcome == "differs":
            raise _differs(path)
        name = path["kind" if is_kind else "saga"]
        if outcome != "unchanged":
            await audit.append(
                connection,
                actor=principal.name,
                action=f"definition.{'create' if outcome == 'created' else 'tune'}",
                environment=environment,
                object=f"{'kind' if is_kind else 'saga'}/{name}/{path['version']}",
                reason=reason,
                detail={"semantics_hash": semantics_hash(definition).hex()},
            )
        stored = await definitions.get(connection, environment, name, path["version"], is_kind=is_kind)
        warnings = await _unserved(connection, environment, definition) if outcome == "created" else []
    assert stored is not None
    shown = {**_shown(stored), "outcome": outcome, **({"warnings": warnings} if warnings else {})}
    return answer(request, shown, 201 if outcome == "created" else 200)


async def _unserved(connection: Connection, environment: str, definition: Definition) -> list[Fault]:
    if isinstance(definition, KindDefinition):
        return []
    return await definitions.unserved_versions(connection, environment, definition.saga, definition.version)


async def _require_same(
    connection: Connection, environment: str, definition: Definition, path: dict[str, str], *, is_kind: bool
) -> None:
    name = path["kind" if is_kind else "saga"]
    standing = await definitions.get(connection, environment, name, path["version"], is_kind=is_kind)
    if standing is not None and not definitions.agrees(standing, definition):
        raise _differs(path)


def _differs(path: dict[str, str]) -> Problem:
    name = path.get("saga") or path["kind"]
    return Problem(
        409,
        "version_differs",
        "This version means something else",
        f"{name!r} version {path['version']!r} is registered with other semantics, and effects are pinned to it.",
        next_step="Give the new meaning a new version. Retry, timeout and pace can be tuned under the old one.",
    )


async def _found(pg: Postgres, environment: str, name: str, version: str, *, is_kind: bool) -> Stored:
    word = "kind" if is_kind else "saga"
    async with pg.connection() as connection:
        stored = await definitions.get(connection, environment, name, version, is_kind=is_kind)
        if stored is not None:
            return stored
        versions = await definitions.versions(connection, environment, name, is_kind=is_kind)
        if versions:
            nearest = suggest(version, versions) or versions[-1]
            raise Problem(
                404, Code.NOT_FOUND, f"No such version of this {word}", f"{name!r} has no {version!r}.", suggestion=nearest
            )
        names = await definitions.names(connection, environment, is_kind=is_kind)
    raise Problem(
        404, Code.NOT_FOUND, f"No such {word}", f"{environment!r} has no {word} {name!r}.", suggestion=suggest(name, names)
    )


def _shown(stored: Stored) -> dict[str, Any]:
    return {
        "name": stored.name,
        "version": stored.version,
        "is_kind": stored.is_kind,
        "document": stored.document,
        "semantics_hash": stored.semantics_hash.hex(),
        "created_by": stored.created_by,
        "created_at": stored.created_at,
    }

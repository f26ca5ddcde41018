"""`/v1/environments/{environment}/releases`, and `/services/{service}/recovery`."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Controller, Response, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from flagd.core import documents, releases
from flagd.errors import refused
from flagd.http.bodies import AnyRequest, answer, read_object
from flagd.http.gate import require_any
from runtime.principal import Principal
from server.http.asking import read, read_since, scope_in
from server.rollbacks.releases import ReleaseDesk, ReleaseView
from server.rollbacks.requests import KillRequest

LIMIT_MAX = 200
KILL = "kill"


class ReleaseController(Controller):
    """What ships, and is rolled back, together."""

    path = "/v1/environments/{environment:str}/releases"
    tags = ["releases"]

    @get("/", summary="List releases")
    async def listing(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        desk: NamedDependency[ReleaseDesk],
        principal: NamedDependency[Principal],
        service: FromQuery[str | None] = None,
        flag: FromQuery[str | None] = None,
        limit: FromQuery[int] = 50,
        after: FromQuery[str | None] = None,
    ) -> Response[bytes]:
        """The last deployed first, in short; `?service=`, `?flag=`, `?limit=&after=` a page."""
        require_any(principal, ("read",), environment)
        size = max(1, min(limit, LIMIT_MAX))
        asked = {name: without_nul(text) for name, text in {"service": service, "flag": flag, "after": after}.items()}
        rows = await desk.listing(environment, **asked, limit=size)
        return answer(request, {"releases": rows, "next": rows[-1].name if len(rows) == size else None})

    @get("/{name:str}", summary="Get a release")
    async def get_release(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        name: FromPath[str],
        desk: NamedDependency[ReleaseDesk],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """As it was put, its migrations' statements as they were classed, and its reversibility."""
        require_any(principal, ("read",), environment)
        return answer(request, body_of(await desk.get(environment, name.replace("\0", ""))))

    @put("/{name:str}", summary="Put a release")
    async def put_release(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        name: FromPath[str],
        desk: NamedDependency[ReleaseDesk],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """`{"release": {...}, "reason": "..."}`. 201 if it is new; the same once more changes nothing. Scope `release`."""
        require_any(principal, (f"release:{name}",), environment)
        body = await read_object(request)
        faults = documents.unknown_fields(body, dict.fromkeys(("release", "reason")), "")
        reason, wrong = documents.read_reason(body)
        release, flaws = releases.read(body.get("release"))
        if found := [*faults, *wrong, *releases.name_faults(name), *flaws]:
            raise refused(found)
        view, done = await desk.put(environment, name, release, actor=principal.name, reason=reason)
        return answer(request, {**body_of(view), "changed": done.is_changed}, 201 if done.is_new else 200)

    @post("/{name:str}/kill", status_code=202, summary="Kill a release")
    async def kill(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        name: FromPath[str],
        desk: NamedDependency[ReleaseDesk],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """Kill all flags of the release in one revision and one rollback; answered when the fence has committed."""
        require_kill(principal, environment)
        asked = await read(request, KillRequest)
        read_since(asked.since)
        flags = await desk.flags(environment, name.replace("\0", ""))
        for key in flags:
            principal.require(f"{KILL}:{key}", environment)
        done = await desk.kill(environment, name, flags, asked, principal.name)
        return answer(request, {**msgspec.to_builtins(done), "release": name, "flags": flags}, 202)

    @get("/{name:str}/kill-preview", summary="Preview a release's kill")
    async def preview(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        name: FromPath[str],
        desk: NamedDependency[ReleaseDesk],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """The release with its reversibility, and the preview of each of its flags. `?since=`, `?scope.<attribute>=<value>`."""
        require_sight_of(principal, environment)
        scope, since = scope_in(request), read_since(request.query_params.get("since"), "")
        return answer(request, await desk.preview(environment, name.replace("\0", ""), scope=scope, since=since))


class RecoveryLadderController(Controller):
    """The ways out."""

    path = "/v1/environments/{environment:str}/services"
    tags = ["releases"]

    @get("/{service:str}/recovery", summary="The recovery ladder of a service")
    async def recovery(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        service: FromPath[str],
        desk: NamedDependency[ReleaseDesk],
        principal: NamedDependency[Principal],
        release: FromQuery[str | None] = None,
    ) -> Response[bytes]:
        """Whether its release ran a destructive migration; flag, traffic, previous artifact, hotfix: there, safe, and how."""
        require_sight_of(principal, environment)
        return answer(request, await desk.recovery(environment, service.replace("\0", ""), without_nul(release)))


def body_of(view: ReleaseView) -> dict[str, Any]:
    """A release as it is answered."""
    stored, verdict = view.stored, view.verdict
    return {
        "name": stored.name,
        "release": stored.release,
        "findings": stored.findings,
        "reversibility": verdict.reversibility,
        "reasons": verdict.reasons,
        "destructive_migration": verdict.destructive_migration,
        "previous_artifact_runs": verdict.previous_artifact_runs,
        "deployed_at": stored.deployed_at,
        "created_at": stored.created_at,
        "created_by": stored.created_by,
        "updated_at": stored.updated_at,
        "updated_by": stored.updated_by,
        "reason": stored.reason,
    }


def require_kill(principal: Principal, environment: str) -> None:
    """Let pass whoever may kill something here; which flags, is asked once they are known. Raises `Problem` 403."""
    if not any(scope.partition(":")[0] == KILL and principal.allows(scope, environment) for scope in principal.scopes):
        require_any(principal, (KILL,), environment)


def require_sight_of(principal: Principal, environment: str) -> None:
    """Let pass whoever may read, or kill something here. Raises `Problem` 403."""
    if not principal.allows("read", environment):
        require_kill(principal, environment)


def without_nul(text: str | None) -> str | None:
    """What PostgreSQL can be asked for."""
    return None if text is None else text.replace("\0", "")

"""`POST .../flags/{key}/kill`, `POST .../flags/{key}/lift`, `GET .../flags/{key}/kill-preview`."""

from __future__ import annotations

from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from flagd.http.bodies import AnyRequest, answer
from runtime.principal import ADMIN, Principal
from server.http.asking import read, read_since, scope_in
from server.rollbacks.preview import Previews
from server.rollbacks.requests import KillRequest, LiftRequest
from server.rollbacks.service import Kills


class KillController(Controller):
    """Turning off is fast and needs little right; turning on needs more (P19)."""

    path = "/v1/environments/{environment:str}/flags/{key:str}"
    tags = ["kills"]

    @post("/kill", status_code=202, summary="Kill a flag")
    async def kill(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        key: FromPath[str],
        kills: NamedDependency[Kills],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """Put the flag on its off variant for everyone in scope; answered when the fence has committed."""
        principal.require(f"kill:{key}", environment)
        asked = await read(request, KillRequest)
        read_since(asked.since)
        return answer(request, await kills.kill(environment, [key], asked, principal.name), 202)

    @post("/lift", status_code=200, summary="Lift a flag's kills")
    async def lift(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        key: FromPath[str],
        kills: NamedDependency[Kills],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """Bring the flag back under its own rules. Needs the scope `lift` or `admin`: `kill` is not enough."""
        principal.require(f"lift:{key}", environment)
        asked = await read(request, LiftRequest)
        if asked.past_gate:
            principal.require(ADMIN, environment)
        return answer(request, await kills.lift(environment, key, asked, principal.name))

    @get("/kill-preview", summary="Preview a kill")
    async def preview(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        key: FromPath[str],
        previews: NamedDependency[Previews],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """What a kill would stop and undo, in 300 ms. `?since=`, and `?scope.<attribute>=<value>` to narrow it."""
        if not principal.allows(f"kill:{key}", environment):
            principal.require("read", environment)
        scope, since = scope_in(request), read_since(request.query_params.get("since"), "")
        return answer(request, await previews.preview(environment, key, scope=scope, since=since))

"""`POST /v1/environments/{environment}/restored`: a person says that a restored PostgreSQL may go on (P2)."""

from __future__ import annotations

from litestar import Controller, Response, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import Struct

from flagd.http.bodies import AnyRequest, answer
from runtime.principal import Principal
from server.http.asking import read
from server.rollbacks.recovery import Recovery
from server.rollbacks.requests import Reason


class RestoredRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body."""

    reason: Reason


class RecoveryController(Controller):
    """Recovery: after a restore of PostgreSQL to an older state."""

    path = "/v1/environments/{environment:str}"
    tags = ["environments"]

    @post("/restored", status_code=200, summary="End a recovery")
    async def restored(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        recovery: NamedDependency[Recovery],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """Raise the generation above everything that was seen, if that is not done yet, and open the flags that are not killed.

        Changes nothing where there is no recovery. `lost`: killed flags that PostgreSQL does not know any more."""
        principal.require("admin")
        asked = await read(request, RestoredRequest)
        return answer(request, await recovery.restored(environment, principal.name, asked.reason))

"""`GET .../retention`: for how long history is kept, how far it was looked through, and up to when it has gone (P9, P12)."""

from __future__ import annotations

from litestar import Controller, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from runtime.postgres import Postgres
from runtime.tokens import Principal
from sagas.http.bodies import AnyRequest, answer
from sagas.http.environments import Environments
from sagas.retention import listing
from sagas.retention.policy import Retention


class RetentionController(Controller):
    """Retention of what has ended."""

    path = "/v1/environments/{environment:str}/retention"
    tags = ["retention"]

    @get("/", summary="Show retention")
    async def show(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        pg: NamedDependency[Postgres],
        environments: NamedDependency[Environments],
        retention: NamedDependency[Retention],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """Days of this server's settings, null: for ever; the installation's sweeps; what has gone, by flag."""
        principal.require("read", environment)
        await environments.require(environment)
        async with pg.connection() as connection:
            return answer(request, await listing.shown(connection, environment, retention))

"""The routes of the ledger, of definitions, of breakers and of connections, with all that their handlers need."""

from __future__ import annotations

from litestar import Router
from litestar.di import Provide

from runtime.postgres import Postgres
from runtime.tokens import Principal, Verifier, bearer
from sagas.http.bodies import BODY_BYTES_MAX, AnyRequest
from sagas.http.breakers import BreakerController
from sagas.http.connections import ConnectionController
from sagas.http.definitions import DefinitionController
from sagas.http.effects import EffectController
from sagas.http.environments import Environments
from sagas.http.schemas import SchemaController
from sagas.ledger import Ledger


def build(*, pg: Postgres, ledger: Ledger, verifier: Verifier, environments: Environments) -> Router:
    """A router for the composition root."""

    async def principal(request: AnyRequest) -> Principal:
        return await verifier.verify(bearer(request.scope["headers"]))

    return Router(
        path="/",
        route_handlers=[EffectController, DefinitionController, SchemaController, ConnectionController, BreakerController],
        request_max_body_size=BODY_BYTES_MAX,
        dependencies={
            "principal": Provide(principal),
            "pg": Provide(lambda: pg, sync_to_thread=False),
            "ledger": Provide(lambda: ledger, sync_to_thread=False),
            "environments": Provide(lambda: environments, sync_to_thread=False),
        },
    )

"""The composition root: the bare applications that must be fast in front, everything else behind Litestar.

parts = await Parts.open(settings)
app = build(parts)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol, cast

from litestar import Controller, Litestar, Response, Router, get
from litestar.di import NamedDependency, Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme
from rescind.version import __version__

from flagd.http import lane as flag_lane
from flagd.http import routes as flag_routes
from flagd.http.bodies import AnyRequest
from flagd.http.ofrep import CrossOrigin, EventStreams, OfrepApp
from flagd.http.stream import StreamApp
from runtime.idempotency import IdempotencyMiddleware
from runtime.lane import Lane, Route
from runtime.principal import Principal, bearer
from runtime.problem import litestar_handlers
from runtime.right import Right
from runtime.tracing import TracingMiddleware
from sagas.http import lane as effect_lane
from sagas.http import ledger as ledger_routes
from sagas.http.environments import Environments
from sagas.http.instances import InstanceController
from sagas.http.operations import OperationController
from sagas.http.retention import RetentionController
from sagas.http.search import SearchController
from sagas.http.tasks import TaskController
from server.http.decisions import DecisionController
from server.http.health import HealthApp
from server.http.kills import KillController
from server.http.recovery import RecoveryController
from server.http.refusals import RefusalMiddleware
from server.http.releases import RecoveryLadderController, ReleaseController
from server.http.rollbacks import RollbackController
from server.http.tokens import IdentityController, TokenController
from server.parts import Parts

BODY_BYTES_MAX = 8 * 1024 * 1024

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Matching(Protocol):
    """A bare application that says which paths it answers."""

    def matches(self, path: str) -> bool: ...

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]: ...


class DocumentController(Controller):
    """The API's own description."""

    path = "/docs"
    include_in_schema = False

    @get(["/", "/openapi.json"])
    async def openapi(self, request: AnyRequest, principal: NamedDependency[Principal]) -> Response[dict[str, Any]]:
        """OpenAPI 3.1."""
        principal.require("read")
        return Response(request.app.openapi_schema.to_schema(), media_type="application/json")


def build(parts: Parts) -> App:
    """The ASGI application of this process."""
    flags, sagas = ("flags" in parts.settings.roles), ("sagas" in parts.settings.roles)
    framework = Litestar(
        [*([flag_router(parts)] if flags else []), *(saga_routers(parts) if sagas else []), roof(parts)],
        exception_handlers=litestar_handlers,
        request_max_body_size=BODY_BYTES_MAX,
        openapi_config=OpenAPIConfig(
            title="Rescind", version=__version__, path="/docs/unused", render_plugins=[], security=[{"token": []}],
            components=Components(security_schemes={"token": SecurityScheme(type="http", scheme="bearer")}),
        ),
        logging_config=None,
    )  # fmt: skip
    guarded = RefusalMiddleware(cast("App", framework), parts.pg, parts.verifier)
    parts.finish_before_close(guarded.stop)
    behind = IdempotencyMiddleware(guarded, parts.requests, parts.verifier)
    health = HealthApp(parts.pg, parts.redis, parts.verifier, parts.telemetry)
    events = EventStreams(parts.replicas, parts.verifier, parts.clock, parts.settings.public_url)
    ofrep = OfrepApp(parts.replicas, parts.verifier, events)
    origins = parts.settings.allowed_origins
    stream = StreamApp(parts.replicas, parts.verifier, parts.instances, parts.clock)

    lane = Lane(parts.verifier, behind, short_ways(parts))

    fast: list[Matching] = [CrossOrigin(ofrep, origins) if origins else ofrep, stream]
    in_front: list[Matching] = [*(fast if flags else []), lane, health]

    def app(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return nothing()
        path = scope["path"]
        for one in in_front:
            if one.matches(path):
                return one(scope, receive, send)
        return behind(scope, receive, send)

    return TracingMiddleware(app, enabled=parts.settings.otlp_endpoint is not None)


async def nothing() -> None:
    """What is answered to what is no request."""


def short_ways(parts: Parts) -> dict[str, Route]:
    """What SDKs send all the time."""
    beats = (
        flag_lane.routes(parts.replicas, parts.instances, parts.counts, parts.acknowledged)
        if "flags" in parts.settings.roles
        else {}
    )
    effects = effect_lane.routes(parts.ledger, parts.tasks) if "sagas" in parts.settings.roles else {}
    return {**beats, **effects}


def roof(parts: Parts) -> Router:
    """Kills, rollbacks, tokens, audit."""

    async def principal(request: AnyRequest) -> Principal:
        return await parts.verifier.verify(bearer(request.scope["headers"]))

    handed: dict[str, object] = {
        "pg": parts.pg, "entropy": parts.entropy, "kills": parts.kills, "previews": parts.previews,
        "watching": parts.watching, "reports": parts.reports, "streams": parts.streams, "decisions": parts.decisions,
        "desk": parts.desk,
        "environments": Environments(parts.kills.environments),
        "recovery": parts.recovery,
    }  # fmt: skip
    return Router(
        path="/",
        route_handlers=[
            KillController,
            RollbackController,
            RecoveryController,
            DecisionController,
            ReleaseController,
            RecoveryLadderController,
            TokenController,
            IdentityController,
            DocumentController,
        ],
        dependencies={
            "principal": Provide(principal),
            "right": right_of(parts),
            **{name: given(part) for name, part in handed.items()},
        },
    )


def flag_router(parts: Parts) -> Router:
    """The wing of flags."""
    return flag_routes.build(
        service=parts.flags, replicas=parts.replicas, instances=parts.instances, counts=parts.counts,
        clock=parts.clock, verifier=parts.verifier,
        on_acknowledged=parts.acknowledged, kill_operation=parts.changes.carry_out, imports=parts.imports,
        schedules=parts.schedules, rollouts=parts.rollouts,
    )  # fmt: skip


def saga_routers(parts: Parts) -> list[Router]:
    """The wing of effects and sagas."""

    async def worker(request: AnyRequest) -> Principal:
        """Who may work for some saga here; for which one, the service asks."""
        principal = await parts.verifier.verify(bearer(request.scope["headers"]))
        environment = request.path_params["environment"]
        if not any(principal.allows(scope, environment) for scope in principal.scopes if scope.partition(":")[0] == "work"):
            principal.require("work", environment)
        return principal

    async def anyone(request: AnyRequest) -> Principal:
        return await parts.verifier.verify(bearer(request.scope["headers"]))

    environments = Environments(parts.kills.environments)
    tasks = Router(
        path="/", route_handlers=[TaskController],
        dependencies={
            "principal": Provide(worker), "right": right_of(parts), "tasks": given(parts.tasks),
            "environments": given(environments),
        },
    )  # fmt: skip
    ledger = ledger_routes.build(pg=parts.pg, ledger=parts.ledger, verifier=parts.verifier, environments=environments)
    instances = Router(
        path="/", route_handlers=[InstanceController, SearchController, OperationController, RetentionController],
        dependencies={
            "principal": Provide(anyone), "right": right_of(parts), "instances": given(parts.saga_instances),
            "environments": given(environments), "pg": given(parts.pg), "operations": given(parts.operations),
            "retention": given(parts.retention),
        },
    )  # fmt: skip
    return [ledger, tasks, instances]


def right_of(parts: Parts) -> Provide:
    """The right of a request that stays open, for handlers that wait."""

    def right(request: AnyRequest) -> Right:
        return Right(parts.verifier, bearer(request.scope["headers"]), parts.clock)

    return Provide(right, sync_to_thread=False)


def given(part: object) -> Provide:
    """A part as Litestar's dependency."""
    return Provide(lambda: part, sync_to_thread=False)

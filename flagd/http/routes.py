"""The router of this wing, beside its two bare applications; environments and instances."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from litestar import Controller, Response, Router, get, post
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, FromQuery
from rescind import wire

from flagd.errors import refused
from flagd.http.bodies import AnyRequest, answer, read
from flagd.http.environments import EnvironmentController
from flagd.http.explain import ExplainController
from flagd.http.flags import LIMIT_MAX, READ, ChangeController, FlagController, KillOperation, KillOperations
from flagd.http.gate import BODY_MAX, require_any
from flagd.http.imports import ImportController
from flagd.http.rollouts import RolloutController
from flagd.http.schedules import ScheduleController
from flagd.http.segments import SegmentController
from flagd.imports import Imports
from flagd.instances import BEAT, Instances, faults_of, heard
from flagd.replica import Replicas
from flagd.rollouts import Rollouts
from flagd.schedules import Schedules
from flagd.service import FlagService
from flagd.snapshots import HEARTBEAT_SECONDS
from runtime.problem import fault_of
from runtime.tokens import Principal, Verifier, bearer

OnAcknowledged = Callable[[str, wire.InstanceBeat], Awaitable[object]]
"""Called with each acknowledgement of a kill, before it is answered; `begun` is null from one who may admit no effects."""


class Acknowledged:
    """Who else wants to know of acknowledgements."""

    def __init__(self, tell: OnAcknowledged | None) -> None:
        self.tell = tell


def build(
    *,
    service: FlagService,
    replicas: Replicas,
    instances: Instances,
    verifier: Verifier,
    on_acknowledged: OnAcknowledged | None = None,
    kill_operation: KillOperation | None = None,
    imports: Imports,
    schedules: Schedules,
    rollouts: Rollouts,
) -> Router:
    """The routes of this wing with all that their handlers need."""

    async def principal(request: AnyRequest) -> Principal:
        return await verifier.verify(bearer(request.scope["headers"]))

    acknowledged, kill_operations = Acknowledged(on_acknowledged), KillOperations(kill_operation)
    return Router(
        path="/",
        route_handlers=[
            EnvironmentController,
            FlagController,
            ExplainController,
            ChangeController,
            SegmentController,
            ScheduleController,
            RolloutController,
            ImportController,
            InstanceController,
        ],
        request_max_body_size=BODY_MAX,
        dependencies={
            "principal": Provide(principal),
            "service": Provide(lambda: service, sync_to_thread=False),
            "imports": Provide(lambda: imports, sync_to_thread=False),
            "schedules": Provide(lambda: schedules, sync_to_thread=False),
            "rollouts": Provide(lambda: rollouts, sync_to_thread=False),
            "replicas": Provide(lambda: replicas, sync_to_thread=False),
            "instances": Provide(lambda: instances, sync_to_thread=False),
            "acknowledged": Provide(lambda: acknowledged, sync_to_thread=False),
            "kill_operations": Provide(lambda: kill_operations, sync_to_thread=False),
        },
    )


class InstanceController(Controller):
    """Running SDKs, and what they have acknowledged."""

    path = "/v1/environments/{environment:str}"
    tags = ["instances"]

    @post("/heartbeats", status_code=200, summary="Heartbeat of an instance")
    async def beat(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        instances: NamedDependency[Instances],
        replicas: NamedDependency[Replicas],
        acknowledged: NamedDependency[Acknowledged],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """Which revision an instance has applied; at once after a kill, with the effects it has begun.

        Needs the scope `evaluate`. `begun` is heard from one who has `effects` too: it gives permissions back.
        """
        require_any(principal, (BEAT,), environment)
        replica = await replicas.get(environment)
        beat = _beat(await read(request))
        await instances.beat(environment, heard(beat, principal, environment))
        if beat.begun is not None and acknowledged.tell is not None:
            await acknowledged.tell(environment, heard(beat, principal, environment))
        told = wire.InstanceBeatAnswer(revision=replica.revision, interval_seconds=HEARTBEAT_SECONDS)
        return answer(request, told)

    @get("/instances", summary="List instances")
    async def list_instances(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        instances: NamedDependency[Instances],
        replicas: NamedDependency[Replicas],
        principal: NamedDependency[Principal],
        limit: FromQuery[int] = 100,
        after: FromQuery[str] = "",
    ) -> Response[bytes]:
        """Who runs, at which revision, and who is behind."""
        require_any(principal, READ, environment)
        replica = await replicas.get(environment)
        size = max(1, min(limit, LIMIT_MAX))
        rows = await instances.listing(environment, after.replace("\0", ""), size)
        following = rows[-1].instance if len(rows) == size else None
        return answer(request, {"instances": rows, "revision": str(replica.revision), "next": following})


def _beat(document: Any) -> wire.InstanceBeat:
    try:
        beat = msgspec.convert(document, type=wire.InstanceBeat)
    except msgspec.ValidationError as error:
        fault = fault_of(error)
        raise refused([wire.Fault(pointer=fault.pointer, detail=fault.detail)]) from None
    if faults := faults_of(beat):
        raise refused(faults)
    return beat

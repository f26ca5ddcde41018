"""The router of this wing, beside its two bare applications; environments and instances."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from litestar import Controller, Response, Router, get, post
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, FromQuery, QueryParameter
from rescind import wire

from flagd.counts import Counts
from flagd.errors import refused
from flagd.http.bodies import AnyRequest, answer, read
from flagd.http.counts import CountsController
from flagd.http.environments import EnvironmentController
from flagd.http.explain import ExplainController
from flagd.http.flags import LIMIT_MAX, READ, ChangeController, FlagController, KillOperation, KillOperations
from flagd.http.gate import BODY_MAX, require_any
from flagd.http.imports import ImportController
from flagd.http.rollouts import RolloutController
from flagd.http.schedules import ScheduleController
from flagd.http.segments import SegmentController
from flagd.imports import Imports
from flagd.instances import BEAT, Filter, Instances, faults_of, heard
from flagd.replica import Replicas
from flagd.rollouts import Rollouts
from flagd.schedules import Schedules
from flagd.service import FlagService
from runtime.clock import Clock
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
    counts: Counts,
    clock: Clock,
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
            CountsController,
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
            "counts": Provide(lambda: counts, sync_to_thread=False),
            "clock": Provide(lambda: clock, sync_to_thread=False),
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
        told = await instances.beat(environment, heard(beat, principal, environment), replica.revision)
        if beat.begun is not None and acknowledged.tell is not None:
            await acknowledged.tell(environment, heard(beat, principal, environment))
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
        of_service: Annotated[str | None, QueryParameter(name="service")] = None,
        behind: FromQuery[bool | None] = None,
        flag: FromQuery[str | None] = None,
    ) -> Response[bytes]:
        """Who runs, at which revision, since when and how, by how many revisions and seconds behind, with which flags declared.

        `?service=`, `?behind=true`, `?flag=` (those of its services: whose `declared` does not name it keeps it from being
        turned on, where it requires that), `?limit=&after=` a page.
        """
        require_any(principal, READ, environment)
        replica = await replicas.get(environment)
        size = max(1, min(limit, LIMIT_MAX))
        name, key = (None if text is None else text.replace("\0", "") for text in (of_service, flag))
        which = Filter(service=name, behind=behind, flag=key)
        rows = await instances.listing(environment, after.replace("\0", ""), size, which)
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

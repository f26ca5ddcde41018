"""`/tasks:claim`, `/tasks:report` and `/tasks:heartbeat`: workers carry compensations out (P13, P15)."""

from __future__ import annotations

from litestar import Controller, Response, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from rescind.wire import TaskClaim, TaskHeartbeat, TaskReportRequest

from runtime.right import Right
from runtime.tokens import Principal
from sagas.http.bodies import AnyRequest, answer, read
from sagas.http.environments import Environments
from sagas.tasks import TaskService


class TaskController(Controller):
    """Compensations for a team's own handlers. The scope is `work:<saga>`."""

    path = "/v1/environments/{environment:str}"
    tags = ["tasks"]

    @post("/tasks:claim", status_code=200, summary="Claim compensations to carry out")
    async def claim(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        tasks: NamedDependency[TaskService],
        environments: NamedDependency[Environments],
        principal: NamedDependency[Principal],
        right: NamedDependency[Right],
    ) -> Response[bytes]:
        """Up to `limit` tasks, each with its lease; waits up to `wait_seconds` for the first. Empty when there is none.

        A saga that was not registered meanwhile is 404.
        """
        await environments.require(environment)
        return answer(request, await tasks.claim(environment, await read(request, TaskClaim), principal, right))

    @post("/tasks:report", status_code=200, summary="Report how tasks ended")
    async def report(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        tasks: NamedDependency[TaskService],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """`recorded` or `lost` per report, in order. A lost one is kept as evidence."""
        return answer(request, await tasks.report(environment, await read(request, TaskReportRequest), principal))

    @post("/tasks:heartbeat", status_code=200, summary="Keep the leases of tasks")
    async def heartbeat(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        tasks: NamedDependency[TaskService],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """The tasks that the worker still holds; it stops work on the others."""
        held = await tasks.heartbeat(environment, await read(request, TaskHeartbeat), principal)
        return answer(request, {"held": held})

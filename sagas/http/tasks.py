"""`/tasks:claim`, `/tasks:report` and `/tasks:heartbeat`: workers act steps and carry compensations out (P8, P13, P15)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from litestar import Controller, Response, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from rescind.wire import TaskClaim, TaskHeartbeat, TaskReportRequest

from runtime.right import Right
from runtime.tokens import Principal
from sagas.http.bodies import AnyRequest, answer, read
from sagas.http.environments import Environments
from sagas.instances.work import Work


class TaskController(Controller):
    """Steps and compensations for a team's own handlers. The scope is `work:<saga>`."""

    path = "/v1/environments/{environment:str}"
    tags = ["tasks"]

    @post("/tasks:claim", status_code=200, summary="Claim tasks to carry out")
    async def claim(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        tasks: NamedDependency[Work],
        environments: NamedDependency[Environments],
        principal: NamedDependency[Principal],
        right: NamedDependency[Right],
    ) -> Response[bytes]:
        """Up to `limit` tasks, each with its lease; waits up to `wait_seconds` for the first. Empty when there is none.

        A saga that was not registered meanwhile is 404.
        """
        await environments.require(environment)
        claim, gone = await read(request, TaskClaim), asyncio.Event()
        watching = asyncio.ensure_future(watch(request.receive, gone))
        try:
            return answer(request, await tasks.claim(environment, claim, principal, right, gone))
        finally:
            watching.cancel()

    @post("/tasks:report", status_code=200, summary="Report how tasks ended")
    async def report(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        tasks: NamedDependency[Work],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """`recorded` or `lost` per report, in order. A lost one is kept as evidence."""
        return answer(request, await tasks.report(environment, await read(request, TaskReportRequest), principal))

    @post("/tasks:heartbeat", status_code=200, summary="Keep the leases of tasks")
    async def heartbeat(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        tasks: NamedDependency[Work],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """The tasks that the worker still holds; it stops work on the others."""
        held = await tasks.heartbeat(environment, await read(request, TaskHeartbeat), principal)
        return answer(request, {"held": held})


async def watch(receive: Callable[[], Awaitable[Mapping[str, Any]]], gone: asyncio.Event) -> None:
    """Set `gone` once the worker has: what is handed out then would lie in nobody's hands until its lease is over."""
    while (await receive())["type"] != "http.disconnect":
        pass
    gone.set()

"""A worker carries out the compensations of its saga's handlers: claims, runs, keeps its leases, reports the proof (P13).

Each runs at least once under its `action_key`. A handler that raises leaves the attempt in doubt; `NotDone` says that it
provably did nothing. When the worker is stopped it claims nothing more and lets what runs come to its end.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import Any

from rescind.clock import full_jitter_seconds
from rescind.core import Core
from rescind.effects import Effect, readable, text_of
from rescind.errors import ApiError, ConfigurationError, NotDone, Unreachable
from rescind.saga import Saga, Step
from rescind.wire import (
    Task,
    TaskClaim,
    TaskClaimAnswer,
    TaskHeartbeat,
    TaskReport,
    TaskReportAnswer,
    TaskReportRequest,
)

logger = logging.getLogger("rescind.worker")

WAIT_SECONDS = 10.0
LEASE_SECONDS = 30.0
STOP_SECONDS = 20.0
CLAIM_MAX = 256
REPORT_ATTEMPTS_MAX = 8
UNREGISTERED = "unknown_saga"
"""The code of a claim for a saga that is not registered yet: the worker goes on asking, and says so."""


class Worker:
    """The loop of `client.work(saga)`."""

    def __init__(self, core: Core, saga: Saga, concurrency: int, worker: str | None = None) -> None:
        self._core = core
        self._saga = saga
        self._handlers = saga.handlers()
        if not self._handlers:
            raise ConfigurationError(f"saga {saga.name} has no step with a handler: a worker has nothing to do")
        self._name = worker or core.settings.instance
        self._concurrency = concurrency
        self._running: dict[str, asyncio.Task[None]] = {}
        self.done_count = 0

    async def run(self) -> None:
        """Work until cancelled; then end what has begun, within twenty seconds."""
        beats = asyncio.ensure_future(self._keep_leases())
        failures = 0
        try:
            while True:
                if len(self._running) >= self._concurrency:
                    await asyncio.wait(self._running.values(), return_when=asyncio.FIRST_COMPLETED)
                    continue
                try:
                    tasks = await self._claim()
                except (Unreachable, ApiError) as error:
                    if isinstance(error, ApiError) and not error.passing and error.code != UNREGISTERED:
                        raise
                    failures += 1
                    logger.warning("cannot claim: %s", error)
                    await asyncio.sleep(full_jitter_seconds(self._core.clock, failures))
                    continue
                failures = 0
                for task in tasks:
                    self._begin(task)
        finally:
            await self._stop(beats)

    async def _claim(self) -> list[Task]:
        await self._core.named()
        claim = TaskClaim(
            worker=self._name,
            saga=self._saga.name,
            versions=[self._saga.version],
            steps=sorted(self._handlers),
            limit=min(self._concurrency - len(self._running), CLAIM_MAX),
            wait_seconds=WAIT_SECONDS,
            lease_seconds=LEASE_SECONDS,
        )
        api = self._core.api
        path = api.within("/tasks:claim")
        return (await api.call("POST", path, claim, TaskClaimAnswer, timeout_seconds=WAIT_SECONDS + 10)).tasks

    def _begin(self, task: Task) -> None:
        name = f"{task.id}:{task.token}"
        running = asyncio.ensure_future(self._carry_out(task))
        self._running[name] = running
        running.add_done_callback(lambda _: self._running.pop(name, None))

    async def _carry_out(self, task: Task) -> None:
        step = self._handlers.get(task.step)
        if step is None:
            error = {"type": "UnknownStep", "detail": task.step}
            report = TaskReport(id=task.id, token=task.token, outcome="failed", error=error)
        else:
            report = await self._attempt(step, task)
        await self._report(report)

    async def _attempt(self, step: Step[..., Any], task: Task) -> TaskReport:
        try:
            proof = await call(step, task)
        except NotDone as error:
            return TaskReport(id=task.id, token=task.token, outcome="failed", error=described(error))
        except Exception as error:  # a handler's failure is an outcome, and the worker goes on
            logger.exception("undoing step %s failed in attempt %d", task.step, task.attempt)
            return TaskReport(id=task.id, token=task.token, outcome="unknown", error=described(error))
        self.done_count += 1
        return TaskReport(id=task.id, token=task.token, outcome="succeeded", proof=readable(proof))

    async def _report(self, report: TaskReport) -> None:
        api = self._core.api
        body = TaskReportRequest(worker=self._name, reports=[report])
        for attempt in range(1, REPORT_ATTEMPTS_MAX + 1):
            try:
                answer = await api.call("POST", api.within("/tasks:report"), body, TaskReportAnswer)
            except (Unreachable, ApiError) as error:
                logger.warning("the outcome of task %s did not arrive: %s", report.id, error)
                await asyncio.sleep(full_jitter_seconds(self._core.clock, attempt))
                continue
            if answer.results[:1] == ["lost"]:
                logger.warning("task %s had gone to another worker: the proof is kept as evidence", report.id)
            return

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 3)
            if self._running:
                beat = TaskHeartbeat(worker=self._name, tasks=list(self._running), lease_seconds=LEASE_SECONDS)
                api = self._core.api
                try:
                    await api.send("POST", api.within("/tasks:heartbeat"), beat)
                except (Unreachable, ApiError) as error:
                    logger.warning("the leases of %d tasks were not extended: %s", len(self._running), error)

    async def _stop(self, beats: asyncio.Task[None]) -> None:
        if self._running:
            _, late = await asyncio.wait(list(self._running.values()), timeout=STOP_SECONDS)
            for task in late:
                task.cancel()
        beats.cancel()
        await asyncio.gather(beats, *self._running.values(), return_exceptions=True)


async def call(step: Step[..., Any], task: Task) -> Any:
    """Call the step's handler with the task's effect, or with the list of them where it merges; its return value."""
    assert step.handler is not None
    effects = [effect_of(values, task.action_key, task.attempt) for values in task.effects]
    argument = effects if step.merges else effects[0]
    if inspect.iscoroutinefunction(step.handler):
        return await step.handler(argument)
    answer = await asyncio.to_thread(step.handler, argument)
    return await answer if inspect.isawaitable(answer) else answer


def effect_of(values: dict[str, Any], action_key: str, attempt: int) -> Effect:
    """An effect as a handler sees it."""
    return Effect(
        id=str(values.get("id") or values.get("effect_id") or ""),
        kind=values.get("kind", ""),
        key=values.get("key", ""),
        flag=values.get("flag", ""),
        payload=values.get("payload") or {},
        variant=values.get("variant"),
        epoch=values.get("epoch") or 0,
        attempt=attempt,
        subject=values.get("subject"),
        result=values.get("result"),
        action_key=action_key,
    )


def described(error: BaseException) -> dict[str, Any]:
    """What is told of an error."""
    return {"type": type(error).__name__, "detail": text_of(error)}

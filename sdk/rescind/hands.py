"""What a worker has in hand: tasks that run, outcomes on their way, and the claim that goes with them (P13).

Outcomes of tasks that end at the same time leave together, with no timer, and the answer brings as many new tasks as ended: in
the good case the next step of the same instance. Whoever stops claims no more, and what runs comes to its end.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from rescind.attempts import Attempts
from rescind.batcher import Batcher
from rescind.clock import full_jitter_seconds
from rescind.core import Core
from rescind.errors import ApiError, ClientClosed, Unreachable
from rescind.handlers import Handlers
from rescind.leases import Leases, name_of
from rescind.wire import (
    InstanceStart,
    InstanceStartAnswer,
    InstanceStarted,
    InstanceStartRequest,
    Task,
    TaskClaim,
    TaskClaimAnswer,
    TaskReport,
    TaskReportAnswer,
    TaskReportRequest,
)

logger = logging.getLogger("rescind.worker")

LEASE_SECONDS = 30.0
STOP_SECONDS = 20.0
LATE_SECONDS = 5.0
"""What was cancelled then is told within these."""
CLAIM_MAX = 256
REPORT_SECONDS = 10.0
REPORT_ATTEMPTS_MAX = 8
START_SECONDS = 10.0


class Hands:
    """Of one worker, for one saga; `instance` is the caller's id of the only one it serves, of `client.run`."""

    def __init__(
        self,
        core: Core,
        handlers: Handlers,
        concurrency: int,
        *,
        lease_seconds: float = LEASE_SECONDS,
        worker: str | None = None,
        instance: str | None = None,
    ) -> None:
        self._core = core
        self._lease_seconds = lease_seconds
        self._handlers = handlers
        self._concurrency = concurrency
        self._instance = instance
        self.worker = worker or core.settings.instance
        self._attempts = Attempts(core, handlers, concurrency)
        self._leases = Leases(core.api, core.clock, self.worker)
        self._keeping = asyncio.ensure_future(self._leases.run())
        self._outcomes: Batcher[TaskReport, str] = Batcher(self._send, size_of)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._bodies: set[asyncio.Task[TaskReport]] = set()
        self._changed = asyncio.Event()
        self._stopping = False
        self.done_count = 0

    @property
    def free(self) -> int:
        """How many more tasks it can take."""
        return max(0, self._concurrency - len(self._running))

    async def claim(self, wait_seconds: float) -> None:
        """Take up to as many tasks as there is room for, waiting for the first. Raises `Unreachable` and `ApiError`."""
        await self._core.named()
        claim = self._claim_of(self.free, wait_seconds)
        api, asked_at = self._core.api, self._core.clock.monotonic()
        path = api.within("/tasks:claim")
        answer = await api.call("POST", path, claim, TaskClaimAnswer, timeout_seconds=wait_seconds + REPORT_SECONDS)
        self._begin(answer.tasks, asked_at)

    async def start(self, start: InstanceStart) -> InstanceStarted:
        """Start an instance and take its first tasks. Raises `Unreachable` and `ApiError`."""
        body = InstanceStartRequest(instances=[start], claim=self._claim_of(self._concurrency, 0.0))
        api, asked_at = self._core.api, self._core.clock.monotonic()
        path = api.within(f"/sagas/{self._handlers.saga}/instances:start")
        answer = await api.repeatable(path, body, InstanceStartAnswer, timeout_seconds=START_SECONDS)
        self._begin(answer.tasks, asked_at)
        return answer.results[0]

    async def room(self) -> None:
        """Return once it can take a task."""
        while not self.free:
            await self._change()

    async def idle(self) -> None:
        """Return once nothing is in hand."""
        while self._running:
            await self._change()

    async def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Claim no more, and let what runs come to its end; what has not after `seconds` is cancelled, and in doubt."""
        self._stopping = True
        if self._running:
            await asyncio.wait(list(self._running.values()), timeout=seconds)
        for body in list(self._bodies):
            body.cancel()
        if self._running:
            _, late = await asyncio.wait(list(self._running.values()), timeout=LATE_SECONDS)
            for task in late:
                task.cancel()
        self._outcomes.abandon()
        self._keeping.cancel()
        await asyncio.gather(self._keeping, *self._running.values(), return_exceptions=True)
        self._attempts.close()

    def _room_beside(self, ending: int) -> int:
        """How many tasks may come with the answer to `ending` reports.

        What undoes comes by claims alone, so where it can be undone here one place is filled by them alone.
        """
        kept = 1 if self._handlers.undos and self._instance is None else 0
        return max(0, min(ending, self._concurrency - kept - (len(self._running) - ending)))

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _claim_of(self, limit: int, wait_seconds: float) -> TaskClaim:
        return TaskClaim(
            worker=self.worker,
            saga=self._handlers.saga,
            versions=sorted(self._handlers.sagas),
            steps=self._handlers.undo_names,
            acts=self._handlers.act_names,
            look_ups=self._handlers.look_names,
            instance=self._instance,
            continues=True,
            limit=max(1, min(limit, CLAIM_MAX)),
            wait_seconds=wait_seconds,
            lease_seconds=self._lease_seconds,
        )

    def _begin(self, tasks: list[Task], asked_at: float) -> None:
        for task in tasks:
            name = name_of(task)
            if name in self._running:  # an answer that came twice
                continue
            self._leases.hold(task)
            running = asyncio.create_task(self._carry_out(task, asked_at), name=name)
            self._running[name] = running
            running.add_done_callback(self._let_go)

    def _let_go(self, running: asyncio.Task[None]) -> None:
        del self._running[running.get_name()]
        self._changed.set()

    async def _carry_out(self, task: Task, asked_at: float) -> None:
        body = asyncio.ensure_future(self._attempts.carry_out(task, asked_at))
        self._bodies.add(body)
        try:
            report = await body
            self.done_count += report.outcome == "succeeded"
            await self._report(report)
        finally:
            self._bodies.discard(body)
            self._leases.release(task)
            self._attempts.ended(task)

    async def _report(self, report: TaskReport) -> None:
        for attempt in range(1, REPORT_ATTEMPTS_MAX + 1):
            try:
                said = await self._outcomes.submit(report).future
            except (Unreachable, ApiError) as error:
                logger.warning("the outcome of task %s did not arrive: %s", report.id, error)
                await asyncio.sleep(full_jitter_seconds(self._core.clock, attempt))
                continue
            except ClientClosed:
                logger.warning("the outcome of task %s was not told: the worker stopped", report.id)
                return
            if said == "lost":
                logger.warning("task %s had gone to another worker: the proof is kept as evidence", report.id)
            return

    async def _send(self, reports: list[TaskReport]) -> list[str]:
        """Tell outcomes; the answer fills the places that they leave."""
        room = self._room_beside(len(reports))
        claim = self._claim_of(room, 0.0) if room and not self._stopping else None
        body = TaskReportRequest(worker=self.worker, reports=reports, claim=claim)
        api, asked_at = self._core.api, self._core.clock.monotonic()
        path = api.within("/tasks:report")
        answer = await api.repeatable(path, body, TaskReportAnswer, timeout_seconds=REPORT_SECONDS)
        self._begin(answer.tasks, asked_at)
        return list(answer.results)


def size_of(report: TaskReport) -> int:
    """Its bytes in a request."""
    return len(msgspec.json.encode(report))

"""One task from its hand-out to its outcome: a step acts, an effect is undone, or looked up (P8, P10, P13, P16).

Just before a step's function its permission is looked at, under the same rules as an effect's body: its window, and the kills
that are known here. What may not begin is given back. The function runs in a request of its own: evaluations are pinned to what
is current when it begins, and the instance's trace goes on in it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Literal

import msgspec

from rescind.bodies import Begin, Permission
from rescind.core import Core
from rescind.effects import Effect, entered, readable, text_of
from rescind.errors import NotDone
from rescind.handlers import Act, Handlers
from rescind.permits import START_WINDOW_MS
from rescind.pulse import Pulse, felt
from rescind.saga import Saga, Step
from rescind.sightings import result_of
from rescind.spans import continued, traceparent
from rescind.wire import Task, TaskReport

logger = logging.getLogger("rescind.worker")

ACT = "act"
LOOK_UP = "look_up"


class NotBegunError(Exception):
    """The permission to begin is over, or its flag was killed."""


class Attempts:
    """Carries tasks out with the handlers of one saga, at most `concurrency` of them in threads."""

    def __init__(self, core: Core, handlers: Handlers, concurrency: int) -> None:
        self._core = core
        self._handlers = handlers
        self._threads = ThreadPoolExecutor(concurrency, "rescind-step")
        self._permissions: dict[str, Permission] = {}

    async def carry_out(self, task: Task, asked_at: float) -> TaskReport:
        """The outcome of a task that was asked for at `asked_at`, on the monotonic clock. Raises nothing."""
        found = self._found(task)
        if found is None:
            error = {"type": "UnknownStep", "detail": f"{task.step} of version {task.version}"}
            outcome: Literal["failed", "unknown"] = "unknown" if task.verb == LOOK_UP else "failed"
            return TaskReport(id=task.id, token=task.token, verb=task.verb, outcome=outcome, error=error)
        self._core.context.pin.set(self._core.causality.pin())
        self._core.context.memory.set(None)
        is_act = task.verb == ACT
        undoes = () if is_act else [one["traceparent"] for one in task.effects if one.get("traceparent")]
        with continued(task.traceparent, f"{task.verb} {task.saga}.{task.step}", undoes):
            report = await self._reported(task, found, asked_at)
            return msgspec.structs.replace(report, traceparent=traceparent()) if is_act else report

    def ended(self, task: Task) -> None:
        """Its outcome is where it belongs."""
        if permission := self._permissions.pop(task.token, None):
            self._core.bodies.end(permission)

    def close(self) -> None:
        """Take no more; what runs in threads is left to itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _reported(self, task: Task, found: Act | Step[..., Any], asked_at: float) -> TaskReport:
        pulse = Pulse(task.timeout_seconds, task.heartbeat_timeout_seconds)
        limit = pulse.limit
        try:
            async with limit:
                with felt(pulse):
                    if isinstance(found, Act):
                        result = await self._act(found, task, asked_at)
                    else:
                        result = await (self._look_up(found, task) if task.verb == LOOK_UP else self._undo(found, task))
        except NotBegunError as error:
            return self._report(task, "not_started", error)
        except NotDone as error:
            return self._report(task, "failed", error, final=error.final)
        except asyncio.CancelledError as error:  # the worker stops: the step is in doubt at once, not when its lease is over
            return self._report(task, "unknown", error)
        except Exception as error:  # a function's failure is an outcome, and the worker goes on
            if task.verb == ACT and not limit.expired() and self._is_proof(task, error):
                return self._report(task, "failed", error)
            logger.exception("%s of step %s failed in attempt %d", task.verb, task.step, task.attempt)
            return self._report(task, "unknown", error)
        return TaskReport(id=task.id, token=task.token, verb=task.verb, outcome="succeeded", proof=readable(result))

    async def _act(self, act: Act, task: Task, asked_at: float) -> Any:
        permission = self._permissions[task.token] = self._permission(task, asked_at)
        effect = effect_of(task.effects[0], task.action_key, task.attempt)
        result = await self._call(act.function, lambda: self._begin(permission), effect, act.arguments(effect))
        return effect.result if result is None else result

    async def _undo(self, step: Step[..., Any], task: Task) -> Any:
        assert step.handler is not None
        effects = [effect_of(values, task.action_key, task.attempt) for values in task.effects]
        argument = effects if step.merges else effects[0]
        return await self._call(step.handler, lambda: None, effects[0], {}, argument)

    async def _look_up(self, step: Step[..., Any], task: Task) -> Any:
        assert step.looker is not None
        effect = effect_of(task.effects[0], task.action_key, task.attempt)
        return result_of(await self._call(step.looker, lambda: None, effect, {}, effect))

    async def _call(
        self, function: Callable[..., Any], begin: Callable[[], None], effect: Effect, named: dict[str, Any], *given: Any
    ) -> Any:
        """Call it, on the loop or in a thread; `begin` right before it, where it runs."""
        with entered(effect):
            if inspect.iscoroutinefunction(function):
                begin()
                return await function(*given, **named)

            def body() -> Any:
                begin()
                return function(*given, **named)

            answer = await asyncio.get_running_loop().run_in_executor(self._threads, copy_context().run, body)
            return await answer if inspect.isawaitable(answer) else answer

    def _begin(self, permission: Permission) -> None:
        verdict, _ = self._core.bodies.begin(permission)
        if verdict is not Begin.YES:
            raise NotBegunError(verdict.value)
        permission.extend_at = float("inf")  # the worker's heartbeats extend it

    def _permission(self, task: Task, asked_at: float) -> Permission:
        effect = task.effects[0]
        window_ms = START_WINDOW_MS if task.start_within_ms is None else task.start_within_ms
        snapshot, flag, variant = self._core.current.snapshot, effect.get("flag", ""), effect.get("variant")
        known = snapshot.flags.get(flag) if snapshot else None
        return Permission(
            effect_id=task.id,
            token=task.token,
            flag=flag,
            epoch=effect.get("epoch") or 0,
            is_off=known is not None and variant == known.off_variant,
            attributes=effect.get("attributes") or {},
            expires=asked_at + (window_ms + (task.held_ms or 0)) / 1000,
            lease_seconds=task.lease_seconds,
            continues=task.continued,
        )

    def _found(self, task: Task) -> Act | Step[..., Any] | None:
        """What carries the task out here; nothing does where its step is not served."""
        at = (task.version, task.step)
        if not task.effects:
            return None
        match task.verb:
            case "act":
                return self._handlers.acts.get(at)
            case "look_up":
                return self._handlers.looks.get(at)
            case _:
                return self._handlers.undos.get(at)

    def _is_proof(self, task: Task, error: BaseException) -> bool:
        saga: Saga = self._handlers.sagas[task.version]
        return not {kind.__name__ for kind in type(error).__mro__}.isdisjoint(saga.proofs(task.step))

    def _report(self, task: Task, outcome: Any, error: BaseException, *, final: bool = False) -> TaskReport:
        return TaskReport(id=task.id, token=task.token, verb=task.verb, outcome=outcome, error=described(error), final=final)


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

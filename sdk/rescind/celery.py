"""Celery: tasks carry the revision of who sent them, and each is done at one revision (P3).

    stop = instrument(rescind.Client(service="worker"))

By Celery's signals, which are the process's own, for all its apps; so it needs one call in the producer and one in the
worker, before it forks or after. A task that is sent by another, or tried again, carries what that one has seen. An eager
task belongs to the request that it is called in. Use it with `rescind.Client`: Celery's tasks have no loop.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from celery import signals

from rescind.causality import BUDGET_SECONDS
from rescind.client import Client
from rescind.messages import inject, receiving, strip


def instrument(client: Client, *, trust: bool = True, budget_seconds: float = BUDGET_SECONDS) -> Callable[[], None]:
    """Begin; the function that this returns ends it. `trust=False` for a broker that others write to."""
    hooks = Hooks(client, trust=trust, budget_seconds=budget_seconds)
    receivers: dict[Any, Callable[..., None]] = {
        signals.before_task_publish: hooks.publishing,
        signals.task_prerun: hooks.beginning,
        signals.task_postrun: hooks.ending,
    }
    for signal, receiver in receivers.items():
        signal.connect(receiver, weak=False)

    def stop() -> None:
        for signal, receiver in receivers.items():
            signal.disconnect(receiver)

    return stop


class Hooks:
    """What the signals call."""

    def __init__(self, client: Client, *, trust: bool, budget_seconds: float) -> None:
        self._client = client
        self._trust = trust
        self._budget_seconds = budget_seconds
        self._receiving: ContextVar[receiving | None] = ContextVar("rescind.celery", default=None)

    def publishing(self, headers: dict[str, Any], **_: Any) -> None:
        """Before a task is sent."""
        inject(self._client, headers)

    def beginning(self, task: Any, **_: Any) -> None:
        """Before it runs."""
        if task.request.is_eager:
            return
        headers = task.request.headers or {}
        if not self._trust:
            strip(headers)
            strip(vars(task.request))
        one = receiving(self._client, headers, trust=self._trust, budget_seconds=self._budget_seconds)
        one.__enter__()
        self._receiving.set(one)

    def ending(self, task: Any, **_: Any) -> None:
        """After it ran, well or not."""
        one = self._receiving.get()
        if one is not None and not task.request.is_eager:
            self._receiving.set(None)
            one.__exit__(None, None, None)

"""Callbacks for flags that change. They run on the core's loop, one after the other; one that fails hurts no other."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from rescind.current import Current
from rescind.wire import Revision

logger = logging.getLogger("rescind")

EVERY_FLAG = "*"


class FlagChange(Struct, frozen=True, kw_only=True):
    """What a callback is told."""

    key: str
    revision: Revision
    killed: bool


Callback = Callable[[FlagChange], Any]
Watcher = Callable[[Sequence[str]], None]


class Notifier:
    """Who wants to know of which flag."""

    def __init__(self) -> None:
        self._callbacks: dict[str, list[Callback]] = {}
        self._watchers: list[Watcher] = []
        self._tasks: set[asyncio.Future[Any]] = set()

    def subscribe(self, key: str, callback: Callback) -> Callable[[], None]:
        """Call `callback` after each change of `key` ("*": of any flag); returns what ends the subscription."""
        self._callbacks = {**self._callbacks, key: [*self._callbacks.get(key, []), callback]}

        def unsubscribe() -> None:
            left = [other for other in self._callbacks.get(key, []) if other is not callback]
            self._callbacks = {**self._callbacks, key: left}

        return unsubscribe

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Call `watcher(keys)` after every revision with the changed keys, and with none whenever the connection turned.

        On the core's loop; returns what ends it.
        """
        self._watchers = [*self._watchers, watcher]

        def unwatch() -> None:
            self._watchers = [other for other in self._watchers if other is not watcher]

        return unwatch

    def turned(self) -> None:
        """The connection was found or lost, or an attempt failed: tell whoever watches."""
        self._tell_watchers(())

    def changed(self, keys: Sequence[str], current: Current) -> None:
        """Tell everyone who asked."""
        self._tell_watchers(keys)
        callbacks = self._callbacks
        if not callbacks:
            return
        for key in keys:
            change = FlagChange(key=key, revision=current.revision, killed=key in current.killed)
            for callback in [*callbacks.get(key, []), *callbacks.get(EVERY_FLAG, [])]:
                self._call(callback, change)

    def _tell_watchers(self, keys: Sequence[str]) -> None:
        for watcher in self._watchers:
            try:
                watcher(keys)
            except Exception:  # as with callbacks
                logger.exception("a watcher failed")

    def _call(self, callback: Callback, change: FlagChange) -> None:
        try:
            answer = callback(change)
            if inspect.isawaitable(answer):
                task = asyncio.ensure_future(answer)
                self._tasks.add(task)
                task.add_done_callback(self._ended)
        except Exception:  # a user's callback must not stop the stream
            logger.exception("the callback for %s failed", change.key)

    def _ended(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.error("a callback failed", exc_info=error)

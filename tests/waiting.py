"""Waiting without sleeping blindly: poll a condition until a deadline."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

Value = TypeVar("Value")
STEP_SECONDS = 0.01
CEILING_SECONDS = 60.0
"""For what takes a moment: it only ends a run that would never end, and is no promise of speed."""


async def until(predicate: Callable[[], Value | Awaitable[Value]], timeout_seconds: float = CEILING_SECONDS) -> Value:
    """Return the predicate's first true value. Raises `AssertionError` after `timeout_seconds`, with its last one.

    The predicate may be a plain function, a coroutine function, or a lambda that returns a coroutine.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        value = predicate()
        last: Value = await value if inspect.isawaitable(value) else value
        if last:
            return last
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {timeout_seconds} s; last seen: {last!r}")
        await asyncio.sleep(STEP_SECONDS)


def until_sync(predicate: Callable[[], Value], timeout_seconds: float = CEILING_SECONDS) -> Value:
    """`until` for tests without a loop."""
    deadline = time.monotonic() + timeout_seconds
    while not (value := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {timeout_seconds} s; last seen: {value!r}")
        time.sleep(STEP_SECONDS)
    return value

"""Waiting for work on a client's loop from elsewhere: where the client is closed meanwhile, it ends with `ClientClosed`."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from rescind.errors import ClientClosed

T = TypeVar("T")

ENDING_SECONDS = 0.5
"""So long work that is cancelled may take to end. What takes longer ends with the process."""


def result_of(future: concurrent.futures.Future[T], timeout_seconds: float | None) -> T:
    """What the work gives. Raises what it raises, `TimeoutError`, and `ClientClosed` where the client ended first."""
    try:
        return future.result(timeout_seconds)
    except concurrent.futures.CancelledError:
        raise ClientClosed("the client was closed") from None
    except (KeyboardInterrupt, concurrent.futures.TimeoutError):
        future.cancel()
        raise


async def result_here(future: concurrent.futures.Future[T]) -> T:
    """The same, on another loop; whoever is cancelled there cancels the work."""
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if future.cancelled() and (task is None or not task.cancelling()):
            raise ClientClosed("the client was closed") from None
        raise


async def end_on(home: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None], timeout_seconds: float) -> None:
    """`work`, which ends what is on another thread's loop; where that does not run any more there is nothing left to end."""
    if not home.is_running():
        work.close()
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_seconds):
            await result_here(asyncio.run_coroutine_threadsafe(work, home))


def end_all(loop: asyncio.AbstractEventLoop, let_go: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """The loop has stopped for good: cancel what is left on it, so that whoever waits for it hears so, `let_go` of what that
    held, and close it."""
    try:
        loop.run_until_complete(_cancel_all())
        loop.run_until_complete(let_go())
    finally:
        loop.close()


async def _cancel_all() -> None:
    if left := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=ENDING_SECONDS)
    await asyncio.sleep(0)  # what these have closed is gone one turn of the loop later

"""Work that blocks, off the event loop, in threads that nobody joins.

`asyncio.to_thread` hands work to an executor whose threads are joined when the loop and the interpreter end: one disk or
name server that hangs would keep the service from stopping. These threads are daemons, and end with the process.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """`work(*arguments)`, run in a thread of its own. Raises what it raises, and `OSError` where no thread can start.

    Whoever is cancelled here leaves the thread to itself. How many there are at once is bounded by whoever calls: each kind of
    work is under way once at most.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            result = work(*arguments)
        except BaseException as error:
            answer(loop, fail, future, error)
        else:
            answer(loop, succeed, future, result)

    try:
        threading.Thread(target=run, name="rescind-work", daemon=True).start()
    except RuntimeError as error:
        raise OSError(str(error)) from error
    return await future


def answer(loop: asyncio.AbstractEventLoop, how: Callable[..., None], future: asyncio.Future[Any], what: object) -> None:
    """Bring the end of the work to the loop, which may have gone meanwhile."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(how, future, what)


def succeed(future: asyncio.Future[T], result: T) -> None:
    """Unless nobody waits any more."""
    if not future.done():
        future.set_result(result)


def fail(future: asyncio.Future[Any], error: BaseException) -> None:
    """Unless nobody waits any more."""
    if not future.done():
        future.set_exception(error)

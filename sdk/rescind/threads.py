"""Work that blocks, off the event loop, in threads that nobody joins.

`asyncio.to_thread` hands work to an executor whose threads are joined when the loop and the interpreter end: one disk or
name server that hangs would keep the service from stopping. These threads are daemons, and end with the process.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from rescind import forks

T = TypeVar("T")
Job = Callable[[], None]

IDLE_MAX = 2
"""So many threads wait for more work; to begin one costs more than most of what they do."""
IDLE_SECONDS = 5.0


class Threads:
    """One is begun whenever none is free. How many that may become is bounded by whoever hands over work: each kind of work is
    under way once at most."""

    def __init__(self) -> None:
        self._idle: list[queue.SimpleQueue[Job]] = []
        forks.follow_first(self)

    def run(self, job: Job) -> None:
        """Have `job`, which raises nothing, done in a thread. Raises `OSError` where none can begin."""
        try:
            self._idle.pop().put(job)
        except IndexError:
            try:
                threading.Thread(target=self._work, args=(job,), name="rescind-work", daemon=True).start()
            except RuntimeError as error:
                raise OSError(str(error)) from error

    def forked(self) -> None:
        """None of the threads is in a child."""
        self._idle = []

    def _work(self, job: Job) -> None:
        jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        job()
        while len(self._idle) < IDLE_MAX:
            self._idle.append(jobs)
            try:
                jobs.get(timeout=IDLE_SECONDS)()
            except queue.Empty:
                try:
                    self._idle.remove(jobs)
                except ValueError:  # work was put into it just now
                    jobs.get()()
                else:
                    return


_threads = Threads()


async def in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """`work(*arguments)`, run in a thread. Raises what it raises, and `OSError` where no thread can begin.

    Whoever is cancelled here leaves the thread to itself.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def job() -> None:
        try:
            result = work(*arguments)
        except BaseException as error:
            answer(loop, fail, future, error)
        else:
            answer(loop, succeed, future, result)

    _threads.run(job)
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

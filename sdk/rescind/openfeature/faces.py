"""Waiting for a client from wherever OpenFeature calls a provider: a thread of its own, or the event loop itself."""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import Any, Final

from rescind.client import AsyncClient, Client
from rescind.errors import ConfigurationError

SLACK_SECONDS: Final = 1.0
CLOSE_SECONDS: Final = 2.0


def wait_ready(client: Client | AsyncClient, loop: asyncio.AbstractEventLoop | None, timeout_seconds: float) -> bool:
    """Whether the client has a snapshot, waiting at most this long for it; starts the client.

    `loop` is where an `AsyncClient` is used. Raises `ConfigurationError` where waiting would stop that loop.
    """
    if isinstance(client, Client):
        return client.wait_ready(timeout_seconds)
    home = client.home or loop
    here = _running()
    if here is not None and (home is None or home is here):
        client.ensure_started()
        if client.core.current.snapshot is None:
            raise ConfigurationError(
                "this is the AsyncClient's own event loop: `await client.wait_ready()` before, or set_provider"
            )
        return True
    if home is None or not home.is_running():
        raise ConfigurationError("an AsyncClient is started on its event loop first: `await client.wait_ready()`")
    waiting = asyncio.run_coroutine_threadsafe(client.wait_ready(timeout_seconds), home)
    return bool(_result(waiting, timeout_seconds + SLACK_SECONDS))


def close(client: Client | AsyncClient, loop: asyncio.AbstractEventLoop | None) -> None:
    """Close the client in a bounded time. On an `AsyncClient`'s own loop it goes on after this has returned."""
    if isinstance(client, Client):
        client.close(CLOSE_SECONDS)
        return
    home = client.home or loop
    if home is None or not home.is_running():
        client.core.closed = True
    elif _running() is home:
        _closing.add(task := home.create_task(client.close(CLOSE_SECONDS)))
        task.add_done_callback(_closing.discard)
    else:
        _result(asyncio.run_coroutine_threadsafe(client.close(CLOSE_SECONDS), home), CLOSE_SECONDS + SLACK_SECONDS)


_closing: set[asyncio.Task[None]] = set()


def _result(future: concurrent.futures.Future[Any], timeout_seconds: float) -> Any:
    try:
        return future.result(timeout_seconds)
    except concurrent.futures.TimeoutError:
        future.cancel()
        return None


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None

"""A client that is closed while others wait for it, and from places in which nobody can wait."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import rescind
from rescind.notify import FlagChange

from tests.sdk.conftest import FLAG, Site, capture
from tests.waiting import CEILING_SECONDS, until_sync

order = rescind.Saga("order", version="1", flag=FLAG)


@order.step(kind="payment.capture", key="capture:{order_id}")
async def charge(order_id: str) -> dict[str, Any]:
    """A step."""
    return {"order": order_id}


@charge.compensation
async def refund(effect: rescind.Effect) -> None:
    """How it is undone."""


def enter(client: rescind.Client) -> Any:
    """An effect that waits for its permission."""
    with capture(client, "k") as effect:
        return effect.id


async def enter_elsewhere(client: rescind.Client) -> Any:
    """The same, on a loop that is not the client's."""
    async with capture(client, "k") as effect:
        return effect.id


WAYS: dict[str, Callable[[rescind.Client], Any]] = {
    "effect": enter,
    "effect on a loop": lambda client: asyncio.run(enter_elsewhere(client)),
    "register": lambda client: client.register(order),
    "work": lambda client: client.work(order),
}


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def is_waited_for(client: rescind.Client) -> bool:
    """Whether work that somebody handed over is under way on the client's loop."""
    loop = client._loop
    return loop is not None and any(
        task.get_coro().__qualname__.split(".")[0] in ("Permits", "Registration", "Worker", "Core")
        and task.get_name().startswith("Task-")
        for task in asyncio.all_tasks(loop)
    )


@pytest.mark.parametrize("environment", [None, "production"])
@pytest.mark.parametrize("way", WAYS)
def test_whoever_waits_for_a_client_that_is_closed_hears_so(
    silent: str, tmp_path: Path, way: str, environment: str | None
) -> None:
    client = rescind.Client(url=silent, token="t", environment=environment, service="s", state_dir=tmp_path)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(WAYS[way], client)
        until_sync(lambda: is_waited_for(client))
        client.close()
        with pytest.raises(rescind.ClientClosed):
            waiting.result(CEILING_SECONDS)


def test_waiting_to_be_ready_ends_with_the_client(silent: str, tmp_path: Path) -> None:
    client = rescind.Client(url=silent, token="t", service="s", state_dir=tmp_path)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(client.wait_ready, 10 * CEILING_SECONDS)
        until_sync(lambda: is_waited_for(client))
        client.close()
        assert waiting.result(CEILING_SECONDS) is False


def test_a_callback_may_ask_and_may_close(site: Site) -> None:
    client = rescind.Client(**site.options)
    assert client.wait_ready()
    thread, told = client._thread, threading.Event()
    said: list[object] = []

    def called(change: FlagChange) -> None:
        try:
            said.extend([client.wait_ready(1), client.close(), client.close()])
        except BaseException as error:
            said.append(error)
        told.set()

    client.on_change(FLAG, called)
    site.put(description="changed")
    assert told.wait(CEILING_SECONDS)
    assert said == [True, None, None]
    assert thread is not None
    thread.join(CEILING_SECONDS)
    assert not thread.is_alive()
    assert all(task.done() for task in client.core.tasks)
    assert client.status().state == "closed"


def test_an_asynchronous_client_is_closed_after_its_loop(tmp_path: Path) -> None:
    client = rescind.AsyncClient(url="http://127.0.0.1:9", token="t", environment="production", state_dir=tmp_path)
    assert not asyncio.run(client.wait_ready(0.5))
    asyncio.run(client.close())
    assert client.status().state == "closed"


def test_an_asynchronous_client_is_closed_from_another_loop(site: Site) -> None:
    client = rescind.AsyncClient(**site.options)
    with asyncio.Runner() as home, ThreadPoolExecutor(1) as threads:

        async def live() -> str:
            assert await client.wait_ready()
            await asyncio.wrap_future(threads.submit(asyncio.run, client.close()))
            return client.status().state

        assert home.run(live()) == "closed"


async def test_closing_ends_everything_whatever_is_wrong_with_the_last_words(site: Site) -> None:
    client = rescind.AsyncClient(**site.options)
    assert await client.wait_ready()
    client.core.declarations.keys = frozenset(["no UTF-8 \ud800"])
    await client.close()
    assert all(task.done() for task in client.core.tasks)


def test_threads_that_close_at_once_end_everything_once(site: Site) -> None:
    client = rescind.Client(**site.options)
    assert client.wait_ready()
    thread = client._thread
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda _: client.close(), range(4))) == [None] * 4
    assert thread is not None
    thread.join(CEILING_SECONDS)
    assert all(task.done() for task in client.core.tasks)

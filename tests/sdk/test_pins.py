"""How long one revision holds for a request, for what it starts and for what stays open (P3), and what overrides it (P4)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import rescind
from rescind.asgi import RescindMiddleware
from rescind.causality import CHECKS_BURST, NEAR_DENIED_SECONDS, CatchUp, Causality
from rescind.clock import Clock
from rescind.context import PIN_SECONDS_MAX
from rescind.core import Core
from rescind.settings import settings_from
from rescind.wire import HEADER, Revision

from tests.sdk.conftest import FLAG, Site
from tests.sdk.test_causality import OFF_BY_DEFAULT, cut_off
from tests.waiting import until

DEPENDENT = "checkout.express"


class HandClock(Clock):
    """Its monotonic clock may be moved on."""

    def __init__(self) -> None:
        self.later = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.later


class StillClock(Clock):
    """On which the bucket of checks is not filled again."""

    def monotonic(self) -> float:
        return 1_000.0


@pytest.fixture
async def client(site: Site) -> AsyncIterator[rescind.AsyncClient]:
    async with rescind.AsyncClient(**site.options) as one:
        yield one


async def nothing(*_: Any) -> Any:
    """A peer that says and hears nothing."""
    return {"type": "http.disconnect"}


async def serve(client: rescind.AsyncClient, app: Callable[[], Awaitable[None]], **headers: str) -> None:
    """One request, in which `app` runs."""

    async def handle(scope: Any, receive: Any, send: Any) -> None:
        await app()

    told = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await RescindMiddleware(handle, client)({"type": "http", "headers": told}, nothing, nothing)


async def changed(site: Site, client: rescind.AsyncClient, how: Callable[[], Any]) -> None:
    """Do it, and wait until the client has it."""
    before = client.core.current.revision
    await asyncio.to_thread(how)
    await until(lambda: client.core.current.revision > before)


def turn_off(site: Site) -> Callable[[], None]:
    """An ordinary change."""
    return lambda: site.put(definition=OFF_BY_DEFAULT)


async def test_what_a_request_starts_keeps_its_revision_and_obeys_a_kill(site: Site, client: rescind.AsyncClient) -> None:
    # P3, P4
    site.put("steady")
    await until(lambda: client.boolean("steady", False))
    seen: list[list[bool]] = []

    def values() -> list[bool]:
        return [client.boolean(FLAG, False), client.boolean("steady", False)]

    async def look() -> None:
        task = asyncio.create_task(asyncio.to_thread(values))
        seen.extend([values(), await task, await asyncio.create_task(in_task())])

    async def in_task() -> list[bool]:
        return values()

    async def app() -> None:
        await look()
        await changed(site, client, lambda: site.put("steady", definition=OFF_BY_DEFAULT))
        await changed(site, client, site.kill)
        await look()

    await serve(client, app)
    assert seen == [[True, True]] * 3 + [[False, True]] * 3


async def test_a_kill_of_what_a_flag_depends_on_overrides_too(site: Site, client: rescind.AsyncClient) -> None:
    # P4
    site.put(DEPENDENT, prerequisites=[{"flag": FLAG, "variant": "on"}])
    await until(lambda: client.boolean(DEPENDENT, False))

    async def app() -> None:
        assert client.boolean(DEPENDENT, False) is True
        await changed(site, client, site.kill)
        assert client.boolean(DEPENDENT, True) is False

    await serve(client, app)


async def test_a_request_that_saw_a_kill_does_not_go_back_before_it(site: Site, client: rescind.AsyncClient) -> None:
    # P3, P4
    async def app() -> None:
        await changed(site, client, site.kill)
        assert client.boolean(FLAG, True) is False
        await changed(site, client, turn_off(site))
        await changed(site, client, site.lift)
        assert client.boolean(FLAG, True) is False, "as it was before the kill it is not any more"
        evaluator = client.core.permits.choose(FLAG)
        assert evaluator is not None
        assert evaluator.revision == Revision(1, 4)

    await serve(client, app)


async def test_a_task_that_outlives_its_request_follows_what_is_current(site: Site, client: rescind.AsyncClient) -> None:
    # P2, P3
    over, look = asyncio.Event(), asyncio.Event()
    seen: list[bool] = []

    async def left_behind() -> None:
        seen.append(client.boolean(FLAG, False))
        await look.wait()
        seen.extend([client.boolean(FLAG, True), client.boolean_details(FLAG, True).value])
        over.set()

    tasks: list[asyncio.Task[None]] = []

    async def app() -> None:
        tasks.append(asyncio.create_task(left_behind()))
        await asyncio.sleep(0)

    await serve(client, app)
    await changed(site, client, turn_off(site))
    look.set()
    await over.wait()
    assert seen == [True, False, False]


async def test_what_outlives_a_late_request_is_not_older_than_what_that_had_seen(fragile: Site) -> None:
    # P3
    async with rescind.AsyncClient(**fragile.options) as client:
        fragile.server.kill()
        look = asyncio.Event()

        async def left_behind() -> str:
            await look.wait()
            return client.boolean_details(FLAG, True).reason

        tasks: list[asyncio.Task[str]] = []

        async def app() -> None:
            tasks.append(asyncio.create_task(left_behind()))

        await serve(client, app, rescind_revision=f"{fragile.environment}.1.2")
        look.set()
        assert await tasks[0] == "STALE"


async def test_a_websocket_moves_on_with_each_message(site: Site, client: rescind.AsyncClient) -> None:
    # P3
    seen: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        seen.append(client.boolean(FLAG, False))
        await changed(site, client, turn_off(site))
        seen.append(client.boolean(FLAG, False))
        await receive()
        seen.append(client.boolean(FLAG, True))

    messages = iter([{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "x"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    await RescindMiddleware(app, client)({"type": "websocket", "headers": []}, receive, send)
    assert seen == [True, True, False]
    assert sent[0]["headers"] == [(HEADER.encode(), f"{site.environment}.1.1".encode())]


async def test_a_pin_holds_for_a_minute_and_staleness_breaks_it(site: Site) -> None:
    # P3, P6
    site.put(max_staleness_seconds=30)
    clock = HandClock()
    core = Core(settings_from(**site.options), clock=clock)
    core.launch()
    assert await core.wait_ready(60)

    def served() -> tuple[Any, str]:
        evaluator = core.permits.choose(FLAG)
        assert evaluator is not None
        details = evaluator.evaluate(FLAG, {}, None, "boolean")
        return details.value, details.reason

    held = core.causality.begin()
    await asyncio.to_thread(turn_off(site))
    await until(lambda: core.current.revision == Revision(1, 3))
    clock.later += 31
    assert served() == (False, "STALE")
    clock.later -= 31
    assert served() == (True, "STATIC")
    core.causality.look()
    assert served() == (True, "STATIC")
    clock.later += PIN_SECONDS_MAX + 1
    core.causality.look()
    await until(lambda: served() == (False, "STATIC"))
    core.causality.end(held)
    await core.close(2.0)


async def test_those_who_share_a_fetch_take_nothing_from_the_next(site: Site, client: rescind.AsyncClient) -> None:
    # P3
    await cut_off(client)
    causality = Causality(client.core.current, client.core.follower, client.core.context, StillClock())
    await asyncio.to_thread(site.kill)
    before = client.core.api.call_count
    asked = [Revision(1, 2), Revision(1, 1)] * int(CHECKS_BURST * 2)
    assert set(await asyncio.gather(*(causality.catch_up(one, 60) for one in asked))) == {CatchUp.REACHED}
    assert client.core.api.call_count - before <= 3, "one, and what is said of a kill"
    assert await causality.catch_up(Revision(1, 99), 20) is CatchUp.UNKNOWN, "asked, not left to the stream"


async def test_one_who_shares_a_fetch_for_less_asks_for_more_afterwards(site: Site, client: rescind.AsyncClient) -> None:
    # P3
    await cut_off(client)
    fetching = asyncio.ensure_future(client.core.follower.fetch())
    await asyncio.sleep(0)
    assert await client.core.causality.catch_up(Revision(1, 9), 60) is CatchUp.UNKNOWN
    await fetching


async def test_what_was_denied_too_early_is_asked_for_again_soon(site: Site, client: rescind.AsyncClient) -> None:
    # P3: the next revision, said before it was there, must not be false for long
    await cut_off(client)
    clock = HandClock()
    causality = Causality(client.core.current, client.core.follower, client.core.context, clock)
    assert await causality.catch_up(Revision(1, 2), 60) is CatchUp.UNKNOWN
    await asyncio.to_thread(site.kill)
    assert await causality.catch_up(Revision(1, 2), 60) is CatchUp.UNKNOWN
    clock.later += NEAR_DENIED_SECONDS
    assert await causality.catch_up(Revision(1, 2), 60) is CatchUp.REACHED

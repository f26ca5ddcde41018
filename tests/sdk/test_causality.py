"""The revision between services (P3): headers on requests and replies, catching up, and one revision per request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
import rescind
from rescind.asgi import RescindMiddleware
from rescind.causality import CatchUp
from rescind.httpx import instrument
from rescind.wire import HEADER, Revision

from tests.sdk.conftest import FLAG, Site, capture
from tests.waiting import until

OFF_BY_DEFAULT = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off"}


class Service:
    """One ASGI service: answers with what its flag says, before and after whatever `between` does."""

    def __init__(self, client: rescind.AsyncClient | rescind.Client) -> None:
        self.client = client
        self.between: Callable[[], Any] | None = None
        self.seen: list[rescind.Resolution] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen = [self.client.boolean_details(FLAG, False)]
        if self.between is not None:
            await self.between()
        self.seen.append(self.client.boolean_details(FLAG, False))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(self.client.boolean(FLAG, False)).encode()})


@asynccontextmanager
async def calling(service: Service, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client for one service, without a network between."""
    transport = httpx.ASGITransport(app=RescindMiddleware(service, service.client, **options))
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
        yield http


async def cut_off(client: rescind.AsyncClient) -> None:
    """Take away the client's stream and leave it its other calls."""
    (following,) = (task for task in client.core.tasks if task.get_name() == "Follower.run")
    following.cancel()
    await asyncio.wait([following])


async def test_a_request_that_has_seen_a_revision_is_not_served_at_an_older_one(site: Site) -> None:
    # P3
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(rescind.AsyncClient(**site.options))
        await cut_off(client)
        service = Service(client)
        http = await stack.enter_async_context(calling(service, budget_seconds=5))
        assert (await http.get("/")).text == "True"
        answer = await asyncio.to_thread(site.kill)
        reply = await http.get("/", headers={HEADER: f"{site.environment}.{answer['revision']}"})
        assert reply.text == "False"
        assert service.seen[0].reason == "STATIC"
        assert reply.headers[HEADER] == f"{site.environment}.{answer['revision']}"


async def test_what_cannot_be_reached_in_time_is_served_off_with_reason_stale(fragile: Site) -> None:
    # P3
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(rescind.AsyncClient(**fragile.options))
        service = Service(client)
        http = await stack.enter_async_context(calling(service))
        fragile.server.kill()
        revision = client.core.current.revision
        reply = await http.get("/", headers={HEADER: f"{fragile.environment}.1.{revision.n + 1}"})
        assert reply.text == "False"
        assert (service.seen[0].reason, service.seen[0].variant) == ("STALE", "off")
        assert (await http.get("/")).text == "True", "that request alone"


async def test_a_false_header_costs_a_check_and_changes_nothing(site: Site) -> None:
    # P3
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(rescind.AsyncClient(**site.options))
        service = Service(client)
        http = await stack.enter_async_context(calling(service, budget_seconds=5))
        before = client.core.api.call_count
        for _ in range(50):
            reply = await http.get("/", headers={HEADER: f"{site.environment}.1.777"})
            assert reply.text == "True"
        assert client.core.api.call_count - before <= 3
        for number in range(100):
            assert await client.core.causality.catch_up(Revision(1, 1000 + number), 0.0001) is not CatchUp.REACHED
        assert client.core.api.call_count - before <= 30


async def test_many_requests_catch_up_in_one_fetch(site: Site) -> None:
    # P3
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(rescind.AsyncClient(**site.options))
        await cut_off(client)
        service = Service(client)
        http = await stack.enter_async_context(calling(service, budget_seconds=5))
        answer = await asyncio.to_thread(site.kill)
        before = client.core.api.call_count
        headers = {HEADER: f"{site.environment}.{answer['revision']}"}
        replies = await asyncio.gather(*(http.get("/", headers=headers) for _ in range(50)))
        assert {reply.text for reply in replies} == {"False"}
        assert client.core.api.call_count - before <= 3


async def test_one_request_keeps_one_revision_and_a_kill_overrides_it(site: Site) -> None:
    # P3, P4
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(rescind.AsyncClient(**site.options))
        service = Service(client)
        http = await stack.enter_async_context(calling(service))

        async def change() -> None:
            await asyncio.to_thread(site.put, definition=OFF_BY_DEFAULT)
            await until(lambda: client.core.current.revision.n == 2)

        async def kill() -> None:
            await asyncio.to_thread(site.kill)
            await until(lambda: client.core.current.revision.n == 4)

        service.between = change
        assert (await http.get("/")).text == "True"
        assert [one.variant for one in service.seen] == ["on", "on"]
        await asyncio.to_thread(site.put)
        await until(lambda: client.core.current.revision.n == 3)
        service.between = kill
        reply = await http.get("/")
        assert [one.variant for one in service.seen] == ["on", "off"]
        assert reply.headers[HEADER].endswith(".1.4")


async def test_a_request_that_is_late_is_not_brought_back_by_a_kill_that_may_have_been_lifted(fragile: Site) -> None:
    # P3
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(rescind.AsyncClient(**fragile.options))
        service = Service(client)
        http = await stack.enter_async_context(calling(service))
        await asyncio.to_thread(fragile.kill)
        await until(lambda: client.core.current.revision.n == 2)
        fragile.server.kill()
        await http.get("/", headers={HEADER: f"{fragile.environment}.1.3"})
        assert {(one.reason, one.variant) for one in service.seen} == {("STALE", "off")}


async def test_what_one_reply_has_seen_does_not_bring_back_a_request_that_has_seen_more(site: Site) -> None:
    # P3
    async with rescind.AsyncClient(**site.options) as client:
        causality = client.core.causality
        await asyncio.to_thread(site.put, definition=OFF_BY_DEFAULT)
        await until(lambda: client.core.current.revision.n == 2)
        pin = causality.pin(Revision(1, 9), CatchUp.LATE)
        pin.revision = Revision(1, 1)
        causality.learn(pin, Revision(1, 2), CatchUp.REACHED)
        assert pin.evaluator is not None
        assert pin.evaluator.evaluate(FLAG, {}, True).reason == "STALE"
        assert pin.seen == Revision(1, 9)


async def test_a_fetch_that_asks_for_more_than_the_one_under_way_gets_an_answer_of_its_own(site: Site) -> None:
    # P3: two flips in quick succession, and a stream that is silent
    async with rescind.AsyncClient(**site.options) as client:
        await cut_off(client)
        weaker = asyncio.ensure_future(client.core.follower.fetch(Revision(1, 1)))
        await asyncio.sleep(0)
        answers = await asyncio.gather(*(client.core.follower.fetch(Revision(1, 7)) for _ in range(5)))
        assert [answer is not None and answer.denies(Revision(1, 7)) for answer in answers] == [True] * 5
        assert (await weaker) is not None


async def test_a_reply_teaches_the_caller_before_it_goes_on(site: Site) -> None:
    # P3
    async with AsyncExitStack() as stack:
        ahead = await stack.enter_async_context(rescind.AsyncClient(**site.options))
        behind = await stack.enter_async_context(rescind.AsyncClient(**site.options))
        await cut_off(behind)
        backend, front = Service(ahead), Service(behind)
        inside = await stack.enter_async_context(calling(backend))
        instrument(inside, behind, budget_seconds=5)
        outside = await stack.enter_async_context(calling(front))

        async def change_and_call() -> None:
            await asyncio.to_thread(site.put, definition=OFF_BY_DEFAULT)
            await until(lambda: ahead.core.current.revision.n == 2)
            assert (await inside.get("/")).text == "False"

        front.between = change_and_call
        reply = await outside.get("/")
        assert [one.variant for one in front.seen] == ["on", "off"]
        assert reply.headers[HEADER].endswith(".1.2")


async def test_an_edge_believes_nothing_from_outside_and_the_threaded_client_serves_too(site: Site) -> None:
    # P3
    with rescind.Client(**site.options) as client:
        service = Service(client)
        async with calling(service, trust=False) as edge, calling(service, budget_seconds=5) as http:
            before = client.core.api.call_count
            assert (await edge.get("/", headers={HEADER: f"{site.environment}.1.777"})).text == "True"
            assert client.core.api.call_count == before
            assert (await http.get("/", headers={HEADER: f"{site.environment}.1.777"})).text == "True"
            assert client.core.api.call_count > before


@pytest.mark.parametrize("pinned", [True, False])
async def test_an_effect_takes_the_variant_that_its_own_task_was_served(site: Site, pinned: bool) -> None:
    # P8: a kill between the decision and the effect never turns the new path into the old one
    async with rescind.AsyncClient(**site.options) as client:
        served: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert client.boolean(FLAG, False, {"targetingKey": "u", "region": "eu"}) is True
            await asyncio.to_thread(site.kill)
            await until(lambda: FLAG in client.core.current.killed)
            served.append(capture(client, "1", subject="u")._request())

        if pinned:
            scope = {"type": "http", "headers": []}
            await RescindMiddleware(app, client)(scope, ignore, ignore)
        else:
            await app(None, None, None)
        (request,) = served
        assert (request.variant, str(request.revision)) == ("on", "1.1")


async def ignore(*_: Any) -> Any:
    """A peer that says and hears nothing."""

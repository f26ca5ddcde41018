"""What comes in and goes out over HTTP, with real servers and clients of each kind (P3)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from typing import Any

import aiohttp
import aiohttp.web
import httpx
import msgspec
import pytest
import requests
import rescind
import rescind.aiohttp
import rescind.httpx
import rescind.requests
from opentelemetry import context as otel
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from rescind.context import Held
from rescind.crossing import Crossing
from rescind.wire import HEADER

from tests.sdk.conftest import FLAG, Site
from tests.sdk.serving import FALSE, SERVING, Saw, aiohttp_serving, cut_off, serving_asgi, uvicorn_serving
from tests.waiting import CEILING_SECONDS, until

OTHERS = "tenant=blue;p=1,trace=a%20b"


@pytest.fixture
def behind(site: Site) -> Iterator[rescind.Client]:
    """A client at the first revision that hears of no other by itself."""
    with rescind.Client(**site.options) as client:
        cut_off(client)
        yield client


async def ask(url: str, headers: dict[str, str]) -> tuple[Saw, httpx.Response]:
    """What a service saw of a request, and its reply."""
    async with httpx.AsyncClient(verify=False, timeout=CEILING_SECONDS) as http:
        reply = await http.get(url, headers=headers)
    return msgspec.json.decode(reply.content, type=Saw), reply


@pytest.mark.parametrize("name", SERVING)
@pytest.mark.parametrize("by", [HEADER, "baggage"])
async def test_a_service_is_not_served_older_than_what_the_request_has_seen(
    site: Site, behind: rescind.Client, name: str, by: str
) -> None:
    # P3
    async with SERVING[name](behind, budget_seconds=5) as url:
        before, _ = await ask(url, {})
        revision = (await asyncio.to_thread(site.kill))["revision"]
        value = f"{site.environment}.{revision}"
        saw, reply = await ask(url, {by: value if by == HEADER else f"{OTHERS},rescind.rev={value}"})
    assert (before.value, saw.value, saw.reason) == (True, False, "STATIC")
    assert reply.headers.get_list(HEADER) == [value]
    assert (saw.revision, saw.baggage) == (([value], []) if by == HEADER else ([], [f"{OTHERS},rescind.rev={value}"]))


@pytest.mark.parametrize("name", SERVING)
async def test_an_edge_believes_nothing_shows_nothing_and_says_nothing(site: Site, behind: rescind.Client, name: str) -> None:
    # P3
    revision = (await asyncio.to_thread(site.kill))["revision"]
    value = f"{site.environment}.{revision}"
    async with SERVING[name](behind, trust=False, budget_seconds=5) as url:
        before = behind.core.api.call_count
        members = f"rescind.rev={value},{OTHERS}, rescind%2Erev={value},rescind%252erev={value}"
        saw, reply = await ask(url, {HEADER: value, "baggage": members})
        alone, _ = await ask(url, {"baggage": f"rescind.rev={value}"})
        assert behind.core.api.call_count == before
    assert saw == Saw(value=True, reason="STATIC", revision=[], baggage=[OTHERS])
    assert (alone.revision, alone.baggage) == ([], [])
    assert HEADER not in reply.headers, f"not {FALSE} either, which its application says"


@pytest.mark.parametrize("name", SERVING)
async def test_false_headers_cost_a_bounded_number_of_checks(site: Site, behind: rescind.Client, name: str) -> None:
    # P3
    async with SERVING[name](behind, budget_seconds=5) as url:
        before = behind.core.api.call_count
        environment = site.environment
        absurd = [f"{environment}.1.999999999999999999", f"{environment}.9999999.1", "z" * 600, "a.b", f"{environment}.-1.5"]
        for value in [*absurd, *[f"{environment}.1.777"] * 10]:
            for headers in ({HEADER: value}, {"baggage": f"rescind.rev={value}"}, {HEADER: ",".join([value] * 10)}):
                saw, _ = await ask(url, headers)
                assert (saw.value, saw.reason) == (True, "STATIC")
        assert behind.core.api.call_count - before <= 3


@asynccontextmanager
async def in_request(crossing: Crossing) -> AsyncIterator[Held]:
    """As within a request of the service that calls."""
    held = await crossing.begin()
    try:
        yield held
    finally:
        crossing.end(held)


async def by_httpx(url: str, client: rescind.Client, headers: dict[str, str]) -> bytes:
    async with rescind.httpx.instrument(httpx.AsyncClient(verify=False), client, budget_seconds=5) as http:
        return (await http.get(url, headers=headers)).content


async def by_httpx_in_a_thread(url: str, client: rescind.Client, headers: dict[str, str]) -> bytes:
    def call() -> bytes:
        with rescind.httpx.instrument(httpx.Client(verify=False), client, budget_seconds=5) as http:
            return http.get(url, headers=headers).content

    return await asyncio.to_thread(call)


async def by_requests(url: str, client: rescind.Client, headers: dict[str, str]) -> bytes:
    def call() -> bytes:
        with closing(requests.Session()) as session:
            once = rescind.requests.instrument(session, client, budget_seconds=5)
            return bytes(rescind.requests.instrument(once, client).get(url, headers=headers, timeout=CEILING_SECONDS).content)

    return await asyncio.to_thread(call)


async def by_aiohttp(url: str, client: rescind.Client, headers: dict[str, str]) -> bytes:
    async with aiohttp.ClientSession() as session:
        async with rescind.aiohttp.instrument(session, client, budget_seconds=5).get(url, headers=headers) as reply:
            return await reply.read()


@pytest.mark.parametrize("call", [by_httpx, by_httpx_in_a_thread, by_requests, by_aiohttp])
async def test_a_call_says_what_the_request_has_seen_and_its_reply_teaches_it(
    site: Site, behind: rescind.Client, call: Callable[..., Any]
) -> None:
    # P3
    first = f"{site.environment}.{behind.core.current.revision}"
    async with AsyncExitStack() as stack:
        ahead = await stack.enter_async_context(rescind.AsyncClient(**site.options))
        url = await stack.enter_async_context(serving_asgi(ahead))
        revision = (await asyncio.to_thread(site.kill))["revision"]
        await until(lambda: str(ahead.core.current.revision) == revision)
        await stack.enter_async_context(in_request(Crossing(behind)))
        assert behind.boolean(FLAG, False) is True
        headers = {"baggage": f"a=1,rescind.rev={site.environment}.0.1,{OTHERS}", "x-own": "kept"}
        saw = msgspec.json.decode(await call(url, behind, headers), type=Saw)
        assert behind.boolean(FLAG, True) is False
        assert Crossing(behind).carried() == f"{site.environment}.{revision}"
    assert saw.revision == [first]
    assert saw.baggage == [f"rescind.rev={first},a=1,{OTHERS}"]


async def test_the_revision_passes_a_hop_where_only_opentelemetry_runs(site: Site, behind: rescind.Client) -> None:
    # P3
    propagator = W3CBaggagePropagator()
    async with AsyncExitStack() as stack:
        ahead = await stack.enter_async_context(rescind.AsyncClient(**site.options))
        last = await stack.enter_async_context(serving_asgi(behind, budget_seconds=5))
        onward = await stack.enter_async_context(httpx.AsyncClient(verify=False, timeout=CEILING_SECONDS))

        async def hop(scope: Any, receive: Any, send: Any) -> None:
            carrier = {name.decode(): value.decode() for name, value in scope["headers"]}
            headers: dict[str, str] = {}
            propagator.inject(headers, context=propagator.extract(carrier, context=otel.Context()))
            reply = await onward.get(last, headers=headers)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": reply.content})

        url = await stack.enter_async_context(uvicorn_serving(hop))
        revision = (await asyncio.to_thread(site.kill))["revision"]
        await until(lambda: str(ahead.core.current.revision) == revision)
        http = await stack.enter_async_context(httpx.AsyncClient(verify=False, timeout=CEILING_SECONDS))
        reply = await rescind.httpx.instrument(http, ahead).get(url, headers={"baggage": "tenant=blue"})
    saw = msgspec.json.decode(reply.content, type=Saw)
    assert saw == Saw(
        value=False, reason="STATIC", revision=[], baggage=[f"rescind.rev={site.environment}.{revision},tenant=blue"]
    )


async def test_a_reply_that_aiohttp_raises_says_the_revision_too(site: Site, behind: rescind.Client) -> None:
    # P3
    async def moved(request: aiohttp.web.Request) -> aiohttp.web.Response:
        raise aiohttp.web.HTTPGone

    app = aiohttp.web.Application()
    app.router.add_get("/", moved)
    rescind.aiohttp.setup(app, behind)
    async with aiohttp_serving(app) as url, httpx.AsyncClient(verify=False) as http:
        replies = [await http.get(url), await http.get(f"{url}/nowhere")]
    assert [reply.status_code for reply in replies] == [410, 404]
    assert {reply.headers[HEADER] for reply in replies} == {f"{site.environment}.1.1"}

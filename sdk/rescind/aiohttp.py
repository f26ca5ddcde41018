"""aiohttp: sessions that carry the revision on their calls, and a server that pins its requests (P3).

    session = instrument(aiohttp.ClientSession(), client)      # calls to your own services, not to the outside world
    setup(app, client)                                         # an aiohttp.web application

`setup` with `trust=False` at the edge of your system: what comes from outside is not believed, no handler sees it, and
replies do not say the revision. An `AsyncClient` belongs to the loop that it shares with both; a `Client` serves any.
"""

from __future__ import annotations

from types import SimpleNamespace

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Handler
from multidict import CIMultiDict

from rescind.baggage import BAGGAGE
from rescind.causality import BUDGET_SECONDS
from rescind.client import AsyncClient, Client
from rescind.context import Pin
from rescind.crossing import Crossing
from rescind.strip import stripped
from rescind.wire import HEADER

PIN = web.RequestKey("rescind.pin", Pin)


def instrument(
    session: aiohttp.ClientSession, client: Client | AsyncClient, *, budget_seconds: float = BUDGET_SECONDS
) -> aiohttp.ClientSession:
    """Add a trace config to `session` and return it."""
    config = trace_config(client, budget_seconds=budget_seconds)
    config.freeze()
    session.trace_configs.append(config)
    return session


def trace_config(client: Client | AsyncClient, *, budget_seconds: float = BUDGET_SECONDS) -> aiohttp.TraceConfig:
    """The same, for `aiohttp.ClientSession(trace_configs=[...])`."""
    crossing = Crossing(client, budget_seconds=budget_seconds)

    async def start(session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestStartParams) -> None:
        crossing.put(params.headers, ",".join(params.headers.getall(BAGGAGE, [])))

    async def end(session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestEndParams) -> None:
        await crossing.learn(params.response.headers.getall(HEADER, []))

    config = aiohttp.TraceConfig()
    config.on_request_start.append(start)
    config.on_request_end.append(end)
    return config


def setup(
    app: web.Application, client: Client | AsyncClient, *, trust: bool = True, budget_seconds: float = BUDGET_SECONDS
) -> None:
    """Pin what `app` serves from now on: the outermost of its middlewares, and what is said on replies."""
    edge = Edge(Crossing(client, budget_seconds=budget_seconds), trust=trust)

    @web.middleware
    async def pinning(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await edge.serve(request, handler)

    app.middlewares.insert(0, pinning)
    app.on_response_prepare.append(edge.tell)


class Edge:
    """The server's side of it."""

    def __init__(self, crossing: Crossing, *, trust: bool) -> None:
        self._crossing = crossing
        self._trust = trust

    async def serve(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Handle one request, pinned."""
        if self._trust:
            headers = request.headers
            held = await self._crossing.begin(headers.getall(HEADER, []), headers.getall(BAGGAGE, []))
        else:
            held = await self._crossing.begin()
        request[PIN] = held.pin  # replies may be prepared when this has returned
        try:
            return await handler(request if self._trust else request.clone(headers=within(request)))
        finally:
            self._crossing.end(held)

    async def tell(self, request: web.Request, response: web.StreamResponse) -> None:
        """Say the revision on a reply that is about to begin; at an edge take it away."""
        pin = request.get(PIN)
        if not self._trust:
            response.headers.popall(HEADER, None)
        elif pin is not None and (value := self._crossing.told(pin)) is not None:
            response.headers.add(HEADER, value)


def within(request: web.Request) -> CIMultiDict[str]:
    """The headers that an application behind an edge sees."""
    return CIMultiDict(stripped(request.headers.items()))

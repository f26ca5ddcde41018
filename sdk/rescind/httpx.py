"""httpx clients that carry the revision on their calls and learn from the replies (P3).

http = instrument(httpx.AsyncClient(), client)

Use it for calls to your own services, not to the outside world.
"""

from __future__ import annotations

from typing import TypeVar

import httpx

from rescind.baggage import BAGGAGE
from rescind.causality import BUDGET_SECONDS
from rescind.client import AsyncClient, Client
from rescind.crossing import Crossing
from rescind.wire import HEADER

Http = TypeVar("Http", httpx.Client, httpx.AsyncClient)


def instrument(http: Http, client: Client | AsyncClient, *, budget_seconds: float = BUDGET_SECONDS) -> Http:
    """Add event hooks to `http` and return it."""
    hooks = Hooks(client, budget_seconds)
    events = http.event_hooks
    if isinstance(http, httpx.AsyncClient):
        events["request"].append(hooks.request_async)
        events["response"].append(hooks.response_async)
    else:
        events["request"].append(hooks.request)
        events["response"].append(hooks.response)
    http.event_hooks = events
    return http


class Hooks:
    """The event hooks, for those who put them in by hand.

    A synchronous `httpx.Client` beside an `AsyncClient` learns from replies only outside of the loop's own thread.
    """

    def __init__(self, client: Client | AsyncClient, budget_seconds: float = BUDGET_SECONDS) -> None:
        self._crossing = Crossing(client, budget_seconds=budget_seconds)

    def request(self, request: httpx.Request) -> None:
        """Put the revision of this request, or the client's own, on a call."""
        self._crossing.put(request.headers, request.headers.get(BAGGAGE, ""))

    async def request_async(self, request: httpx.Request) -> None:
        """The same, for an asynchronous client."""
        self.request(request)

    def response(self, response: httpx.Response) -> None:
        """Take in what the reply has seen: this request evaluates nothing older from here on."""
        self._crossing.learn_blocking(response.headers.get_list(HEADER))

    async def response_async(self, response: httpx.Response) -> None:
        """The same, for an asynchronous client."""
        await self._crossing.learn(response.headers.get_list(HEADER))

"""httpx clients that carry the revision on their calls and learn from the replies (P3).

http = instrument(httpx.AsyncClient(), client)
"""

from __future__ import annotations

from typing import TypeVar

import httpx

from rescind.causality import BUDGET_SECONDS
from rescind.client import AsyncClient, Client
from rescind.header import header_value
from rescind.stream import REPLY
from rescind.wire import HEADER, Revision

Http = TypeVar("Http", httpx.Client, httpx.AsyncClient)


def instrument(http: Http, client: Client | AsyncClient, *, budget_seconds: float = BUDGET_SECONDS) -> Http:
    """Add event hooks to `http` and return it. Use it for calls to your own services, not to the outside world."""
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
    """The event hooks, for those who put them in by hand."""

    def __init__(self, client: Client | AsyncClient, budget_seconds: float = BUDGET_SECONDS) -> None:
        self._client = client
        self._core = client.core
        self._budget_seconds = budget_seconds

    def request(self, request: httpx.Request) -> None:
        """Put the revision of this request, or the client's own, on a call."""
        environment = self._core.api.environment
        pin = self._core.context.pin.get()
        revision = pin.seen if pin else self._core.current.revision
        if environment and revision.n and HEADER not in request.headers:
            request.headers[HEADER] = header_value(environment, revision)

    async def request_async(self, request: httpx.Request) -> None:
        """The same, for an asynchronous client."""
        self.request(request)

    def response(self, response: httpx.Response) -> None:
        """Take in what the reply has seen: this request evaluates nothing older from here on."""
        if (seen := self._seen(response)) is not None:
            outcome = self._client.block_on_core(self._core.causality.catch_up(seen, self._budget_seconds, REPLY))
            self._core.causality.learn(self._core.context.pin.get(), seen, outcome)

    async def response_async(self, response: httpx.Response) -> None:
        """The same, for an asynchronous client."""
        if (seen := self._seen(response)) is not None:
            outcome = await self._client.on_core(self._core.causality.catch_up(seen, self._budget_seconds, REPLY))
            self._core.causality.learn(self._core.context.pin.get(), seen, outcome)

    def _seen(self, response: httpx.Response) -> Revision | None:
        """What the reply has seen beyond this request, or beyond this instance."""
        environment = self._core.api.environment
        values = response.headers.get_list(HEADER) if environment else []
        return self._core.causality.news(values, environment) if values and environment else None

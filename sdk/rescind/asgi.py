"""ASGI middleware that carries the revision across services: one revision per request, on requests and replies (P3).

    app = RescindMiddleware(app, client)

A request that has seen a later revision than this instance waits up to 20 ms for it, before it is served; what is not
reached by then gets off variants with reason STALE for that request. At the edge of your system pass `trust=False`: what
comes from outside is not believed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from rescind.causality import BUDGET_SECONDS, CatchUp
from rescind.client import AsyncClient, Client
from rescind.context import Pin
from rescind.header import HEADER_BYTES, header_value

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class RescindMiddleware:
    """Wraps an ASGI application."""

    def __init__(
        self, app: Application, client: Client | AsyncClient, *, trust: bool = True, budget_seconds: float = BUDGET_SECONDS
    ) -> None:
        self._app = app
        self._client = client
        self._trust = trust
        self._budget_seconds = budget_seconds

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request, pinned."""
        self._client.ensure_started()
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        pin = await self._pin(scope)
        context = self._client.core.context
        pinned, remembered = context.pin.set(pin), context.memory.set(None)

        async def send_with_revision(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                message = {**message, "headers": [*message.get("headers", []), *self._header(pin)]}
            await send(message)

        try:
            await self._app(scope, receive, send_with_revision)
        finally:
            context.memory.reset(remembered)
            context.pin.reset(pinned)

    async def _pin(self, scope: MutableMapping[str, Any]) -> Pin:
        causality = self._client.core.causality
        environment = self._client.core.api.environment
        if self._trust and environment:
            values = [value for name, value in scope.get("headers", []) if name.lower() == HEADER_BYTES]
            if values and (seen := causality.seen(values, environment)) is not None:
                outcome = await self._client.on_core(causality.catch_up(seen, self._budget_seconds))
                return causality.pin(seen, outcome)
        return causality.pin(None, CatchUp.REACHED)

    def _header(self, pin: Pin) -> list[tuple[bytes, bytes]]:
        environment = self._client.core.api.environment
        if not environment or not pin.seen.n:
            return []
        return [(HEADER_BYTES, header_value(environment, pin.seen).encode())]

"""ASGI middleware that carries the revision across services: one revision per request, on requests and replies (P3).

    app = RescindMiddleware(app, client)

A request that has seen a later revision than this instance waits up to 20 ms for it, before it is served; what is not
reached by then gets off variants with reason STALE for that request. A WebSocket moves on to what is current with each message
that it receives; a reply that takes longer than a minute follows what is current after that.

At the edge of your system pass `trust=False`: what comes from outside is not believed and does not reach the application, and
replies do not say the revision.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from rescind.causality import BUDGET_SECONDS
from rescind.client import AsyncClient, Client
from rescind.context import Held, Pin
from rescind.crossing import Crossing
from rescind.header import HEADER_BYTES
from rescind.strip import BAGGAGE_BYTES, stripped_bytes

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

REPLY_STARTS = ("http.response.start", "websocket.accept", "websocket.http.response.start")


class RescindMiddleware:
    """Wraps an ASGI application."""

    def __init__(
        self, app: Application, client: Client | AsyncClient, *, trust: bool = True, budget_seconds: float = BUDGET_SECONDS
    ) -> None:
        self._app = app
        self._client = client
        self._crossing = Crossing(client, budget_seconds=budget_seconds)
        self._trust = trust

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, pinned."""
        self._client.ensure_started()
        kind = scope["type"]
        if kind not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        if not self._trust:
            scope = {**scope, "headers": stripped_bytes(scope.get("headers", ()))}
        held = await self._begin(scope)
        try:
            hears = self._renewing(held.pin, receive) if kind == "websocket" else receive
            await self._app(scope, hears, self._telling(held.pin, send) if self._trust else stripping(send))
        finally:
            self._crossing.end(held)

    async def _begin(self, scope: Scope) -> Held:
        values: list[bytes] = []
        baggage: list[bytes] = []
        for name, value in scope.get("headers", ()) if self._trust else ():
            if name == HEADER_BYTES:
                values.append(value)
            elif name == BAGGAGE_BYTES:
                baggage.append(value)
        return await self._crossing.begin(values, baggage)

    def _renewing(self, pin: Pin, receive: Receive) -> Receive:
        async def renewing() -> Message:
            message = await receive()
            if message["type"] == "websocket.receive":
                await self._crossing.renew(pin)
            return message

        return renewing

    def _telling(self, pin: Pin, send: Send) -> Send:
        async def telling(message: Message) -> None:
            if message["type"] in REPLY_STARTS and (value := self._crossing.told(pin)) is not None:
                message = with_headers(message, [*message.get("headers", ()), (HEADER_BYTES, value.encode())])
            await send(message)

        return telling


def stripping(send: Send) -> Send:
    """Of an edge, whose application may pass on what a service inside has told it."""

    async def stripping_send(message: Message) -> None:
        if message["type"] in REPLY_STARTS:
            message = with_headers(message, stripped_bytes(message.get("headers", ())))
        await send(message)

    return stripping_send


def with_headers(message: Message, headers: Iterable[tuple[bytes, bytes]]) -> Message:
    """The message with other headers."""
    return {**message, "headers": list(headers)}

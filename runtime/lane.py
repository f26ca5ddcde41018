"""A short way in for the few requests that come all the time, in front of the framework.

Only what is plain goes this way: a POST of JSON by a known token that may, of a known length, to be answered in JSON, below
`/v1/environments/{environment}`. Everything else, and with it every refusal, goes on to `rest`, where the same routes stand
in full; so does a body that its handler does not take.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, TypeVar
from urllib.parse import unquote

import msgspec
from msgspec import Struct

from runtime.principal import Principal, bearer
from runtime.problem import send_problem
from runtime.verifier import Verifier

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Handler = Callable[[str, Principal, bytes], Awaitable[Struct | None]]
"""Takes environment, principal and body, and answers with what becomes JSON; None leaves the request to `rest`."""
T = TypeVar("T")

PREFIX = "/v1/environments/"
BODY_BYTES_MAX = 8 * 1024 * 1024
PACKED = b"msgpack"
_encode = msgspec.json.Encoder().encode


class Route(Struct, frozen=True):
    """A handler, for whoever has one of the scopes in the environment; `work:*` is any scope that begins so."""

    scopes: Sequence[str]
    handler: Handler


class Lane:
    """An ASGI application. `routes` by what follows the environment in the path."""

    def __init__(self, verifier: Verifier, rest: App, routes: Mapping[str, Route]) -> None:
        self._verifier = verifier
        self._rest = rest
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        environment, _, tail = scope["path"][len(PREFIX) :].partition("/")
        route = self._routes.get(tail)
        principal = self._principal(scope, environment, route) if route is not None and is_plain(scope) else None
        if route is None or principal is None:
            await self._rest(scope, receive, send)
            return
        body = await whole(receive)
        if body is None:
            return
        try:
            answer = await route.handler(unquote(environment), principal, body)
        except Exception as error:  # the boundary: whatever happens becomes an answer
            await send_problem(send, error)
            return
        if answer is None:
            await self._rest(scope, again(body, receive), send)
        else:
            await reply(send, _encode(answer))

    def matches(self, path: str) -> bool:
        """Whether there may be a short way for the path."""
        return path.startswith(PREFIX) and path[len(PREFIX) :].partition("/")[2] in self._routes

    def _principal(self, scope: Scope, environment: str, route: Route) -> Principal | None:
        """Who asks, if that was known a moment ago and they may."""
        token = bearer(scope["headers"])
        principal = None if token is None else self._verifier.cached(token)
        may = principal is not None and any(_allows(principal, one, unquote(environment)) for one in route.scopes)
        return principal if may else None


def _allows(principal: Principal, scope: str, environment: str) -> bool:
    if not scope.endswith("*"):
        return principal.allows(scope, environment)
    return any(principal.allows(one, environment) for one in principal.scopes if one.startswith(scope[:-1]) or one == "admin")


def is_plain(scope: Scope) -> bool:
    """Whether a request is of the kind that SDKs send."""
    headers = dict(scope["headers"])
    length = headers.get(b"content-length", b"")
    return (
        scope["method"] == "POST"
        and b"idempotency-key" not in headers
        and length.isdigit()
        and int(length[:16]) <= BODY_BYTES_MAX
        and PACKED not in headers.get(b"content-type", b"").lower()
        and PACKED not in headers.get(b"accept", b"")
    )


def read(decoder: msgspec.json.Decoder[T], body: bytes) -> T | None:
    """The body, or None for one with faults."""
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


async def whole(receive: Receive) -> bytes | None:
    """The body, whose length the server holds to what was said of it; None from one who has gone."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def again(body: bytes, receive: Receive) -> Receive:
    """What was read, for another to read."""
    held: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return held.pop() if held else await receive()

    return next_message


async def reply(send: Send, body: bytes) -> None:
    """200, in JSON."""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})

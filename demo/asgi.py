"""Small ASGI applications of the demo's world and services: a request in, a reply out, and connections that break on purpose.

No framework, so that what a service under Rescind has to do stands in plain sight.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_BYTES_MAX = 64 * 1024


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request, read whole. Header names are in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """One reply; `headers` beside the content type."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = {}


Handler = Callable[[Request], Awaitable[Reply]]


class DroppedError(Exception):
    """Raised by a handler: the connection is closed without a reply."""


class TooLargeError(Exception):
    """The body is over `BODY_BYTES_MAX`."""


def json_reply(value: object, status: int = 200, **headers: str) -> Reply:
    """A JSON reply; keyword arguments become headers, with dashes for underscores."""
    return Reply(status=status, body=msgspec.json.encode(value), headers={k.replace("_", "-"): v for k, v in headers.items()})


def application(handle: Handler) -> App:
    """The ASGI application around one handler. `DroppedError` closes the connection, a body over its limit is 413."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(f"only http is served, not {scope['type']}")
        try:
            request = await read(scope, receive)
            reply = await handle(request)
        except TooLargeError:
            reply = json_reply({"error": "the body is too large"}, 413)
        except DroppedError:
            await _drop(receive, send)
            return
        await _write(send, reply)

    return app


async def read(scope: Scope, receive: Receive) -> Request:
    """The whole request. Raises `TooLargeError` for a body over the limit."""
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > BODY_BYTES_MAX:
            raise TooLargeError
        more = message.get("more_body", False)
    return Request(
        method=scope["method"],
        path=scope["path"],
        query=dict(parse_qsl(scope["query_string"].decode(), keep_blank_values=True)),
        headers={name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]},
        body=b"".join(parts),
    )


async def _write(send: Send, reply: Reply) -> None:
    headers = {"content-type": "application/json", **reply.headers, "content-length": str(len(reply.body))}
    await send(
        {
            "type": "http.response.start",
            "status": reply.status,
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": reply.body})


async def _drop(receive: Receive, send: Send) -> None:
    """Close the connection under the reply. uvicorn's `send` belongs to the cycle that holds the transport."""
    getattr(send, "__self__").transport.abort()  # noqa: B009 (not in the protocol that `Send` describes)
    while (await receive())["type"] != "http.disconnect":
        pass

"""Browsers may ask from pages of other origins, where an operator has named them (Fetch standard, CORS protocol).

Only OFREP is opened so: it is asked with a token in a header, or a grant in the URL, and with no cookie.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection

from flagd.http import gate
from flagd.http.gate import Header, Message, Receive, Scope, Send
from flagd.http.ofrep.app import OfrepApp

ANY = "*"
PREFLIGHT: list[Header] = [
    (b"access-control-allow-methods", b"GET, POST"),
    (
        b"access-control-allow-headers",
        b"authorization, content-type, if-none-match, rescind-revision, traceparent, x-api-key, x-rescind-environment",
    ),
    (b"access-control-max-age", b"7200"),
    (b"content-length", b"0"),
]
EXPOSED: Header = (b"access-control-expose-headers", b"etag, rescind-revision, retry-after")


class CrossOrigin:
    """OFREP, for pages of these origins as well; `*` is every one."""

    def __init__(self, ofrep: OfrepApp, origins: Collection[str]) -> None:
        self._ofrep = ofrep
        self._origins = frozenset(origin.encode() for origin in origins)
        self.matches = ofrep.matches

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        origin = gate.header(scope, b"origin")
        if origin is None or self._origins.isdisjoint((origin, ANY.encode())):
            return self._ofrep(scope, receive, send)
        allowed: list[Header] = [(b"access-control-allow-origin", origin), (b"vary", b"origin")]
        if scope["method"] == "OPTIONS":
            return _preflight(send, allowed)

        async def opened(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *allowed, EXPOSED]}
            await send(message)

        return self._ofrep(scope, receive, opened)


async def _preflight(send: Send, allowed: list[Header]) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": [*allowed, *PREFLIGHT]})
    await send({"type": "http.response.body", "body": b""})

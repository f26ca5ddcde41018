"""What the bare ASGI applications of this wing share: who asks, what they sent, and how they are answered.

The bare applications stand in front of the framework because they are the two that must be fast: one evaluation, and one
event to a thousand streams.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from flagd.errors import unknown_environment
from runtime.errors import Code
from runtime.problem import Problem
from runtime.tokens import Principal, Verifier

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

BODY_MAX = 1024 * 1024
JSON: Header = (b"content-type", b"application/json")


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of this name, in lower case."""
    for key, value in scope["headers"]:
        if key == name:
            found: bytes = value
            return found
    return None


def text_header(scope: Scope, name: bytes) -> str | None:
    """The header as text; None if it is missing."""
    value = header(scope, name)
    return None if value is None else value.decode("latin-1")


async def authenticate(verifier: Verifier, token: str | None) -> Principal:
    """Who asks: from memory where the token was verified a moment ago. Raises `Problem` 401."""
    if token is not None:
        principal = verifier.cached(token)
        if principal is not None:
            return principal
    return await verifier.verify(token)


def require_any(principal: Principal, scopes: Sequence[str], environment: str) -> None:
    """Let pass whoever has one of these scopes in this environment. Raises `Problem` 403, or 404 for what is no name."""
    if "\0" in environment:
        raise unknown_environment(environment, ())
    if not any(principal.allows(scope, environment) for scope in scopes):
        principal.require(scopes[0], environment)


def whole_body(message: Message) -> bytes | None:
    """The body, if this first message has all of it and it is not too long."""
    body: bytes = message.get("body", b"")
    return None if message.get("more_body") or len(body) > BODY_MAX else body


async def read_body(scope: Scope, receive: Receive, message: Message) -> bytes:
    """The whole body, of which `message` is the beginning. Raises `Problem` 413 as soon as it is known to be too long."""
    body: bytes = message.get("body", b"")
    declared = header(scope, b"content-length")
    if declared is not None and declared.isdigit() and int(declared[:12]) > BODY_MAX:
        raise _too_large()
    parts, length = [body], len(body)
    while message.get("more_body", False) and length <= BODY_MAX:
        message = await receive()
        parts.append(message.get("body", b""))
        length += len(parts[-1])
    if length > BODY_MAX:
        raise _too_large()
    return b"".join(parts)


async def reply(send: Send, status: int, body: bytes, *headers: Header) -> None:
    """One whole answer."""
    length: Header = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


def wrong_method(allowed: str) -> Problem:
    """405."""
    return Problem(405, Code.METHOD_NOT_ALLOWED, "Method not allowed", f"Use {allowed}.")


def _too_large() -> Problem:
    return Problem(413, Code.TOO_LARGE, "Too large", f"A body has at most {BODY_MAX} bytes.")

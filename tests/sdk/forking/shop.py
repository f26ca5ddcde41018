"""A service as people write it: the client is made, and used, where the module is imported. Served by servers that fork."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import rescind

FLAG = "checkout.new-flow"
HEADERS = [("content-type", "application/json")]

client = rescind.Client(service="shop")
IMPORTED = client.boolean(FLAG, False) if client.wait_ready(60) else None


def look() -> bytes:
    """What this process sees. The flag comes first: nothing else has been used in it yet."""
    value = client.boolean(FLAG, True, {"targetingKey": "u"})
    status = msgspec.to_builtins(client.status())
    return msgspec.json.encode({"value": value, "pid": os.getpid(), "imported": IMPORTED, **status})


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """For gunicorn and uWSGI."""
    start_response("200 OK", HEADERS)
    return [look()]


async def asgi(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    """For uvicorn's workers."""
    if scope["type"] != "http":
        return
    headers = [(name.encode(), value.encode()) for name, value in HEADERS]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": look()})

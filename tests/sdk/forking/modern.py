"""The same with an `AsyncClient`: made where the module is imported, before there is an event loop."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import msgspec
import rescind

FLAG = "checkout.new-flow"
client = rescind.AsyncClient(service="shop")
IMPORTED = client.boolean(FLAG, False)


async def asgi(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    """For uvicorn's workers."""
    if scope["type"] != "http":
        return
    await client.wait_ready(60)
    value = client.boolean(FLAG, True, {"targetingKey": "u"})
    status = msgspec.to_builtins(client.status())
    body = msgspec.json.encode({"value": value, "pid": os.getpid(), "imported": IMPORTED, **status})
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})

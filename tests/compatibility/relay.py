"""A peer from the future: passes everything on, and puts a field that nobody knows into every object of every message (P21)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn

UNKNOWN = {"from_the_future": {"a": [1]}}
DATA = b"data: "
BY_PEOPLE = {"payload", "attributes", "definition", "result", "context", "document", "evaluators", "metadata", "scope"}
"""What people write is passed on as it is; so are objects whose fields are names: of flags."""
NAMED = {"flags"}


class Relay:
    """A bare ASGI application in front of one server."""

    def __init__(self, target: str) -> None:
        self._http = httpx.AsyncClient(base_url=target, timeout=120)
        self.seen: set[str] = set()
        """The last parts of the paths whose messages were given more fields."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while (message := await receive()).get("more_body"):
            body += message["body"]
        body += message.get("body", b"")
        headers = [(name, value) for name, value in scope["headers"] if name not in (b"host", b"content-length")]
        url = httpx.URL(path=scope["path"], query=scope["query_string"])
        is_definition = b"/sagas/" in scope["raw_path"]
        async with self._http.stream(
            scope["method"], url, headers=headers, content=body if is_definition else more(body)
        ) as answer:
            self.seen.add(scope["path"].rpartition("/")[2])
            kept = [
                (name, value) for name, value in answer.headers.raw if name.lower() not in (b"content-length", b"connection")
            ]
            await send({"type": "http.response.start", "status": answer.status_code, "headers": kept})
            if answer.headers.get("content-type", "").startswith("text/event-stream"):
                async for line in answer.aiter_lines():
                    await send({"type": "http.response.body", "body": event_line(line.encode()), "more_body": True})
            else:
                await answer.aread()
                await send({"type": "http.response.body", "body": more(answer.content), "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def close(self) -> None:
        await self._http.aclose()


def event_line(line: bytes) -> bytes:
    """A line of an event stream, its data with more fields."""
    return (DATA + more(line.removeprefix(DATA)) if line.startswith(DATA) else line) + b"\n"


def more(body: bytes) -> bytes:
    """A JSON document with a field more in every object of ours."""
    return json.dumps(enriched(json.loads(body))).encode() if body else body


def enriched(value: Any, name: str = "") -> Any:
    if isinstance(value, list):
        return [enriched(one) for one in value]
    if not isinstance(value, dict) or name in BY_PEOPLE:
        return value
    inner = {key: enriched(part, key) for key, part in value.items()}
    return inner if name in NAMED else {**inner, **UNKNOWN}


@asynccontextmanager
async def relay_to(target: str) -> AsyncIterator[tuple[Relay, str]]:
    """The relay and its address."""
    relay = Relay(target)
    server = uvicorn.Server(
        uvicorn.Config(relay, port=0, lifespan="off", log_level="warning", timeout_graceful_shutdown=1, ws="none")
    )
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield relay, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
        await relay.close()

"""Whoever goes away in the middle of a request makes no error of the server: no 500, nothing in its log."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from server.app import App, build
from tests.server import bodies
from tests.server.bodies import BODIES
from tests.server.serving import Served


@asynccontextmanager
async def _loud(caplog: pytest.LogCaptureFixture) -> AsyncIterator[list[str]]:
    found: list[str] = []
    with caplog.at_level(logging.WARNING):
        yield found
    found += [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR]


async def vanish(app: App, method: str, path: str, token: str) -> list[Any]:
    """Send half of a body and be gone. What was answered into the void."""
    coming: Iterator[dict[str, Any]] = iter([{"type": "http.request", "body": b'{"', "more_body": True}])
    answered: list[Any] = []

    async def receive() -> Any:
        return next(coming, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        answered.append(message)

    url = httpx.URL(f"http://server{path}")
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json", "content-length": "100"}
    scope: dict[str, Any] = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": url.path, "raw_path": url.raw_path, "query_string": url.query, "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1), "server": ("server", 80), "extensions": {},
    }  # fmt: skip
    await app(scope, receive, send)
    return answered


async def test_a_caller_who_goes_away_is_no_error_of_the_server(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    app, named = build(served.parts), await bodies.names(served)
    async with _loud(caplog) as loud:
        for method, path in BODIES:
            answered = await vanish(app, method, bodies.filled(path, named), served.admin)
            assert all(one.get("status", 400) < 500 for one in answered), (method, path, answered)
    assert loud == []

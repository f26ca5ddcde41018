"""Real servers on loopback for the tests of edges: uvicorn, wsgiref in threads, and aiohttp's own. All answer what they saw."""

from __future__ import annotations

import asyncio
import contextlib
import socketserver
import threading
import wsgiref.simple_server
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp.web
import msgspec
import rescind
import rescind.aiohttp
import rescind.asgi
import rescind.wsgi
import uvicorn
from msgspec import Struct
from rescind.wire import HEADER

from tests.sdk.conftest import FLAG

FALSE = "production.9.9"
"""What an application at an edge says by itself, as one would that passes replies on."""


class Saw(Struct):
    """What a service saw of a request, and what its flag said."""

    value: bool
    reason: str
    revision: list[str]
    baggage: list[str]


def look(client: rescind.Client | rescind.AsyncClient, headers: Iterable[tuple[str, str]]) -> bytes:
    """What a request sees."""
    told = [(name.lower(), value) for name, value in headers]
    details = client.boolean_details(FLAG, False)
    saw = Saw(
        value=bool(details.value),
        reason=details.reason,
        revision=[value for name, value in told if name == HEADER],
        baggage=[value for name, value in told if name == "baggage"],
    )
    return msgspec.json.encode(saw)


@asynccontextmanager
async def uvicorn_serving(app: Any) -> AsyncIterator[str]:
    """The URL of an ASGI application."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="warning", http="h11"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await serving


class Quiet(wsgiref.simple_server.WSGIRequestHandler):
    """Says nothing on the terminal."""

    def log_message(self, *said: Any) -> None:
        """Not here."""


class Threaded(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    """A thread for each request."""

    daemon_threads = True


@asynccontextmanager
async def wsgiref_serving(app: Any) -> AsyncIterator[str]:
    """The URL of a WSGI application."""
    server = wsgiref.simple_server.make_server("127.0.0.1", 0, app, Threaded, Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        await asyncio.to_thread(thread.join)
        server.server_close()


@asynccontextmanager
async def aiohttp_serving(app: aiohttp.web.Application) -> AsyncIterator[str]:
    """The URL of an aiohttp application."""
    runner = aiohttp.web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serving_asgi(client: rescind.Client | rescind.AsyncClient, **options: Any) -> AsyncIterator[str]:
    """A service behind the ASGI middleware."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen = look(client, [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]])
        told = [(HEADER.encode(), FALSE.encode())] if "trust" in options else []
        await send({"type": "http.response.start", "status": 200, "headers": told})
        await send({"type": "http.response.body", "body": seen})

    async with uvicorn_serving(rescind.asgi.RescindMiddleware(app, client, **options)) as url:
        yield url


@asynccontextmanager
async def serving_wsgi(client: rescind.Client | rescind.AsyncClient, **options: Any) -> AsyncIterator[str]:
    """A service behind the WSGI middleware, its body made while the server asks for it."""

    def app(environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [(HEADER, FALSE)] if "trust" in options else [])
        names = {"HTTP_RESCIND_REVISION": HEADER, "HTTP_BAGGAGE": "baggage"}
        yield look(client, [(name, environ[key]) for key, name in names.items() if key in environ])

    async with wsgiref_serving(rescind.wsgi.RescindMiddleware(app, client, **options)) as url:
        yield url


@asynccontextmanager
async def serving_aiohttp(client: rescind.Client | rescind.AsyncClient, **options: Any) -> AsyncIterator[str]:
    """A service of aiohttp.web."""

    async def handle(request: aiohttp.web.Request) -> aiohttp.web.Response:
        told = {HEADER: FALSE} if "trust" in options else {}
        return aiohttp.web.Response(body=look(client, request.headers.items()), headers=told)

    app = aiohttp.web.Application()
    app.router.add_get("/", handle)
    rescind.aiohttp.setup(app, client, **options)
    async with aiohttp_serving(app) as url:
        yield url


SERVING = {"asgi": serving_asgi, "wsgi": serving_wsgi, "aiohttp": serving_aiohttp}


def cut_off(client: rescind.Client) -> None:
    """Take away the client's stream and leave it its other calls."""

    async def cut() -> None:
        (following,) = (task for task in client.core.tasks if task.get_name() == "Follower.run")
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following

    client.block_on_core(cut())

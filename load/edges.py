"""What the middleware costs a request: microseconds of CPU beside the bare application and beside OpenTelemetry's middleware.

    ./run --group peers python load/edges.py [--requests 20000] [--rounds 9]

Applications are called as a server calls them, without a server: what is left is the middleware. The bare ones give an empty
reply; each figure is the median of the rounds, taken by turns, less that of the bare one. OpenTelemetry's makes spans that go
nowhere.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

from rescind import asgi, wsgi
from rescind.testing import FlagsFixture
from rich.console import Console
from rich.table import Table

try:
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware as AsgiPeer
    from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware as WsgiPeer
    from opentelemetry.sdk.trace import TracerProvider
except ImportError:
    HAS_PEERS = False
else:
    HAS_PEERS = True

Headers = list[tuple[str, str]]
USUAL = [
    ("host", "checkout.internal"),
    ("accept", "*/*"),
    ("accept-encoding", "gzip, deflate"),
    ("user-agent", "python-httpx/0.28.1"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("content-type", "application/json"),
]


async def bare_asgi(scope: Any, receive: Any, send: Any) -> None:
    """An empty reply."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def bare_wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """An empty reply."""
    start_response("200 OK", [])
    return [b""]


async def silence(*_: Any) -> Any:
    """A peer that says and hears nothing."""


def of_asgi(app: Any, headers: Headers, count: int) -> float:
    """Microseconds of CPU for one request."""
    scope = {
        "type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "path": "/", "raw_path": b"/",
        "query_string": b"", "root_path": "", "asgi": {"version": "3.0"}, "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "headers": [(name.encode(), value.encode()) for name, value in headers],
    }  # fmt: skip

    async def run() -> float:
        began = time.thread_time_ns()
        for _ in range(count):
            await app(dict(scope), silence, silence)
        return (time.thread_time_ns() - began) / count / 1000

    return asyncio.run(run())


def of_wsgi(app: Any, headers: Headers, count: int) -> float:
    """The same."""
    environ = {
        "REQUEST_METHOD": "GET", "PATH_INFO": "/", "SCRIPT_NAME": "", "QUERY_STRING": "", "SERVER_NAME": "checkout",
        "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http", "REMOTE_ADDR": "127.0.0.1",
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers},
    }  # fmt: skip
    began = time.thread_time_ns()
    for _ in range(count):
        body = app(dict(environ), answer)
        if close := getattr(body, "close", None):
            close()
    return (time.thread_time_ns() - began) / count / 1000


def answer(status: str, headers: Headers, *error: Any) -> Callable[[bytes], None]:
    """A server's `start_response`."""
    return lambda data: None


def rows(flags: FlagsFixture) -> dict[str, tuple[Any, Any, Headers]]:
    """What is measured: an ASGI and a WSGI application, and the headers of a request."""
    told = f"testing.{flags.client.core.current.revision}"
    carried = [*USUAL, ("rescind-revision", told), ("baggage", f"rescind.rev={told},tenant=blue")]
    client = flags.client
    ours = asgi.RescindMiddleware(bare_asgi, client), wsgi.RescindMiddleware(bare_wsgi, client)
    edge = asgi.RescindMiddleware(bare_asgi, client, trust=False), wsgi.RescindMiddleware(bare_wsgi, client, trust=False)
    found: dict[str, tuple[Any, Any, Headers]] = {
        "bare": (bare_asgi, bare_wsgi, USUAL),
        "Rescind, a request that says nothing": (*ours, USUAL),
        "Rescind, a request with header and baggage": (*ours, carried),
        "Rescind, the same at an edge": (*edge, carried),
    }
    if HAS_PEERS:
        provider = TracerProvider()
        peers = AsgiPeer(bare_asgi, tracer_provider=provider), WsgiPeer(bare_wsgi, tracer_provider=provider)
        found["OpenTelemetry's middleware"] = (*peers, USUAL)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    measured = rows(FlagsFixture({"flag": True}))
    taken: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in measured}
    for _ in range(options.rounds):
        for name, (asgi_app, wsgi_app, headers) in measured.items():
            taken[name][0].append(of_asgi(asgi_app, headers, options.requests))
            taken[name][1].append(of_wsgi(wsgi_app, headers, options.requests))
    show({name: (statistics.median(by_asgi), statistics.median(by_wsgi)) for name, (by_asgi, by_wsgi) in taken.items()})


def show(medians: dict[str, tuple[float, float]]) -> None:
    """A table of what each adds."""
    bare = medians.pop("bare")
    table = Table("µs of CPU added to a request", "ASGI", "WSGI")
    for name, (by_asgi, by_wsgi) in medians.items():
        table.add_row(name, f"{by_asgi - bare[0]:.2f}", f"{by_wsgi - bare[1]:.2f}")
    Console().print(table, f"bare: {bare[0]:.2f} and {bare[1]:.2f} µs", sep="\n")


if __name__ == "__main__":
    main()

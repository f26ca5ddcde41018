"""WSGI middleware that carries the revision across services: one revision per request, on requests and replies (P3).

    app = RescindMiddleware(app, rescind.Client(service="checkout"))

As `rescind.asgi`, for servers with threads or processes, gevent among them. The pin lies in a context of the request's own,
which the body of the reply is made in, too. `trust=False` at the edge of your system.

Use it with `rescind.Client`. An `AsyncClient` does where its loop runs in another thread of the process, as with a WSGI
application inside an ASGI server; in a server without a loop it follows nobody, and cannot catch up: such requests get off
variants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextvars import Context, copy_context
from typing import Any, TypeAlias

from rescind.baggage import without_revision
from rescind.causality import BUDGET_SECONDS
from rescind.client import AsyncClient, Client
from rescind.context import Held
from rescind.crossing import Crossing
from rescind.strip import stripped
from rescind.wire import HEADER

Environ: TypeAlias = dict[str, Any]
StartResponse: TypeAlias = Callable[..., Any]
Application: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]

REVISION_KEY = "HTTP_RESCIND_REVISION"
BAGGAGE_KEY = "HTTP_BAGGAGE"


class RescindMiddleware:
    """Wraps a WSGI application."""

    def __init__(
        self, app: Application, client: Client | AsyncClient, *, trust: bool = True, budget_seconds: float = BUDGET_SECONDS
    ) -> None:
        self._app = app
        self._crossing = Crossing(client, budget_seconds=budget_seconds)
        self._trust = trust

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request, pinned. Raises what the application raises."""
        context = copy_context()
        if not self._trust:
            strip(environ)
        return context.run(self._serve, context, environ, start_response)

    def _serve(self, context: Context, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        held = self._begin(environ)
        try:
            body = self._app(environ, self._telling(held, start_response))
            if not is_ready(body, environ):
                return Body(context, body, lambda: self._crossing.end(held))
        except BaseException:
            self._crossing.end(held)
            raise
        self._crossing.end(held)
        return body

    def _begin(self, environ: Environ) -> Held:
        values, baggage = environ.get(REVISION_KEY), environ.get(BAGGAGE_KEY)
        if not self._trust or not (values or baggage):
            return self._crossing.begin_blocking()
        return self._crossing.begin_blocking([values] if values else [], [baggage] if baggage else [])

    def _telling(self, held: Held, start_response: StartResponse) -> StartResponse:
        def telling(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            if not self._trust:
                headers = stripped(headers)
            elif (value := self._crossing.told(held.pin)) is not None:
                headers = [*headers, (HEADER, value)]
            return start_response(status, headers, *error)

        return telling


class Body:
    """What an application yields, made in the request's context until it is closed."""

    def __init__(self, context: Context, body: Iterable[bytes], end: Callable[[], None]) -> None:
        self._context = context
        self._body = body
        self._end: Callable[[], None] | None = end
        self._parts = iter(body)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return self._context.run(next, self._parts)

    def close(self) -> None:
        """As PEP 3333 asks of servers, whatever became of the reply."""
        end, self._end = self._end, None
        try:
            if (close := getattr(self._body, "close", None)) is not None:
                self._context.run(close)
        finally:
            if end is not None:
                self._context.run(end)


def strip(environ: Environ) -> None:
    """Take away what says a revision: the application does not see it, and cannot pass it on."""
    environ.pop(REVISION_KEY, None)
    if (baggage := environ.pop(BAGGAGE_KEY, None)) and (left := without_revision(baggage)):
        environ[BAGGAGE_KEY] = left


def is_ready(body: Iterable[bytes], environ: Environ) -> bool:
    """Whether the application has nothing more to do for it. Servers have a fast way with a list, and with a file."""
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(body, (list, tuple)) or (isinstance(wrapper, type) and isinstance(body, wrapper))

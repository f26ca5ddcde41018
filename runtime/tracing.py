"""One span per request, and the caller's trace taken on (W3C `traceparent`).

Without an endpoint no span is made, but a trace that came with the request still names the log lines and audit entries of
what it caused. A stream's span ends where its first byte is sent: what follows may last for days.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry import context as contexts
from opentelemetry.trace import Link, SpanKind, Tracer, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from runtime.telemetry import tracer

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PROCESS = tracer()
_propagator = TraceContextTextMapPropagator()


@contextmanager
def continued(name: str, parent: str | None, links: Sequence[str] = (), *, tracer: Tracer = PROCESS) -> Iterator[None]:
    """A span under the context that the header `parent` carries, linked to those that `links` name; none without a parent."""
    if parent is None:
        yield
        return
    contexts_ = [get_current_span(_propagator.extract({"traceparent": one})).get_span_context() for one in links]
    known = [Link(context) for context in contexts_ if context.is_valid]
    with tracer.start_as_current_span(name, context=_propagator.extract({"traceparent": parent}), links=known):
        yield


class TracingMiddleware:
    """Wraps an ASGI application. `enabled` is whether spans go anywhere: whether an endpoint is set."""

    def __init__(self, app: App, *, enabled: bool) -> None:
        self._app = app
        self._enabled = enabled
        self._tracer = tracer()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """The application's own answer where there is nothing to trace: this stands before every request."""
        parent = None
        if scope["type"] == "http":
            for name, value in scope["headers"]:
                if name == b"traceparent":
                    parent = value
                    break
            if self._enabled or parent is not None:
                return self._within(parent, scope, receive, send)
        return self._app(scope, receive, send)

    async def _within(self, parent: bytes | None, scope: Scope, receive: Receive, send: Send) -> None:
        carrier = {} if parent is None else {"traceparent": parent.decode("latin-1")}
        attached = contexts.attach(_propagator.extract(carrier))
        try:
            if self._enabled:
                await self._traced(scope, receive, send)
            else:
                await self._app(scope, receive, send)
        finally:
            contexts.detach(attached)

    async def _traced(self, scope: Scope, receive: Receive, send: Send) -> None:
        attributes = {"http.request.method": scope["method"], "url.path": scope["path"]}
        with self._tracer.start_as_current_span(scope["method"], kind=SpanKind.SERVER, attributes=attributes) as span:

            async def watched(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if any(value.startswith(b"text/event-stream") for _, value in message.get("headers", ())):
                        span.end()
                await send(message)

            await self._app(scope, receive, watched)

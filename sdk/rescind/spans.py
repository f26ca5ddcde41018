"""One trace per saga instance: its context goes with the start, each step goes on in it, and so does its undoing, with a
link to the span of the step (W3C Trace Context).

OpenTelemetry is used where the service has imported it, and never imported here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

TRACER = "rescind"


def traceparent() -> str | None:
    """The context that the caller is in, as the header `traceparent`; None without one."""
    if "opentelemetry.trace" not in sys.modules:
        return None
    carrier: dict[str, str] = {}
    import_module("opentelemetry.trace.propagation.tracecontext").TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


@contextmanager
def continued(parent: str | None, name: str, undoes: Sequence[str] = ()) -> Iterator[None]:
    """A span called `name` under the context that `parent` carries, for as long as this is entered; linked to the spans in
    which what it undoes was done."""
    if (parent is None and not undoes) or "opentelemetry.trace" not in sys.modules:
        yield
        return
    propagator = import_module("opentelemetry.trace.propagation.tracecontext").TraceContextTextMapPropagator()
    api = import_module("opentelemetry.trace")
    done = [api.get_current_span(propagator.extract({"traceparent": one})).get_span_context() for one in undoes]
    links = [api.Link(context) for context in done if context.is_valid]
    context = propagator.extract({"traceparent": parent}) if parent is not None else None
    with api.get_tracer(TRACER).start_as_current_span(name, context=context, links=links):
        yield

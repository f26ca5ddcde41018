"""One trace per saga instance: its context goes with the start, and each step goes on in it (W3C Trace Context).

OpenTelemetry is used where the service has imported it, and never imported here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
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
def continued(parent: str | None, name: str) -> Iterator[None]:
    """A span called `name` under the context that `parent` carries, for as long as this is entered."""
    if parent is None or "opentelemetry.trace" not in sys.modules:
        yield
        return
    propagator = import_module("opentelemetry.trace.propagation.tracecontext").TraceContextTextMapPropagator()
    tracer = import_module("opentelemetry.trace").get_tracer(TRACER)
    with tracer.start_as_current_span(name, context=propagator.extract({"traceparent": parent})):
        yield

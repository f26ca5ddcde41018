"""One trace per saga instance, from its start through its steps to their undoing, which says what it undoes (P20)."""

from __future__ import annotations

import re

import pytest
import rescind
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.sdk.conftest import Site
from tests.sdk.shop import Shop
from tests.sdk.test_sagas import SECONDS, declined, working


@pytest.fixture(scope="module")
def provider() -> TracerProvider:
    """The process's own, which can be set once."""
    provider = TracerProvider()
    trace.set_tracer_provider(provider)
    return provider


def context(span: ReadableSpan) -> trace.SpanContext:
    found = span.get_span_context()
    assert found is not None
    return found


async def test_an_undoing_goes_on_in_its_instances_trace_and_links_to_the_step(site: Site, provider: TracerProvider) -> None:
    exporter, shop = InMemorySpanExporter(), Shop()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    shop.failing["confirm"] = declined
    async with rescind.AsyncClient(**site.options) as client, working(client, shop.saga):
        with provider.get_tracer("shop").start_as_current_span("checkout") as checkout:
            handle = await client.start(shop.saga, id="4711", input={"order_id": "4711"})
        with pytest.raises(rescind.SagaUndone):
            await handle.result(SECONDS)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    ours = {name: span for name, span in spans.items() if re.match(r"(act|undo) order\.", name)}
    assert set(ours) == {
        "act order.reserve", "act order.capture", "act order.confirm", "undo order.capture", "undo order.reserve",
    }  # fmt: skip
    assert {context(span).trace_id for span in ours.values()} == {checkout.get_span_context().trace_id}
    links = {name: [link.context.span_id for link in span.links] for name, span in ours.items() if span.links}
    assert links == {f"undo order.{step}": [context(ours[f"act order.{step}"]).span_id] for step in ("capture", "reserve")}

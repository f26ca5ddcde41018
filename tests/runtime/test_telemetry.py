"""Telemetry: metrics as text, traces and metrics over OTLP to a real listener, logs that name their trace."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import httpx
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from runtime.tracing import TracingMiddleware, continued

ROOT = Path(__file__).parents[2]
TRACE = "0af7651916cd43dd8448eb211c80319c"
SCRIPT = """
import asyncio, logging, sys
import httpx
from runtime.settings import Settings
from runtime.telemetry import Telemetry, counter, histogram, trace_id
from runtime.tracing import TracingMiddleware

early = counter("rescind.early")
early.add(1)
settings = Settings(database_url="postgresql://h", redis_url="redis://h", otlp_endpoint=sys.argv[1] or None)
telemetry = Telemetry.configure("rescind-server", settings)
assert Telemetry.configure("rescind-server", settings) is telemetry
early.add(2, {"kind": "x"})
histogram("rescind.wait").record(0.25)
telemetry.counter("rescind.late").add(1)

async def app(scope, receive, send):
    logging.getLogger("rescind.test").warning("served %s", scope["path"])
    kind = b"text/event-stream" if scope["path"] == "/stream" else b"text/plain"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": (trace_id() or "none").encode()})

async def main():
    traced = TracingMiddleware(app, enabled=settings.otlp_endpoint is not None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=traced), base_url="http://test") as client:
        print((await client.get("/a")).text)
        headers = {"traceparent": "00-TRACE-00f067aa0ba902b7-01"}
        print((await client.get("/stream", headers=headers)).text)
        print((await client.get("/c", headers={"traceparent": "nonsense"})).text)

asyncio.run(main())
try:
    raise KeyError("x")
except KeyError:
    logging.getLogger("rescind.test").exception("it broke")
telemetry.flush()
print(telemetry.prometheus_text().decode())
""".replace("TRACE", TRACE)


def run(endpoint: str) -> tuple[list[str], list[dict[str, str]]]:
    """Run a process with telemetry; return the lines it printed and logged."""
    command = [sys.executable, "-W", "error", "-c", SCRIPT, endpoint]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), [json.loads(line) for line in done.stderr.splitlines()]


class Collector:
    """A listener that speaks OTLP over HTTP and keeps what it received."""

    def __init__(self) -> None:
        self.received: dict[str, list[bytes]] = {}

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b"":
            lines = head.decode().splitlines()
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            body = await reader.readexactly(int(headers["content-length"]))
            self.received.setdefault(lines[0].split()[1], []).append(body)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            await writer.drain()
            break
        writer.close()


async def test_without_an_endpoint_there_are_metrics_and_no_spans():
    printed, logged = await asyncio.to_thread(run, "")
    assert printed[:3] == ["none", TRACE, "none"]
    text = "\n".join(printed)
    assert 'rescind_early_total{kind="x"} 2.0' in text
    assert "rescind_late_total 1.0" in text
    assert "rescind_wait_seconds_count 1.0" in text
    assert [line.get("trace_id") for line in logged if line["message"].startswith("served")] == [None, TRACE, None]


async def test_log_lines_are_json_with_the_error_in_them():
    _, logged = await asyncio.to_thread(run, "")
    broken = logged[-1]
    assert (broken["level"], broken["logger"], broken["message"]) == ("error", "rescind.test", "it broke")
    assert "KeyError: 'x'" in broken["error"]


async def test_traces_and_metrics_reach_an_otlp_endpoint():
    collector = Collector()
    server = await asyncio.start_server(collector, "127.0.0.1", 0)
    printed, logged = await asyncio.to_thread(run, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    server.close()
    await server.wait_closed()
    traces = [ExportTraceServiceRequest.FromString(body) for body in collector.received["/v1/traces"]]
    spans = [
        span for sent in traces for resource in sent.resource_spans for scope in resource.scope_spans for span in scope.spans
    ]
    assert len(spans) == 3
    assert [span.trace_id.hex() for span in spans] == printed[:3]
    assert printed[1] == TRACE
    assert [line["trace_id"] for line in logged if line["message"].startswith("served")] == printed[:3]
    sent = [ExportMetricsServiceRequest.FromString(body) for body in collector.received["/v1/metrics"]]
    names = {m.name for one in sent for r in one.resource_metrics for s in r.scope_metrics for m in s.metrics}
    assert {"rescind.early", "rescind.late", "rescind.wait"} <= names


async def test_an_endpoint_that_is_away_breaks_nothing():
    printed, _ = await asyncio.to_thread(run, "http://127.0.0.1:1")
    assert printed[1] == TRACE


async def test_without_endpoint_and_trace_the_application_is_called_as_it_is():
    seen = []

    async def app(scope, receive, send):
        seen.append(send)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    transport = httpx.ASGITransport(app=TracingMiddleware(app, enabled=False))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/")).status_code == 204
    assert len(seen) == 1


def test_an_undoing_is_a_span_of_its_instances_trace_with_a_link_to_what_it_undoes():
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    step = f"00-{TRACE}-00f067aa0ba902b7-01"
    with (
        continued("undo mail", None, [step]),
        continued("undo mail", step, [step, "nonsense"], tracer=provider.get_tracer("t")),
    ):
        pass
    [span] = exporter.get_finished_spans()
    assert format(span.get_span_context().trace_id, "032x") == TRACE
    assert [format(link.context.span_id, "016x") for link in span.links] == ["00f067aa0ba902b7"]

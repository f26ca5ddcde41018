"""Telemetry through opentelemetry-sdk: metrics for `/metrics`, traces and metrics over OTLP when an endpoint is set, logs.

Rooms name their instruments at import (`counter("rescind.effects.admitted")`) and work with or without a configured process.
Without an endpoint no span is ever made: tracing costs nothing then. Log lines are JSON, one each, and carry the trace they
belong to.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import CollectorRegistry, generate_latest

from runtime.settings import Settings

SCOPE = "rescind"
PROMETHEUS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OTLP_TIMEOUT_SECONDS = 5


def counter(name: str, unit: str = "1") -> metrics.Counter:
    """Return a counter of the process, for example "rescind.kills"."""
    return metrics.get_meter(SCOPE).create_counter(name, unit=unit)


def histogram(name: str, unit: str = "s") -> metrics.Histogram:
    """Return a histogram of the process; durations in seconds."""
    return metrics.get_meter(SCOPE).create_histogram(name, unit=unit)


class Gauge:
    """Values that somebody measures now and then, by their labels: what was measured last, and nothing where nobody does."""

    def __init__(self, name: str, unit: str = "1") -> None:
        self._values: Mapping[tuple[tuple[str, str], ...], float] = {}
        metrics.get_meter(SCOPE).create_observable_gauge(name, [self._observe], unit=unit)

    def set(self, values: Mapping[tuple[tuple[str, str], ...], float]) -> None:
        """Replace everything that was measured before. A key is the value's labels as pairs."""
        self._values = values

    def _observe(self, _: metrics.CallbackOptions) -> Iterable[metrics.Observation]:
        return [metrics.Observation(value, dict(labels)) for labels, value in self._values.items()]


def tracer() -> trace.Tracer:
    """Return the process's tracer."""
    return trace.get_tracer(SCOPE)


def trace_id() -> str | None:
    """Return the current trace's id as 32 hexadecimal digits, or nothing outside a trace."""
    context = trace.get_current_span().get_span_context()
    return format(context.trace_id, "032x") if context.is_valid else None


class JsonLines(logging.Formatter):
    """One JSON object a line: at, level, logger, message, and trace_id, span_id, error where there are such."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            line["trace_id"] = format(context.trace_id, "032x")
            line["span_id"] = format(context.span_id, "016x")
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def configure_logging(level: str) -> None:
    """Send the process's log to standard error as JSON lines. Repeating it changes the level only."""
    root = logging.getLogger()
    root.setLevel(level.upper())
    if not any(isinstance(handler.formatter, JsonLines) for handler in root.handlers):
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonLines())
        root.addHandler(handler)


class Telemetry:
    """The process's telemetry. Instruments made before it was configured report to it as well."""

    _of_process: Telemetry | None = None

    def __init__(self, meters: MeterProvider, tracers: TracerProvider | None, registry: CollectorRegistry) -> None:
        self._meters = meters
        self._tracers = tracers
        self._registry = registry
        self.meter = meters.get_meter(SCOPE)

    @classmethod
    def configure(cls, service_name: str, settings: Settings) -> Telemetry:
        """Set the process up, once: a second call changes the log level only and returns the first's."""
        configure_logging(settings.log_level)
        if cls._of_process is None:
            cls._of_process = cls._build(service_name, settings.otlp_endpoint)
        return cls._of_process

    @classmethod
    def _build(cls, service_name: str, endpoint: str | None) -> Telemetry:
        resource = Resource.create({"service.name": service_name})
        registry = CollectorRegistry()
        readers: list[MetricReader] = [PrometheusMetricReader(registry=registry, scope_info_enabled=False)]
        tracers: TracerProvider | None = None
        if endpoint is not None:
            base = endpoint.rstrip("/")
            exporter = OTLPMetricExporter(endpoint=f"{base}/v1/metrics", timeout=OTLP_TIMEOUT_SECONDS)
            readers.append(PeriodicExportingMetricReader(exporter))
            tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
            spans = OTLPSpanExporter(endpoint=f"{base}/v1/traces", timeout=OTLP_TIMEOUT_SECONDS)
            tracers.add_span_processor(BatchSpanProcessor(spans))
            trace.set_tracer_provider(tracers)
        meters = MeterProvider(metric_readers=readers, resource=resource, shutdown_on_exit=False)
        metrics.set_meter_provider(meters)
        return cls(meters, tracers, registry)

    @property
    def tracer(self) -> trace.Tracer:
        """The process's tracer; makes no spans without an endpoint."""
        return tracer()

    def counter(self, name: str) -> metrics.Counter:
        """Return a counter."""
        return self.meter.create_counter(name)

    def histogram(self, name: str) -> metrics.Histogram:
        """Return a histogram, in seconds."""
        return self.meter.create_histogram(name, unit="s")

    def prometheus_text(self) -> bytes:
        """Return the body of `GET /metrics`, of `PROMETHEUS_CONTENT_TYPE`."""
        return generate_latest(self._registry)

    def flush(self) -> None:
        """Send what is gathered; at the end of a process, bounded by `OTLP_TIMEOUT_SECONDS`."""
        if self._tracers is not None:
            self._tracers.force_flush(OTLP_TIMEOUT_SECONDS * 1000)
            self._meters.force_flush(OTLP_TIMEOUT_SECONDS * 1000)

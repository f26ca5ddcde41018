"""What lies, runs and waits is measured by one process, and shown as OpenTelemetry's own reader reads it (P20)."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from runtime.telemetry import Gauge
from sagas.instances import measures
from sagas.instances.measures import Measures
from sagas.leases import Leases
from tests.sagas.instances.world import CAPTURE, RESERVE, RETRY, Server, World
from tests.waiting import until

COMPENSATION = """
INSERT INTO sagas.compensations (id, environment, rollback_id, kind, action, action_key, definition, definition_version,
    position, state, reason)
SELECT uuidv7(), 'production', r.id, 'mail', 'worker', 'k', 'order', '1', now(), 'waiting', 'refused'
FROM sagas.rollbacks AS r LIMIT 1
"""
HERE = ("environment", "production")


def shown(gauge: Gauge) -> dict[Any, float]:
    """What a reader is given: the labels beside the environment, sorted, and the value."""
    found = gauge._observe(metrics.CallbackOptions())
    return {tuple(sorted(dict(one.attributes or {}).items())): float(one.value) for one in found}


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


async def leased(server: Server) -> bool:
    return server.coordinator.leases.trusted(measures.MEASURED_RANGE)


async def test_what_lies_runs_and_waits_is_measured(world: World, server: Server) -> None:
    boss = [{"name": "boss", "before": "capture", "approval": True}]
    await world.plan({**RESERVE, "retry": {**RETRY, "attempts_max": 1}}, CAPTURE, waits=boss)
    for name in ("lies", "runs", "fails", "holds"):
        await server.begin(name)
    await server.say("holds", "pause")
    [_, task] = [(await server.take(instance=name))[0] for name in ("fails", "runs")]
    assert task.instance == "runs"
    one = Measures(server.pg, world.clock, server.coordinator.leases)
    await until(lambda: leased(server))
    await world.run("UPDATE sagas.ready SET due_at = now() - interval '1 minute'")
    await one.measure()
    order = ("saga", "order")
    number = shown(measures.instances)
    assert number[HERE, order, ("state", "running")] == 2
    assert number[HERE, order, ("state", "paused")] == 1
    assert number[HERE, order, ("state", "due")] == await world.value("SELECT count(*) FROM sagas.ready")
    assert 60 <= shown(measures.queue_age)[HERE, order] < 3_600
    await one.stop()
    assert shown(measures.instances) == shown(measures.queue_age) == {}


async def test_compensations_are_measured_by_kind(world: World, server: Server) -> None:
    await world.plan({**RESERVE, "retry": {**RETRY, "attempts_max": 1}})
    one = Measures(server.pg, world.clock, server.coordinator.leases)
    await until(lambda: leased(server))
    await server.begin("o1", claim=None)
    [task] = await server.take()
    await server.tell(task, "failed", final=True)
    await world.run(COMPENSATION)
    await one.measure()
    found = shown(measures.compensations)
    assert found[HERE, ("kind", "mail"), ("state", "waiting")] == 1
    await world.run("UPDATE sagas.compensations SET state = 'due', due_at = now() - interval '5 minutes'")
    await one.measure()
    assert 300 <= shown(measures.compensation_age)[HERE, ("kind", "mail")] < 3_600
    await one.stop()


async def test_who_does_not_hold_the_first_range_shows_nothing(world: World, server: Server) -> None:
    await world.plan()
    await server.begin("o1")
    await Measures(server.pg, world.clock, Leases(server.pg, world.clock, "another")).measure()
    assert shown(measures.instances) == {}


def test_a_gauge_is_read_by_a_reader_of_opentelemetry(reader: InMemoryMetricReader) -> None:
    provider = MeterProvider([reader])
    gauge = Gauge("rescind.test", "s")
    provider.get_meter("tests").create_observable_gauge("rescind.test", [gauge._observe], unit="s")
    for values in ({(("saga", "a"),): 1.0, (("saga", "b"),): 2.0}, {(("saga", "b"),): 3.0}):
        gauge.set(values)
        data = reader.get_metrics_data()
        assert data is not None
        [metric] = [one for r in data.resource_metrics for scope in r.scope_metrics for one in scope.metrics]
        assert {(("saga", str((p.attributes or {})["saga"])),): p.value for p in metric.data.data_points} == values  # type: ignore[union-attr]


async def test_who_waits_for_others_and_what_is_looked_up_is_measured(world: World, server: Server) -> None:
    doubted = {**RESERVE, "act": {"retry": RETRY, "in_doubt": "look_up"}}
    await world.plan(doubted, CAPTURE, ordered_by_subject=True)
    for name in ("first", "second", "third"):
        await server.begin(name, subject="anna")
    [task] = await server.take()
    await server.tell(task, "unknown")
    one = Measures(server.pg, world.clock, server.coordinator.leases)
    await until(lambda: leased(server))
    await one.measure()
    number, order = shown(measures.instances), ("saga", "order")
    assert (number[HERE, order, ("state", "in_line")], number[HERE, order, ("state", "in_doubt")]) == (2, 1)
    await one.stop()

"""What lies, runs and waits, as gauges for `/metrics`: per saga for instances, per kind for compensations (P20).

One process measures, the one that leases the first range; the others show nothing, so that a sum over all of them is right. A
count stops at `COUNTED_MAX` rows: an alarm needs no more.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from asyncpg import Record

from runtime.background import Background
from runtime.clock import Clock
from runtime.postgres import Postgres
from runtime.queries import Queries
from runtime.telemetry import Gauge, counter
from sagas.leases import Leases

QUERIES = Queries.load("sagas", "measures")
EVERY_SECONDS = 10.0
COUNTED_MAX = 100_000
MEASURED_RANGE = 0

log = logging.getLogger("rescind.measures")
survived = counter("rescind.measures.errors")
instances = Gauge("rescind.instances")
queue_age = Gauge("rescind.instances.queue_age", "s")
compensations = Gauge("rescind.compensations")
compensation_age = Gauge("rescind.compensations.queue_age", "s")

Values = Mapping[tuple[tuple[str, str], ...], float]


class Measures(Background):
    """One per process, beside its coordinator."""

    def __init__(self, pg: Postgres, clock: Clock, leases: Leases) -> None:
        self._pg = pg
        self._clock = clock
        self._leases = leases

    async def stop(self) -> None:
        """Measure no more, and show nothing."""
        await super().stop()
        show({}, {}, {}, {})

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            try:
                await self.measure()
            except Exception as error:
                survived.add(1)
                show({}, {}, {}, {})
                log.warning("nothing was measured: %s: %s", type(error).__name__, error)
            await self._clock.sleep(EVERY_SECONDS)

    async def measure(self) -> None:
        """Measure once, where it is this process's turn."""
        if not self._leases.trusted(MEASURED_RANGE):
            show({}, {}, {}, {})
            return
        async with self._pg.connection() as connection:
            queue = await connection.fetch(QUERIES.queue, COUNTED_MAX)
            standing = await connection.fetch(QUERIES.standing, COUNTED_MAX)
            asked = await connection.fetch(QUERIES.look_ups, COUNTED_MAX)
            undoing = await connection.fetch(QUERIES.compensations, COUNTED_MAX)
        due = {(*_where(row, "saga"), ("state", "due")): float(row["due"]) for row in queue}
        ages = {_where(row, "saga"): row["age_seconds"] for row in queue}
        of_kinds = {_where(row, "kind"): row["age_seconds"] for row in undoing if row["state"] == "due"}
        show({**due, **_numbers([*standing, *asked], "saga")}, ages, _numbers(undoing, "kind"), of_kinds)


def show(number: Values, age: Values, undoings: Values, undoing_age: Values) -> None:
    """Replace what `/metrics` shows."""
    instances.set(number)
    queue_age.set(age)
    compensations.set(undoings)
    compensation_age.set(undoing_age)


def _where(row: Record, what: str) -> tuple[tuple[str, str], ...]:
    return ("environment", row["environment"]), (what, row[what])


def _numbers(rows: Iterable[Record], what: str) -> Values:
    return {(*_where(row, what), ("state", row["state"])): float(row["number"]) for row in rows}

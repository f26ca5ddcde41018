"""Paces of steps (P17): which of the steps that are to begin may, under the rows of their paces; unpaced ones ask nothing.

A step is paced per kind and connection of what undoes it, over all workers, in limits of its own beside those of its undoing.
What is held back lies ready for later, spread at the rate at which it may begin, so that waiting costs the same however many
wait.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from runtime.postgres import Connection
from runtime.queries import Queries
from sagas.catalogue import connection_of
from sagas.core.pacing import BURST_SECONDS, UNLIMITED, Limits, allowance, cost_seconds, spacing_seconds, tighter
from sagas.instances.admitting import Admission, Admitted, Wish
from sagas.instances.rows import columns

QUERIES = Queries.load("sagas", "paces")
DEFER_SECONDS_MAX = 60.0
ACTS = "act/"
"""Before the connection's name, which holds no slash: a step's pace is not that of its undoing."""
Place = tuple[str, str, str]
"""Environment, kind, and connection."""


class Held(Struct):
    """A pace whose row is held by this transaction."""

    limits: Limits
    left: int = 0
    tries_in_seconds: float = 0.0
    begun: int = 0
    deferred: int = 0


class Paces:
    """Of one flush: `hold`, then `admits` wish by wish, then `spend` what was admitted."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._held: dict[Place, Held] = {}

    async def hold(self, wishes: Sequence[Wish]) -> None:
        """Take the rows of the paces that these steps are under."""
        for wish in wishes:
            limits = limits_of(wish)
            if limits != UNLIMITED:
                place = place_of(wish)
                held = self._held.setdefault(place, Held(limits))
                held.limits = tighter(held.limits, limits)
        if not self._held:
            return
        places = columns(sorted(self._held), 3)
        await self._connection.execute(QUERIES.know, *places)
        rows = await self._connection.fetch(QUERIES.hold, *places)
        await self._connection.execute(QUERIES.free, *places)
        counts = await self._connection.fetch(QUERIES.count_slots, *places)
        running = {(row["environment"], row["kind"], row["connection"]): row["running"] for row in counts}
        for row in rows:
            place = (row["environment"], row["kind"], row["connection"])
            held = self._held[place]
            held.tries_in_seconds = row["tries_in_seconds"]
            held.left = allowance(
                held.limits, running=running.get(place, 0), idle_seconds=row["idle_seconds"], at_most=len(wishes)
            )

    def defers(self, wish: Wish) -> float | None:
        """Null where the step may begin now, else in how many seconds it is to try again."""
        held = self._held.get(place_of(wish)) if self._held else None
        if held is None:
            return None
        if held.left > 0:
            held.left -= 1
            return None
        held.deferred += 1
        return min(held.tries_in_seconds + held.deferred * spacing_seconds(held.limits), DEFER_SECONDS_MAX)

    async def spend(self, wishes: Sequence[Wish], answers: Sequence[Admission]) -> None:
        """Write down what has begun, and until when the next of those that wait try again."""
        if not self._held:
            return
        slots = []
        for wish, answer in zip(wishes, answers, strict=True):
            place = place_of(wish)
            held = self._held.get(place)
            if held is not None and isinstance(answer, Admitted):
                held.begun += 1
                if held.limits.concurrency_max is not None:
                    slots.append((*place, answer.effect_id, answer.token))
        if slots:
            await self._connection.execute(QUERIES.fill, *columns(slots, 5))
        rows = [
            (*place, cost_seconds(held.limits, held.begun), held.deferred * spacing_seconds(held.limits))
            for place, held in sorted(self._held.items(), key=lambda each: each[0])
            if held.begun or held.deferred
        ]
        if rows:
            await self._connection.execute(QUERIES.spend, *columns(rows, 5), BURST_SECONDS, DEFER_SECONDS_MAX)


def limits_of(wish: Wish) -> Limits:
    """What the step's own definition allows."""
    pace = wish.step.act.pace
    return Limits(per_second=pace.per_second, concurrency_max=pace.concurrency_max)


def place_of(wish: Wish) -> Place:
    """What the step's pace is kept for."""
    step = wish.step
    connection = "" if step.compensation is None else connection_of(step.compensation)
    return wish.known.row["environment"], step.kind, ACTS + connection

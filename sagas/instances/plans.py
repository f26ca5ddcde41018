"""Definitions as instances need them: the machine's plan and each step in full; retry and times are tuned beside both."""

from __future__ import annotations

from msgspec import Struct

from runtime.clock import Clock
from runtime.postgres import Connection
from sagas.core.instances import Plan, WaitTerms
from sagas.definitions import SagaDefinition, plan_of, store

FRESH_SECONDS = 5.0
KEPT_MAX = 4_096
Name = tuple[str, str, str]
"""Environment, saga and version."""


class Planned(Struct, frozen=True, kw_only=True):
    """One version of a saga."""

    definition: SagaDefinition
    plan: Plan

    def wait(self, name: str) -> WaitTerms | None:
        """The wait of this name, or null."""
        return next((wait for wait in self.plan.waits if wait.name == name), None)


class Plans:
    """Kept for `FRESH_SECONDS`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[Name, tuple[float, Planned]] = {}

    async def get(self, connection: Connection, name: Name) -> Planned | None:
        """The version, or null where it is not registered."""
        now = self._clock.monotonic()
        kept = self._kept.get(name)
        if kept is not None and now - kept[0] < FRESH_SECONDS:
            return kept[1]
        stored = await store.get(connection, *name)
        if stored is None or not isinstance(definition := stored.definition, SagaDefinition):
            return None
        if len(self._kept) >= KEPT_MAX:
            self._kept.clear()
        planned = Planned(definition=definition, plan=plan_of(definition))
        self._kept[name] = (now, planned)
        return planned

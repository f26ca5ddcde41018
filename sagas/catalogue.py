"""Which definition undoes an effect: pinned to the version it was admitted with (P15), read from the registered documents.

An effect of a saga follows its step in that version of the saga; a loose one, and one whose saga has no such step, follows its
kind. A loose effect that names no version follows the one in force when it was admitted. Retry, timeout and pace are tuned
beside the version, so a document is kept no longer than `FRESH_SECONDS`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from asyncpg import Record
from msgspec import Struct

from runtime.clock import Clock
from runtime.postgres import Connection
from runtime.queries import Queries
from sagas import sealing
from sagas.core.verdicts import Terms
from sagas.definitions import Compensation, Email, KindDefinition, Refund, SagaDefinition, StepDefinition, Webhook, Worker

QUERIES = Queries.load("sagas", "enumeration")
FRESH_SECONDS = 5.0
CACHE_MAX = 4096

Rules = StepDefinition | KindDefinition


class Reference(Struct, frozen=True):
    """Where the rules of an effect stand: a saga's version and step, or a loose kind's version."""

    environment: str
    name: str
    is_kind: bool
    version: str
    step: str | None = None


class Effect(Struct, frozen=True, kw_only=True):
    """An effect as the coordinator judges it."""

    id: UUID
    environment: str
    kind: str
    key: str
    kind_version: str | None
    flag: str
    status: str
    saga: str | None
    saga_version: str | None
    saga_instance: str | None
    step: str | None
    subject: str | None
    payload: Any
    result: Any
    admitted_at: datetime
    completed_at: datetime | None
    owner: UUID | None
    disposition: str | None
    compensation_id: UUID | None
    judge_count: int
    decided_by: str | None
    reason: str | None
    """Why it waits."""
    lease_left_seconds: float
    continues: bool = False
    """Its instance goes on first, by the kill's grant (P8)."""

    @property
    def completion(self) -> datetime:
        """When it was completed; where that was never told, when it was admitted: what followed it, followed that."""
        return self.completed_at or self.admitted_at


def effect_of(connection: Connection, row: Record) -> Effect:
    """An effect from a row of `chunk`, `extension` or `by_id`."""
    opened = sealing.opened(connection.ring, row)
    fields = {name: opened[name] for name in Effect.__struct_fields__}
    fields["judge_count"] = row["judge_count"] or 0
    return Effect(**fields)


class Catalogue:
    """Definitions, cached."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._cache: dict[Reference, tuple[float, SagaDefinition | KindDefinition | None]] = {}
        self._rules: dict[Reference, tuple[float, Rules | None]] = {}
        """With the time at which their definition was read."""

    async def rules_of(self, connection: Connection, effect: Effect) -> tuple[Reference, Rules] | None:
        """The rules that undo the effect and where they stand, or null where nothing is defined."""
        if effect.saga is not None and effect.saga_version is not None and effect.step is not None:
            reference = Reference(effect.environment, effect.saga, False, effect.saga_version, effect.step)
            rules = await self.rules(connection, reference)
            if rules is not None:
                return reference, rules
        version = effect.kind_version
        if version is None:
            row = await connection.fetchrow(QUERIES.definition_then, effect.environment, effect.kind, effect.admitted_at)
            version = None if row is None else row["version"]
        if version is None:
            return None
        reference = Reference(effect.environment, effect.kind, True, version)
        rules = await self.rules(connection, reference)
        return None if rules is None else (reference, rules)

    async def rules(self, connection: Connection, reference: Reference) -> Rules | None:
        """The rules at a reference, or null."""
        kept = self._rules.get(reference)
        if kept is not None and self._clock.monotonic() - kept[0] < FRESH_SECONDS:
            return kept[1]
        whole = msgspec.structs.replace(reference, step=None)
        definition = await self._definition(connection, whole)
        rules = definition.step(reference.step) if isinstance(definition, SagaDefinition) else definition
        if len(self._rules) >= CACHE_MAX:
            self._rules.clear()
        self._rules[reference] = (self._cache[whole][0], rules)
        return rules

    async def needs_approval(self, connection: Connection, effect: Effect, reference: Reference, rules: Rules) -> bool:
        """Whether a person has to agree before this effect's money is given back. An amount that nobody can read is above any
        limit; a currency that has none is below."""
        definition = await self._definition(connection, msgspec.structs.replace(reference, step=None))
        if not isinstance(definition, SagaDefinition) or not definition.approve_above:
            return False
        amount, currency = rules.money(effect.payload) if isinstance(effect.payload, dict) else (None, None)
        if amount is None or currency is None:
            return isinstance(rules.compensation, Refund)
        limit = definition.approve_above.get(currency)
        return limit is not None and amount > limit

    async def _definition(self, connection: Connection, reference: Reference) -> SagaDefinition | KindDefinition | None:
        now = self._clock.monotonic()
        kept = self._cache.get(reference)
        if kept is not None and now - kept[0] < FRESH_SECONDS:
            return kept[1]
        row = await connection.fetchrow(
            QUERIES.definition, reference.environment, reference.name, reference.is_kind, reference.version
        )
        definition: SagaDefinition | KindDefinition | None = None
        if row is not None:
            document = row["document"]
            definition = (
                msgspec.convert(document, KindDefinition) if reference.is_kind else msgspec.convert(document, SagaDefinition)
            )
        if len(self._cache) >= CACHE_MAX:
            self._cache.clear()
        self._cache[reference] = (now, definition)
        return definition


def terms_of(rules: Rules, *, needs_approval: bool = False) -> Terms:
    """What the core needs to know of the rules."""
    return Terms(
        irreversible=rules.step_class == "irreversible",
        has_compensation=rules.compensation is not None,
        has_notice=rules.notice is not None,
        notice_approved=rules.notice_approved,
        needs_approval=needs_approval,
        in_doubt=rules.in_doubt or "wait",
        can_look_up=isinstance(rules.compensation, Refund) or is_looked_up_by_worker(rules),
    )


def is_looked_up_by_worker(rules: Rules) -> bool:
    """Whether the team's own look-up says what became of an effect in doubt; a refund's provider is asked directly."""
    has_own = isinstance(rules, StepDefinition) and rules.act.in_doubt == "look_up"
    return has_own and not isinstance(rules.compensation, Refund)


def action_of(executor: Compensation) -> str:
    """The name under which the executor stands in rows and keys."""
    match executor:
        case Refund():
            return "refund"
        case Email():
            return "email"
        case Webhook():
            return "webhook"
        case Worker():
            return "worker"


def connection_of(executor: Compensation) -> str:
    """The connection the executor names; a worker has none."""
    return "" if isinstance(executor, Worker) else executor.connection

"""Writes down what becomes of effects: one disposition per effect for ever, and the compensations they ask for (P12, P13).

The one place where dispositions and compensations come into being: for the enumeration, for late news and for verdicts on
effects that were in doubt. Whoever finds an effect already taken by another rollback leaves it there: undone once, reported
by both.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import msgspec
from msgspec import Struct

from runtime.clock import Entropy
from runtime.postgres import Connection
from runtime.queries import Queries
from sagas.catalogue import Effect, Reference, Rules, action_of, connection_of
from sagas.core.verdicts import Fate, Verdict
from sagas.definitions import Compensation

QUERIES = Queries.load("sagas", "enumeration")
INFINITY = datetime.max.replace(tzinfo=UTC)


class Judged(Struct, frozen=True, kw_only=True):
    """An effect with the verdict on it and the rules behind the verdict, where there are any."""

    effect: Effect
    verdict: Verdict
    reference: Reference | None = None
    rules: Rules | None = None


class Written(Struct, frozen=True, kw_only=True):
    """What came into being: rollbacks whose coordinator has something to do, whether workers have, and which effects have not
    come to an end, nor to a person, with it."""

    asks_coordinator: frozenset[UUID] = frozenset()
    asks_workers: bool = False
    pending: frozenset[UUID] = frozenset()


class _Disposition(Struct, frozen=True, kw_only=True):
    rollback_id: UUID
    environment: str
    effect_id: UUID
    compensation_id: UUID | None
    kind: str
    saga: str | None
    saga_instance: str | None
    position: datetime
    amount_minor: int | None
    currency: str | None
    merge_key: str | None
    judge_in_seconds: float | None
    state: str
    reason: str | None
    by_whom: str | None


class _Compensation(Struct, frozen=True, kw_only=True):
    rollback_id: UUID
    environment: str
    id: UUID
    kind: str
    action: str
    action_key: str
    merge_key: str | None
    ends_as: str
    definition: str
    definition_is_kind: bool
    definition_version: str
    step: str | None
    connection: str
    subject: str | None
    position: datetime


class Dispositions:
    """The writer. Each method is a part of the caller's transaction."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy

    async def write(
        self, connection: Connection, judged: Sequence[tuple[UUID, Judged]], *, skipped_by: str | None = None
    ) -> Written:
        """Give each effect its disposition under its rollback; `skipped_by` names the person who cancelled the rest."""
        if not judged:
            return Written()
        plan = await self._plan(connection, judged, skipped_by)
        won = {row["effect_id"] for row in await connection.fetch(QUERIES.dispose, *columns(plan.rows))}
        wanted = {row.compensation_id for row in plan.rows if row.effect_id in won}
        created = [compensation for compensation in plan.created if compensation.id in wanted]
        if created:
            await connection.execute(QUERIES.create, *columns(created))
        joined = [(identity, position) for identity, position in plan.joined if identity in wanted]
        if joined:
            await connection.execute(
                QUERIES.extend_merged, [identity for identity, _ in joined], [position for _, position in joined]
            )
        await self._close(connection, [row for row in plan.rows if row.effect_id in won])
        declared = {one.rollback_id for one in created if one.action != "worker"}
        open_ = {row.rollback_id for row in plan.rows if row.judge_in_seconds is not None}
        return Written(
            asks_coordinator=frozenset(declared | open_),
            asks_workers=any(one.action == "worker" for one in created),
            pending=frozenset(row.effect_id for row in plan.rows if row.state == "pending"),
        )

    async def _close(self, connection: Connection, rows: Sequence[_Disposition]) -> None:
        """Say it of the effects that have ended with this."""
        tombstoned = [row.effect_id for row in rows if row.state == "never_happened"]
        if tombstoned:
            await connection.execute(QUERIES.tombstone, tombstoned)
        undone = [row.effect_id for row in rows if row.state in ("irreversible", "skipped")]
        if undone:
            await connection.execute(QUERIES.undone, undone)

    async def _plan(self, connection: Connection, judged: Sequence[tuple[UUID, Judged]], skipped_by: str | None) -> _Plan:
        keys = sorted({key for rollback_id, each in judged if (key := merge_key(rollback_id, each)) is not None})
        rows = await connection.fetch(QUERIES.merged, keys) if keys else []
        plan = _Plan(self._entropy, skipped_by)
        for row in rows:
            plan.knows(row["merge_key"], row["id"] if row["joinable"] else None)
        for rollback_id, each in judged:
            plan.add(rollback_id, each)
        return plan


class _Plan:
    """Rows to write, gathered effect by effect."""

    def __init__(self, entropy: Entropy, skipped_by: str | None) -> None:
        self.rows: list[_Disposition] = []
        self.created: list[_Compensation] = []
        self.joined: list[tuple[UUID, datetime]] = []
        self._entropy = entropy
        self._skipped_by = skipped_by
        self._numbers: dict[str, int] = {}
        self._open: dict[str, UUID] = {}
        self._places: dict[UUID, int] = {}

    def knows(self, key: str, joinable: UUID | None) -> None:
        """There is one merged compensation more under this key."""
        self._numbers[key] = self._numbers.get(key, 0) + 1
        if joinable is not None:
            self._open[key] = joinable

    def add(self, rollback_id: UUID, each: Judged) -> None:
        """The rows of one effect."""
        fate = each.verdict.fate
        if fate is Fate.CONTINUES:
            self._dispose(rollback_id, each, "pending", judge_in_seconds=each.verdict.in_seconds, reason=Fate.CONTINUES)
            return
        if self._skipped_by is not None and fate is not Fate.NEVER_HAPPENED:
            self._dispose(rollback_id, each, "skipped", by_whom=self._skipped_by)
            return
        match fate:
            case Fate.NEVER_HAPPENED:
                self._dispose(rollback_id, each, "never_happened")
            case Fate.UNDETERMINED | Fate.LOOK_UP:
                self._dispose(rollback_id, each, "pending", judge_in_seconds=each.verdict.in_seconds)
            case Fate.WAIT:
                self._dispose(rollback_id, each, "waiting", reason=each.verdict.reason)
            case Fate.IRREVERSIBLE:
                self._dispose(rollback_id, each, "irreversible")
            case Fate.UNDO | Fate.NOTICE:
                self._dispose(rollback_id, each, "pending", compensation_id=self._compensation(rollback_id, each))

    def _dispose(
        self,
        rollback_id: UUID,
        each: Judged,
        state: str,
        *,
        compensation_id: UUID | None = None,
        judge_in_seconds: float | None = None,
        reason: str | None = None,
        by_whom: str | None = None,
    ) -> None:
        effect = each.effect
        amount, currency = each.rules.money(effect.payload) if each.rules and isinstance(effect.payload, dict) else (None, None)
        row = _Disposition(
            rollback_id=rollback_id,
            environment=effect.environment,
            effect_id=effect.id,
            compensation_id=compensation_id,
            kind=effect.kind,
            saga=effect.saga,
            saga_instance=effect.saga_instance,
            position=INFINITY if judge_in_seconds is not None else effect.completion,
            amount_minor=amount,
            currency=currency,
            merge_key=merge_key(rollback_id, each),
            judge_in_seconds=judge_in_seconds,
            state=state,
            reason=reason,
            by_whom=by_whom,
        )
        self.rows.append(row)

    def _compensation(self, rollback_id: UUID, each: Judged) -> UUID:
        assert each.reference is not None
        key = merge_key(rollback_id, each)
        if key is not None and key in self._open:
            self._join(self._open[key], each.effect.completion)
            return self._open[key]
        compensation = self._new(rollback_id, each, each.reference, key)
        if key is not None:
            self._open[key] = compensation.id
            self._places[compensation.id] = len(self.created)
        self.created.append(compensation)
        return compensation.id

    def _join(self, identity: UUID, position: datetime) -> None:
        place = self._places.get(identity)
        if place is None:
            self.joined.append((identity, position))
        elif position > self.created[place].position:
            self.created[place] = msgspec.structs.replace(self.created[place], position=position)

    def _new(self, rollback_id: UUID, each: Judged, reference: Reference, key: str | None) -> _Compensation:
        executor = executor_of(each)
        assert executor is not None
        action = action_of(executor)
        if key is not None:
            self._numbers[key] = self._numbers.get(key, 0) + 1
        return _Compensation(
            rollback_id=rollback_id,
            environment=each.effect.environment,
            id=self._entropy.uuid7(),
            kind=each.effect.kind,
            action=action,
            action_key=f"{each.effect.id}:{action}" if key is None else f"{key}:{self._numbers[key]}",
            merge_key=key,
            ends_as="irreversible" if each.verdict.fate is Fate.NOTICE else "compensated",
            definition=reference.name,
            definition_is_kind=reference.is_kind,
            definition_version=reference.version,
            step=reference.step,
            connection=connection_of(executor),
            subject=each.effect.subject,
            position=each.effect.completion,
        )


def executor_of(judged: Judged) -> Compensation | None:
    """The executor that undoes, or tells of, this effect."""
    if judged.rules is None:
        return None
    return judged.rules.notice if judged.rules.step_class == "irreversible" else judged.rules.compensation


def merge_key(rollback_id: UUID, judged: Judged) -> str | None:
    """The key under which effects of one subject share one compensation, or null where each has its own."""
    executor = executor_of(judged)
    subject = judged.effect.subject
    if executor is None or judged.reference is None or subject is None or getattr(executor, "dedupe_by", None) != "subject":
        return None
    reference = judged.reference
    place = f"{reference.name}@{reference.version}/{reference.step or ''}"
    return f"{rollback_id}:{judged.effect.kind}:{place}:{subject}:{action_of(executor)}"


def columns(rows: Sequence[Struct]) -> list[list[object]]:
    """The rows turned into columns, in the order of the Struct's fields, for `unnest`."""
    return [[getattr(row, name) for row in rows] for name in rows[0].__struct_fields__]

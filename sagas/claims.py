"""Claims: how an attempt begins (P14, P17, hazards 15 and 16).

One transaction finds the rollback running, asks the core which of a window of due compensations may begin, takes their subjects
and what the paces allow, and writes the attempts down, before anything is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from asyncpg import Record
from msgspec import Struct

from runtime.clock import Entropy
from runtime.postgres import Connection
from runtime.queries import Queries
from sagas import sealing
from sagas.breakers import Breakers
from sagas.catalogue import Catalogue, Reference, Rules
from sagas.core.breakers import Hold
from sagas.core.compensation import Guarantee, Reason, Trial, may_begin
from sagas.core.order import Candidate, Choice, Place, Stand, choose, relaxed
from sagas.core.pacing import BURST_SECONDS, UNLIMITED, Limits, allowance, cost_seconds, tighter
from sagas.dispositions import INFINITY
from sagas.executors.outcomes import Subject
from sagas.executors.registry import GUARD_PARTS
from sagas.hands import Hand, WorkerFilter, deal

QUERIES = Queries.load("sagas", "dispatch")
COORDINATOR = Queries.load("sagas", "coordinator")
WINDOW = 256
WINDOW_MIN = 32
LOOKED_FOR_ONE = 4
"""So many are looked at for each that may begin, within those bounds: a few that came free do not weigh hundreds."""
WORKER_WINDOW_MAX = 1_024
"""What is looked at for many hands at once, a quarter more than they take: a part of it waits for its order or its subject."""
PACE_STEP_SECONDS = BURST_SECONDS / 2
MARGIN_SECONDS = 5.0
"""An attempt's lease is the time its executor may take, and this: for the outcome to be written."""

Cursor = tuple[datetime, UUID]


PLACE = ("saga", "saga_instance", "step", "traceparent")
"""What a worker is told of where an effect was done."""


class Attempt(Struct, frozen=True, kw_only=True):
    """A compensation that has begun, with what it undoes."""

    id: UUID
    token: UUID
    environment: str
    rollback_id: UUID
    kind: str
    action: str
    action_key: str
    ends_as: str
    connection: str
    step: str | None
    reference: Reference
    rules: Rules
    effects: list[Subject]
    instances: list[dict[str, Any]]
    reason: str
    incident: str | None
    number: int
    """Of the attempt, counted over the compensation's whole life."""
    trial: Trial
    """Its attempts are counted since a person last said to try again."""
    traceparent: str | None = None
    """Of the saga instance, of the first where it undoes effects of several."""


class Claimed(Struct, frozen=True, kw_only=True):
    """What a claim got. `cursor` null: it has seen everything that is due. `orderly` and `free`: see `Choice`.
    `next_in_seconds`: when something of this window comes due, or the pace may let one more begin."""

    attempts: list[Attempt]
    cursor: Cursor | None
    seen: int
    orderly: int
    free: int
    next_in_seconds: float | None = None


class Handed(Struct, frozen=True, kw_only=True):
    """What each hand got, in the order of the hands. `is_more`: with more room more might have begun."""

    attempts: list[list[Attempt]]
    is_more: bool = False


class _Taker(Struct, frozen=True):
    actor: str
    lease_seconds: float | None = None


def trial_of(row: Record, rules: Rules) -> Trial:
    """The machine's view of a compensation's row."""
    return Trial(
        guarantee=Guarantee(rules.guarantee or Guarantee.AT_LEAST_ONCE),
        attempt=row["attempt"] - row["attempt_base"],
        attempts_max=rules.retry.attempts_max,
        doubtful=row["doubtful"],
        since_first_seconds=row["since_first_seconds"],
        window_seconds=rules.provider_window_seconds,
        age_seconds=None if row["attempt_base"] else rules.retry.age_seconds,
    )


def reference_of(row: Record) -> Reference:
    """Where the rules of a compensation's row stand."""
    return Reference(row["environment"], row["definition"], row["definition_is_kind"], row["definition_version"], row["step"])


class Claims:
    """Each method works inside the caller's transaction."""

    def __init__(
        self,
        catalogue: Catalogue,
        entropy: Entropy,
        *,
        margin_seconds: float = MARGIN_SECONDS,
        breakers: Breakers | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._breakers = breakers
        self._entropy = entropy
        self._margin_seconds = margin_seconds

    async def claim(
        self,
        connection: Connection,
        rollback_id: UUID,
        *,
        actor: str,
        limit: int,
        after: Cursor | None = None,
        relax: bool = False,
    ) -> Claimed | None:
        """Begin up to `limit` attempts out of the next window. Null when the rollback is not running: paused, held or over.

        `relax` opens a circle of merged compensations at one of them; ask for it only when nothing else can ever begin.
        """
        await connection.execute(COORDINATOR.at_work, rollback_id)
        if await connection.fetchval(COORDINATOR.running, rollback_id) is None:
            return None
        at, identity = after or (None, None)
        window = min(WINDOW, max(WINDOW_MIN, LOOKED_FOR_ONE * limit))
        rows = await connection.fetch(QUERIES.candidates, rollback_id, at, identity, window)
        cursor = (rows[-1]["position"], rows[-1]["id"]) if len(rows) == window else None
        able = await self._able(connection, [row for row in rows if row["due_in_seconds"] <= 0])
        holds = await self._holds(connection, able)
        choice = await self._choose(connection, able, limit, relax, holds)
        attempts = (
            await self._begin(connection, choice, able, lambda count: [_Taker(actor)] * count, holds, relax=relax)
            if choice.chosen
            else []
        )
        waits = [row["due_in_seconds"] for row in rows if row["due_in_seconds"] > 0]
        if choice.free > len(attempts):
            waits.append(_pause_seconds(able, holds))
        soon, seen = min(waits, default=None), len(rows)
        return Claimed(
            attempts=attempts, cursor=cursor, seen=seen, orderly=choice.orderly, free=choice.free, next_in_seconds=soon
        )

    async def hand_out(
        self, connection: Connection, rollbacks: Sequence[UUID], worker: WorkerFilter, hands: Sequence[Hand]
    ) -> Handed:
        """Begin what workers that serve the same may take out of these rollbacks. The caller holds each rollback's lock of
        work, shared: what is paused, held or over is found so, and left."""
        limit = sum(hand.limit for hand in hands)
        window = min(WORKER_WINDOW_MAX, max(WINDOW, limit + limit // 4))
        rows = await connection.fetch(
            QUERIES.worker_candidates, rollbacks, window, worker.saga, list(worker.versions), list(worker.steps)
        )
        able = await self._able(connection, rows)
        holds = await self._holds(connection, able)
        choice = await self._choose(connection, able, limit, False, holds)
        limits = [hand.limit for hand in hands]

        def takers(count: int) -> list[_Taker]:
            return [_Taker(hands[index].actor, hands[index].lease_seconds) for index in deal(count, limits)]

        attempts = await self._begin(connection, choice, able, takers, holds, relax=False) if choice.chosen else []
        dealt: list[list[Attempt]] = [[] for _ in hands]
        for index, attempt in zip(deal(len(attempts), limits), attempts, strict=True):
            dealt[index].append(attempt)
        return Handed(attempts=dealt, is_more=bool(attempts) and choice.free > len(attempts) >= limit)

    async def _able(self, connection: Connection, rows: Sequence[Record]) -> dict[UUID, tuple[Record, Rules]]:
        """The rows that may begin by themselves; the provider's window has passed for the others, and a person decides."""
        able: dict[UUID, tuple[Record, Rules]] = {}
        expired: list[UUID] = []
        for row in rows:
            rules = await self._catalogue.rules(connection, reference_of(row))
            if rules is not None and may_begin(trial_of(row, rules)):
                able[row["id"]] = (row, rules)
            else:
                expired.append(row["id"])
        if expired:
            ids = [row["id"] for row in await connection.fetch(QUERIES.expire, expired, Reason.WINDOW_PASSED)]
            await connection.execute(QUERIES.follow, ids)
        return able

    async def _holds(self, connection: Connection, able: dict[UUID, tuple[Record, Rules]]) -> dict[tuple[str, str], Hold]:
        """The open breakers of these, held by this transaction."""
        if self._breakers is None or not able:
            return {}
        return await self._breakers.holds(connection, {(row["environment"], row["kind"]) for row, _ in able.values()})

    async def _choose(
        self,
        connection: Connection,
        able: dict[UUID, tuple[Record, Rules]],
        limit: int,
        relax: bool,
        holds: dict[tuple[str, str], Hold],
    ) -> Choice:
        if not able:
            return Choice(chosen=[])
        candidates = [_candidate(row) for row, _ in able.values()]
        stands = [_stand(row) for row in await connection.fetch(QUERIES.stands, list(able))]
        if relax:
            one = relaxed(candidates, stands)
            return Choice(chosen=[one] if one else [])
        allowances = await self._allowances(connection, able, limit)
        environment = next(iter(able.values()))[0]["environment"]
        for place in sorted(allowances):
            if hold := holds.get((environment, place[0])):
                allowances[place] = min(allowances[place], hold.left)
                hold.left -= allowances[place]
        return choose(candidates, stands, allowances=allowances, limit=limit)

    async def _allowances(self, connection: Connection, able: dict[UUID, tuple[Record, Rules]], limit: int) -> dict[Place, int]:
        limits = limits_of(able)
        paced = sorted(place for place, limit_ in limits.items() if limit_ != UNLIMITED)
        allowances = dict.fromkeys(limits, limit)
        if not paced:
            return allowances
        environment = next(iter(able.values()))[0]["environment"]
        kinds, connections = [kind for kind, _ in paced], [name for _, name in paced]
        await connection.execute(QUERIES.know_paces, environment, kinds, connections)
        idle = {
            (row["kind"], row["connection"]): row["idle_seconds"]
            for row in await connection.fetch(QUERIES.hold_paces, environment, kinds, connections)
        }
        rows = await connection.fetch(QUERIES.count_running, environment, kinds)
        running = {(row["kind"], row["connection"]): row["running"] for row in rows}
        for place in paced:
            allowances[place] = allowance(
                limits[place], running=running.get(place, 0), idle_seconds=idle.get(place, 0.0), at_most=limit
            )
        return allowances

    async def _begin(
        self,
        connection: Connection,
        choice: Choice,
        able: dict[UUID, tuple[Record, Rules]],
        takers: Callable[[int], Sequence[_Taker]],
        holds: dict[tuple[str, str], Hold],
        *,
        relax: bool,
    ) -> list[Attempt]:
        """Begin what of the chosen nobody else is at, each in the hands of its taker; in the order of the choice."""
        environment = able[choice.chosen[0].id][0]["environment"]
        chosen = await self._taken(connection, environment, choice.chosen)
        if not chosen:
            return []
        await self._spend(connection, environment, chosen, limits_of(able))
        whose = takers(len(chosen))
        begun = await connection.fetch(
            QUERIES.begin,
            [each.id for each in chosen],
            [self._entropy.uuid7() for _ in chosen],
            [
                taker.lease_seconds or able[each.id][1].timeout_seconds * GUARD_PARTS + self._margin_seconds
                for each, taker in zip(chosen, whose, strict=True)
            ],
            [relax] * len(chosen),
            [taker.actor for taker in whose],
        )
        if holds and begun and self._breakers is not None:
            await self._breakers.probe(connection, {(row["environment"], row["kind"]) for row in begun} & holds.keys())
        attempts = {attempt.id: attempt for attempt in await self._attempts(connection, begun, able)}
        return [attempts[each.id] for each in chosen if each.id in attempts]

    async def _taken(self, connection: Connection, environment: str, chosen: Sequence[Candidate]) -> list[Candidate]:
        """Those that are still due, locked, with their subjects."""
        locked = {row["id"] for row in await connection.fetch(QUERIES.lock_due, [each.id for each in chosen])}
        chosen = [each for each in chosen if each.id in locked]
        of_subjects = [each for each in chosen if each.subject is not None]
        if not of_subjects:
            return chosen
        rows = await connection.fetch(
            QUERIES.take_subjects, environment, [each.subject for each in of_subjects], [each.id for each in of_subjects]
        )
        taken = {row["compensation_id"] for row in rows}
        return [each for each in chosen if each.subject is None or each.id in taken]

    async def _spend(
        self, connection: Connection, environment: str, chosen: Sequence[Candidate], limits: dict[Place, Limits]
    ) -> None:
        counts: dict[Place, int] = {}
        for each in chosen:
            counts[each.place] = counts.get(each.place, 0) + 1
        costs = {place: cost_seconds(limits[place], count) for place, count in sorted(counts.items())}
        costly = {place: cost for place, cost in costs.items() if cost > 0}
        if costly:
            kinds, connections = [kind for kind, _ in costly], [name for _, name in costly]
            await connection.execute(QUERIES.spend, environment, kinds, connections, list(costly.values()), BURST_SECONDS)

    async def _attempts(
        self, connection: Connection, begun: Sequence[Record], able: dict[UUID, tuple[Record, Rules]]
    ) -> list[Attempt]:
        ids = [row["id"] for row in begun]
        effects: dict[UUID, list[dict[str, Any]]] = {}
        for row in await connection.fetch(QUERIES.effects_of, ids):
            effect = sealing.opened(connection.ring, {**row, "environment": begun[0]["environment"]})
            effects.setdefault(row["compensation_id"], []).append(effect)
        rollbacks = {
            row["id"]: row for row in await connection.fetch(QUERIES.rollbacks_of, [row["rollback_id"] for row in begun])
        }
        return [_attempt(row, able[row["id"]][1], effects.get(row["id"], []), rollbacks[row["rollback_id"]]) for row in begun]


def _pause_seconds(able: dict[UUID, tuple[Record, Rules]], holds: dict[tuple[str, str], Hold]) -> float:
    """When to look again for what might begin: soon for a pace, later where breakers hold all of it back."""
    held = [holds.get((row["environment"], row["kind"])) for row, _ in able.values()]
    return PACE_STEP_SECONDS if None in held else min(hold.in_seconds for hold in held if hold is not None)


def limits_of(able: dict[UUID, tuple[Record, Rules]]) -> dict[Place, Limits]:
    """The limits of each place among these; where versions differ, the tighter ones."""
    limits: dict[Place, Limits] = {}
    seen: set[tuple[Place, int]] = set()
    for row, rules in able.values():
        place = (row["kind"], row["connection"])
        if (place, id(rules)) in seen:
            continue
        seen.add((place, id(rules)))
        known = limits.get(place, UNLIMITED)
        own = Limits(per_second=rules.pace.per_second, concurrency_max=rules.pace.concurrency_max)
        limits[place] = tighter(known, own)
    return limits


def _candidate(row: Record) -> Candidate:
    merged, is_open, is_busy = row["merged"], row["is_open"], row["is_busy"]
    place = (row["kind"], row["connection"])
    return Candidate(id=row["id"], place=place, subject=row["subject"], merged=merged, is_open=is_open, is_busy=is_busy)


def _stand(row: Record) -> Stand:
    position: datetime = row["position"]
    if position.tzinfo is None:  # asyncpg reads 'infinity', an effect that is not determined yet, without a zone
        position = INFINITY
    return Stand(instance=(row["saga"], row["saga_instance"]), position=position, compensation_id=row["compensation_id"])


def _attempt(row: Record, rules: Rules, effects: Sequence[Mapping[str, Any]], rollback: Record) -> Attempt:
    return Attempt(
        id=row["id"],
        token=row["token"],
        environment=row["environment"],
        rollback_id=row["rollback_id"],
        kind=row["kind"],
        action=row["action"],
        action_key=row["action_key"],
        ends_as=row["ends_as"],
        connection=row["connection"],
        step=row["step"],
        reference=reference_of(row),
        rules=rules,
        effects=[Subject(**{name: each[name] for name in Subject.__struct_fields__}) for each in effects],
        instances=[{name: each[name] for name in PLACE} for each in effects],
        traceparent=next((each["instance_traceparent"] for each in effects if each["instance_traceparent"]), None),
        reason=rollback["reason"],
        incident=rollback["incident"],
        number=row["attempt"],
        trial=trial_of(row, rules),
    )

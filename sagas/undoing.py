"""Undoing by workers in groups: what they report and what they take next, of every rollback in one transaction (P13 to P15).

What queued while the last group was written is the next one, as the ledger admits and the engine turns (docs/decisions/0030). A
group records outcomes, each by its attempt's own token; says of instances that they are undone; and begins what came free, for
whoever asks in it. Locks: compensations by id, instances that nobody is at, rollbacks' locks of work, then as a claim's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any
from uuid import UUID

from asyncpg import Record
from msgspec import Struct
from rescind.wire import TaskClaim, TaskReport

from runtime.clock import Clock, Entropy
from runtime.postgres import Connection, Postgres, transaction_on
from runtime.queries import Queries
from runtime.tokens import Principal
from sagas import store
from sagas.breakers import Breakers
from sagas.catalogue import Catalogue
from sagas.claims import Attempt, Claims, reference_of, trial_of
from sagas.conclusions import conclude
from sagas.executors.outcomes import Done, Doubt, NotYet, Outcome, plain
from sagas.hands import Hand, WorkerFilter
from sagas.ledger.groups import Groups
from sagas.outcomes import STALL_MS, WRITE_MS, Ended, ended, record, told

QUERIES = Queries.load("sagas", "tasks")
WRITERS = 1
TURNS_MAX = 128
LIMITS = f"SET LOCAL idle_in_transaction_session_timeout = {STALL_MS}; SET LOCAL transaction_timeout = {WRITE_MS}"
"""A writer that stalls inside its transaction is cut off, and holds up nobody for longer."""
Key = tuple[UUID, UUID]
"""A compensation and an attempt's token."""
Place = tuple[str, str]
"""Environment and saga."""


class Turn(Struct, frozen=True, kw_only=True, eq=False):
    """What one request has to say of undoing. Reports of sagas that its worker may not work for are `lost`."""

    environment: str
    principal: Principal | None
    worker: str
    reports: Sequence[TaskReport] = ()
    claim: TaskClaim | None = None


class Answer(Struct, kw_only=True):
    """`results`: `recorded` or `lost` of each report, in order."""

    results: list[str] = []
    attempts: list[Attempt] = []


class Undoing:
    """One per process. `on_news` is called after a commit: with whether more lies ready, and whether an instance ended."""

    def __init__(
        self,
        pg: Postgres,
        clock: Clock,
        entropy: Entropy,
        breakers: Breakers,
        *,
        on_news: Callable[[bool, bool], None],
        writers: int = WRITERS,
    ) -> None:
        self._pg = pg
        self._entropy = entropy
        self._breakers = breakers
        self._on_news = on_news
        self._writers = writers
        self._catalogue = Catalogue(clock)
        self._claims = Claims(self._catalogue, entropy, breakers=breakers)
        self._groups: Groups[Turn, Answer] = Groups("undoing", self._open, self._flush, id, size_max=TURNS_MAX)

    async def start(self) -> None:
        """Begin to take turns."""
        self._groups.start(self._writers)

    async def stop(self) -> None:
        """Finish what is queued, within moments."""
        await self._groups.stop()

    async def turn(self, turn: Turn) -> Answer:
        """Take one turn. Raises `Unavailable` (nothing was done) or `OutcomeUnknown`; every turn may be repeated."""
        [answer] = await self._groups.submit([turn])
        return answer

    async def _open(self) -> Connection:
        connection = await self._pg.dedicated()
        await store.prefer_indexes(connection)
        return connection

    async def _flush(self, connection: Connection, turns: Sequence[Turn]) -> list[Answer]:
        answers, hands = [Answer() for _ in turns], _hands(turns)
        ends: list[Ended] = []
        freed: set[Place] = set()
        has_ended = is_more = False
        async with transaction_on(connection, LIMITS):
            if any(turn.reports for turn in turns):
                ends, freed, has_ended = await self._record(connection, turns, answers)
            for worker, indices in hands.items():
                is_more |= await self._hand_out(connection, worker, indices, turns, answers)
            is_more |= not freed <= {(worker.environment, worker.saga) for worker in hands}
            if is_more:
                await connection.execute(QUERIES.ring_workers)
        await self._breakers.tell(lambda: nullcontext(connection), told(ends))
        if is_more or has_ended:
            self._on_news(is_more, has_ended)
        return answers

    async def _record(
        self, connection: Connection, turns: Sequence[Turn], answers: Sequence[Answer]
    ) -> tuple[list[Ended], set[Place], bool]:
        """Write down how attempts ended. Returns the ends, where others may have come free, and whether an instance ended."""
        named = [[_key(report) for report in turn.reports] for turn in turns]
        held = await self._held(connection, turns, named)
        ends: dict[Key, Ended] = {}
        for turn, keys in zip(turns, named, strict=True):
            for key, report in zip(keys, turn.reports, strict=True):
                if key is not None and key not in ends and _may(turn, held.get(key)):
                    ends[key] = await self._ended(connection, held[key], report)
        won = await record(connection, list(ends.values())) if ends else set()
        for turn, keys, answer in zip(turns, named, answers, strict=True):
            answer.results = ["recorded" if key in ends and key[0] in won and _may(turn, held[key]) else "lost" for key in keys]
        await self._note_lost(connection, turns, named, ends)
        rows = [held[key] for key in ends if key[0] in won]
        has_ended = await conclude(connection, (row["id"] for row in rows if row["carries"] == "instances"))
        await connection.execute(QUERIES.ring, sorted({row["rollback_id"] for row in rows}))
        return list(ends.values()), {(row["environment"], row["definition"]) for row in rows}, has_ended

    async def _held(
        self, connection: Connection, turns: Sequence[Turn], named: Sequence[Sequence[Key | None]]
    ) -> dict[Key, Record]:
        """The attempts that are known by these tokens."""
        keys = sorted({key for keys in named for key in keys if key is not None})
        rows = await connection.fetch(QUERIES.held, [key[0] for key in keys], [key[1] for key in keys]) if keys else []
        return {(row["id"], row["token"]): row for row in rows}

    async def _ended(self, connection: Connection, row: Record, report: TaskReport) -> Ended:
        rules = await self._catalogue.rules(connection, reference_of(row))
        assert rules is not None, "definitions are never deleted"
        chance = self._entropy.random()
        trial = trial_of(row, rules)
        place = {"chance": chance, "environment": row["environment"]}
        return ended(row["id"], row["token"], row["attempt"], trial, rules, _outcome(report), **place)

    async def _note_lost(
        self,
        connection: Connection,
        turns: Sequence[Turn],
        named: Sequence[Sequence[Key | None]],
        ends: dict[Key, Ended],
    ) -> None:
        """What belongs to no attempt that counts is kept as evidence."""
        known = {key[0] for key in ends}
        lost = [
            (turn.worker, identity, plain(report))
            for turn, keys in zip(turns, named, strict=True)
            for key, report in zip(keys, turn.reports, strict=True)
            if (identity := key[0] if key is not None else None) is not None and identity not in known
        ]
        if lost:
            await connection.execute(QUERIES.note_late, *(list(column) for column in zip(*lost, strict=True)))

    async def _hand_out(
        self,
        connection: Connection,
        worker: WorkerFilter,
        indices: Sequence[int],
        turns: Sequence[Turn],
        answers: Sequence[Answer],
    ) -> bool:
        """Begin what workers that serve the same can take. Returns whether there is more."""
        place = (worker.environment, worker.saga, list(worker.versions), list(worker.steps))
        rollbacks = [row["id"] for row in await connection.fetch(QUERIES.running_rollbacks, *place)]
        if not rollbacks:
            return False
        await connection.execute(QUERIES.at_work, rollbacks)
        hands = [
            Hand(actor=claim.worker, limit=claim.limit, lease_seconds=claim.lease_seconds)
            for index in indices
            if (claim := turns[index].claim) is not None
        ]
        handed = await self._claims.hand_out(connection, rollbacks, worker, hands)
        for index, attempts in zip(indices, handed.attempts, strict=True):
            answers[index].attempts = attempts
        return handed.is_more


def _hands(turns: Sequence[Turn]) -> dict[WorkerFilter, list[int]]:
    """The turns that take, by what they serve; those that brought news first."""
    hands: dict[WorkerFilter, list[int]] = {}
    for index in sorted(range(len(turns)), key=lambda one: not turns[one].reports):
        claim = turns[index].claim
        if claim is not None and claim.limit > 0 and claim.steps:
            served = WorkerFilter(
                turns[index].environment, claim.saga, tuple(sorted(set(claim.versions))), tuple(sorted(set(claim.steps)))
            )
            hands.setdefault(served, []).append(index)
    return hands


def _may(turn: Turn, row: Record | None) -> bool:
    """Whether this worker may say how the attempt ended."""
    return (
        row is not None
        and turn.principal is not None
        and row["environment"] == turn.environment
        and turn.principal.allows(f"work:{row['definition']}", turn.environment)
    )


def _outcome(report: TaskReport) -> Outcome:
    match report.outcome:
        case "succeeded":
            return Done(proof={"proof": report.proof})
        case "failed" | "not_started":
            return NotYet(error=plain(report.error))
        case "unknown":
            return Doubt(evidence={"error": report.error})


def _key(report: TaskReport) -> Key | None:
    identity, token = uuid_of(report.id), uuid_of(report.token)
    return None if identity is None or token is None else (identity, token)


def uuid_of(text: Any) -> UUID | None:
    """An id as it is sent, null where it is none."""
    try:
        return UUID(text)
    except ValueError:
        return None

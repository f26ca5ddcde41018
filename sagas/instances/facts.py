"""What is known of instances, as the core reads it: their effects by step, and what was said (P10, P16)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from asyncpg import Record
from msgspec import Struct

from runtime.postgres import Connection
from sagas.core.instances import Facts, StepFact
from sagas.instances.rows import QUERIES

OF_TIME_ORDER = 7
"""The version of ids that admissions have; a second effect beside the first has another (hazard 2)."""
ENDS = {"event": "ended", "approved": "ended", "refused": "refused", "deadline": "deadline", "ended": "ended"}


class Known(Struct, frozen=True, kw_only=True):
    """One instance: its row, locked, what was done under it, and what the core needs."""

    row: Mapping[str, Any]
    effects: list[Record]
    by_step: dict[str, Record]
    """Of each step the present generation of its key."""
    facts: Facts
    is_watched: bool = False
    """Whether a coordinator looks at it."""

    @property
    def results(self) -> dict[str, Any]:
        """What the steps that succeeded gave back."""
        return {step: effect["result"] for step, effect in self.by_step.items() if effect["status"] == "succeeded"}

    @property
    def is_claimed(self) -> bool:
        """Whether the rollback of a kill has taken something of it. What provably never happened leaves it as it was."""
        return any(
            effect["carries"] == "kill" and (effect["disposition"], effect["status"]) != ("never_happened", "failed")
            for effect in self.effects
        )


async def load(connection: Connection, rows: Sequence[Mapping[str, Any]], new: frozenset[UUID]) -> list[Known]:
    """What is known of these instances; of those begun in this very transaction nothing is."""
    old = [row for row in rows if row["uid"] not in new]
    said: dict[UUID, Record] = {}
    effects: dict[UUID, list[Record]] = {}
    if old:
        names = [[row[name] for row in old] for name in ("uid", "environment", "saga", "id")]
        for found in await connection.fetch(QUERIES.known, *names):
            said[found["uid"]] = found
            if found["id"] is not None:
                effects.setdefault(found["uid"], []).append(found)
    return [known(row, effects.get(row["uid"], []), said.get(row["uid"])) for row in rows]


def known(row: Mapping[str, Any], effects: list[Record], said: Record | None) -> Known:
    """One instance, from its rows."""
    by_step: dict[str, Record] = {}
    earlier: dict[str, int] = {}
    for effect in effects:
        step = effect["step"]
        before = by_step.get(step)
        if step is None or (before is not None and effect["id"].version != OF_TIME_ORDER):
            continue
        if before is not None and effect["generation"] > before["generation"]:
            earlier[step] = earlier.get(step, 0) + before["attempt"]
        by_step[step] = effect
    facts: list[list[Any]] = (said and said["facts"]) or []
    ended: dict[str, str] = {}
    for fact, name, _ in facts:
        if fact in ENDS:
            ended.setdefault(name, ENDS[fact])
    return Known(
        row=row,
        effects=effects,
        by_step=by_step,
        is_watched=bool(said and said["is_watched"]),
        facts=Facts(
            steps={step: _step(effect, earlier.get(step, 0)) for step, effect in by_step.items()},
            queued=frozenset((said and said["queued"]) or ()),
            waits_standing=frozenset((said and said["waits"]) or ()),
            waits_ended=ended,
            cancelled=any(fact == "cancel" for fact, _, _ in facts),
            paused=row["paused"],
            skipped=frozenset(name for fact, name, _ in facts if fact == "skip"),
            retry_base={name: int(attempts or 0) for fact, name, attempts in facts if fact == "retry"},
            taken_over=any(fact == "taken_over" for fact, _, _ in facts),
            is_undoing=row["turned_back"],
        ),
    )


def _step(effect: Record, earlier: int) -> StepFact:
    error = effect["error"]
    return StepFact(
        status=effect["status"],
        attempt=effect["attempt"] + earlier,
        is_final=isinstance(error, dict) and error.get("final") is True,
        is_leased=effect["is_leased"],
        since_first_seconds=max(0.0, effect["since_first_seconds"]),
        looking="in_vain",
    )

"""What is known of instances, as the core reads it: their effects by step, and what was said (P10, P16)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from msgspec import Struct

from runtime.postgres import Connection
from runtime.sealing import Ring
from sagas import sealing
from sagas.core.effects import GIVEN_BACK_CODE
from sagas.core.instances import Facts, StepFact
from sagas.core.stops import Grant
from sagas.instances.rows import QUERIES

OF_TIME_ORDER = 7
"""The version of ids that admissions have; a second effect beside the first has another (hazard 2)."""
ENDS = {"event": "ended", "approved": "ended", "refused": "refused", "deadline": "deadline", "ended": "ended"}


class Known(Struct, frozen=True, kw_only=True):
    """One instance: its row, locked, what was done under it, and what the core needs."""

    row: Mapping[str, Any]
    effects: list[dict[str, Any]]
    by_step: dict[str, dict[str, Any]]
    """Of each step the present generation of its key."""
    facts: Facts
    events: Mapping[str, Any] = {}
    """What the events brought that ended a wait."""
    is_watched: bool = False
    """Whether a coordinator looks at it."""
    has_line: bool = False
    """Whether it stands in the line of its subject."""
    is_lifted: bool = False
    """Whether a kill had stopped it, and it goes on now."""
    grant: Grant | None = None
    """Under which it goes on although it is killed (P8)."""

    @property
    def results(self) -> dict[str, Any]:
        """What the steps that succeeded gave back."""
        return {step: effect["result"] for step, effect in self.by_step.items() if effect["status"] == "succeeded"}


async def load(connection: Connection, rows: Sequence[Mapping[str, Any]], new: frozenset[UUID]) -> list[Known]:
    """What is known of these instances; of those begun in this very transaction nothing is."""
    old = [row for row in rows if row["uid"] not in new]
    said: dict[UUID, Mapping[str, Any]] = {}
    effects: dict[UUID, list[dict[str, Any]]] = {}
    if old:
        of = {row["uid"]: row["environment"] for row in old}
        names = [[row[name] for row in old] for name in ("uid", "environment", "saga", "id")]
        by_uid = {row["uid"]: row for row in old}
        for found in await connection.fetch(QUERIES.known, *names):
            if found["uid"] not in said:
                words = _opened(connection.ring, by_uid[found["uid"]], found["facts"] or ())
                said[found["uid"]] = {**found, "facts": words}
            if found["id"] is not None:
                effect = {**found, "environment": of[found["uid"]]}
                effects.setdefault(found["uid"], []).append(sealing.opened(connection.ring, effect))
    return [known(row, effects.get(row["uid"], []), said.get(row["uid"])) for row in rows]


def known(row: Mapping[str, Any], effects: list[dict[str, Any]], said: Mapping[str, Any] | None) -> Known:
    """One instance, from its rows."""
    by_step: dict[str, dict[str, Any]] = {}
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
    leads = row.get("leads") if said is None else said["leads"]
    return Known(
        row=row,
        has_line=leads is not None,
        effects=effects,
        by_step=by_step,
        events=_brought(facts),
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
            in_line=leads is False,
            is_undoing=row["turned_back"],
        ),
    )


def _brought(facts: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Of each wait the first word counts, whatever is told after it: a step that is begun again is given the same."""
    brought: dict[str, Any] = {}
    for fact, name, detail in facts:
        if fact in ENDS or fact == "skip":
            brought.setdefault(name, detail if fact == "event" else None)
    return brought


def _opened(ring: Ring, row: Mapping[str, Any], facts: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """What was said, the payloads of events open."""
    name = sealing.instance_name(row["environment"], row["saga"], row["id"])
    return [[fact, of, ring.open(detail, name) if fact == "event" else detail] for fact, of, detail in facts]


def _step(effect: Mapping[str, Any], earlier: int) -> StepFact:
    error = effect["error"]
    return StepFact(
        status=effect["status"],
        attempt=effect["attempt"] + earlier,
        is_final=isinstance(error, dict) and error.get("final") is True,
        is_leased=effect["is_leased"],
        given_back=isinstance(error, dict) and error.get("code") == GIVEN_BACK_CODE,
        since_first_seconds=max(0.0, effect["since_first_seconds"]),
        looking="not" if (given_up := effect["look_up_given_up"]) is None else "in_vain" if given_up else "asked",
    )

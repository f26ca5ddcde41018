"""What look-ups said, written under the locks that the turn holds: the effect's news, or the question put again (P11, P16).

The news is an effect's like any report's: whoever undoes it, now or from a set that is closed, looks at it again in this very
transaction (hazard 3). An answer to a question that is not put any more is kept, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from msgspec import Struct

from runtime.clock import Entropy
from runtime.postgres import Connection
from sagas import look_ups, store_reports
from sagas.core.sightings import Answer, Policy, Said, Then, after
from sagas.instances.plans import Plans
from sagas.instances.rows import Step
from sagas.instances.turns import Sighting
from sagas.look_ups import Again, Note, policy_of


class Weighed(Struct, frozen=True, kw_only=True):
    """A sighting with the question that it answers and what comes of it."""

    sighting: Sighting
    count: int
    answer: Answer


async def sight(
    connection: Connection, told: Sequence[Sighting], steps: dict[UUID, Step], plans: Plans, entropy: Entropy
) -> set[UUID]:
    """Write down what was said. Returns the effects of which it counted."""
    ours = [one for one in told if one.effect_id in steps and steps[one.effect_id].place.environment == one.environment]
    if not ours:
        return set()
    held = await look_ups.held(connection, [(one.effect_id, one.token) for one in ours])
    weighed = [
        await _weigh(connection, one, held[one.effect_id], plans, entropy.random()) for one in ours if one.effect_id in held
    ]
    await _write(connection, weighed)
    lost = [one for one in ours if one.effect_id not in held]
    await look_ups.note(
        connection,
        [_note(one.sighting, one.count + 1, one.sighting.said.value) for one in weighed]
        + [_note(one, 0, "lost") for one in lost],
    )
    concluded = [one.sighting.effect_id for one in weighed if one.answer.then is not Then.ASK_AGAIN]
    if concluded:
        await store_reports.arm(connection, concluded)
    return set(held)


async def _weigh(connection: Connection, told: Sighting, row: Any, plans: Plans, chance: float) -> Weighed:
    planned = await plans.get(connection, (told.environment, row["saga"], row["version"]))
    step = None if planned is None else planned.definition.step(row["step"])
    policy = Policy() if step is None else policy_of(step)
    said = Said.UNKNOWN if row["is_leased"] and told.said is Said.ABSENT else told.said
    return Weighed(sighting=told, count=row["count"], answer=after(said, row["count"], policy, chance=chance))


async def _write(connection: Connection, weighed: Sequence[Weighed]) -> None:
    by: dict[Then, list[Weighed]] = {then: [one for one in weighed if one.answer.then is then] for then in Then}
    found = [(one.sighting.effect_id, one.sighting.told_json) for one in by[Then.SUCCEEDED]]
    absent = [(one.sighting.effect_id, one.sighting.told_json) for one in by[Then.FAILED]]
    if found or absent:
        environments = {one.sighting.effect_id: one.sighting.environment for one in weighed}
        await look_ups.settle(connection, environments, found, absent)
    again = [
        Again(
            effect_id=one.sighting.effect_id,
            in_seconds=one.answer.in_seconds,
            given_up=one.answer.then is Then.GIVE_UP,
            said=one.sighting.told_json,
        )
        for one in (*by[Then.ASK_AGAIN], *by[Then.GIVE_UP])
    ]
    if again:
        await look_ups.ask_again(connection, again)


def _note(told: Sighting, number: int, outcome: str) -> Note:
    detail = None if told.said is Said.FOUND else told.told_json
    return Note(effect_id=told.effect_id, number=number, actor=told.worker, outcome=outcome, detail=detail)

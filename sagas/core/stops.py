"""What kills mean for a running instance: whether one stops it, whose, and whether it may go on once it is lifted. Pure.

A kill stops an instance whose flag it covers (P8), or of which its rollback has taken or will take something (hazard 13). Once
stopped it goes on when neither is so any more: nothing of it was undone and nothing is going to be (P17, docs/decisions/0029).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct

from sagas.core.admission import Fence, Standing, in_scope, killer


class Done(Struct, frozen=True, kw_only=True):
    """One effect of the instance, as far as kills go by it."""

    flag: str
    is_off: bool
    is_failed: bool
    epoch: int
    attributes: dict[str, Any]
    admitted_at: datetime
    revision: tuple[int, int]
    taken_by: UUID | None = None
    """the kill's rollback that has written down what becomes of it"""


class Stop(Struct, frozen=True, kw_only=True):
    """Why an instance does not go on. `is_taken`: something of it is the kill's matter for ever."""

    is_taken: bool = False
    rollback_ids: tuple[UUID, ...] = ()


def stop(
    flag: str,
    attributes: dict[str, Any],
    effects: Sequence[Done],
    fences: Mapping[str, Fence],
    standing: Mapping[str, Sequence[Standing]],
) -> Stop | None:
    """What stops an instance that was not served the off variant, by its flag and its effects; null where nothing does.

    `standing` is asked only for flags of effects that an earlier epoch admitted (`since`): rollbacks take no others.
    """
    taken = {effect.taken_by for effect in effects if effect.taken_by is not None}
    if taken:
        return Stop(is_taken=True, rollback_ids=tuple(sorted(taken)))
    fence = fences.get(flag)
    is_dead, rollback_id = killer(fence, attributes) if fence is not None else (False, None)
    if is_dead:
        return Stop(rollback_ids=() if rollback_id is None else (rollback_id,))
    named = {one.rollback_id for effect in effects for one in standing.get(effect.flag, ()) if takes(one, effect)}
    return Stop(rollback_ids=tuple(sorted(named))) if named else None


def stays(
    flag: str,
    attributes: dict[str, Any],
    effects: Sequence[Done],
    fences: Mapping[str, Fence],
    standing: Mapping[str, Sequence[Standing]],
) -> Stop | None:
    """What keeps a stopped instance from going on: all of that, and a kill that covers another flag's effect of it."""
    found = stop(flag, attributes, effects, fences, standing)
    if found is not None:
        return found
    for effect in effects:
        theirs = fences.get(effect.flag)
        if theirs is not None and not effect.is_off and not effect.is_failed:
            is_dead, rollback_id = killer(theirs, effect.attributes, effect.epoch)
            if is_dead:
                return Stop(rollback_ids=() if rollback_id is None else (rollback_id,))
    return None


def takes(rollback: Standing, effect: Done) -> bool:
    """Whether an unfinished rollback will come to this effect (P12)."""
    if rollback.state == "settled" or rollback.compensate == "none" or effect.is_off:
        return False
    if effect.epoch > rollback.closes_epoch or not in_scope(rollback.scope, effect.attributes):
        return False
    if rollback.since_at is not None and effect.admitted_at < rollback.since_at:
        return False
    is_told = effect.revision[1] > 0
    return rollback.since_revision is None or not is_told or effect.revision >= rollback.since_revision


def since(effects: Sequence[Done], fences: Mapping[str, Fence]) -> set[str]:
    """The flags that were killed or lifted since some of these effects were admitted: whose rollbacks may name them."""
    return {
        effect.flag
        for effect in effects
        if not effect.is_off and (fence := fences.get(effect.flag)) is not None and effect.epoch < fence.epoch
    }

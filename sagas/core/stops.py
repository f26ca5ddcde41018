"""What kills mean for a running instance: whether one stops it, whose, and whether it may go on once it is lifted. Pure.

A kill stops an instance whose flag it covers (P8), or of which its rollback has taken or will take something (hazard 13). Once
stopped it goes on when neither is so any more: nothing of it was undone and nothing is going to be (P17, docs/decisions/0029).
A kill that takes something of it may grant by name that it goes on first (P8): all that stand in its way have to.
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
    step: str | None
    is_off: bool
    status: str
    epoch: int
    attributes: dict[str, Any]
    admitted_at: datetime
    completed_at: datetime | None
    revision: tuple[int, int]
    taken_by: UUID | None = None
    """the kill's rollback that has written down what becomes of it"""
    continues: bool = False
    """it wrote down that the instance goes on first"""


class Grant(Struct, frozen=True, kw_only=True):
    """What a kill grants the instances of one version of a saga. `pivot`: only those that had completed it by then."""

    rollback_id: UUID
    closes_epoch: int
    saga: str
    version: str
    pivot: str | None
    granted_at: datetime


class Stop(Struct, frozen=True, kw_only=True):
    """Why an instance does not go on. `is_taken`: something of it is the kill's matter for ever."""

    is_taken: bool = False
    rollback_ids: tuple[UUID, ...] = ()


class Case(Struct, frozen=True, kw_only=True):
    """One instance that was not served the off variant, and the kills of its flags and of its effects'.

    `standing` and `grants` are asked only for flags of effects that an earlier epoch admitted (`since`): rollbacks take no
    others.
    """

    flag: str
    saga: str
    version: str
    attributes: dict[str, Any]
    effects: Sequence[Done]
    fences: Mapping[str, Fence]
    standing: Mapping[str, Sequence[Standing]]
    grants: Mapping[str, Sequence[Grant]]


def stop(case: Case) -> Stop | Grant | None:
    """What stops it; the grant under which it goes on although it is killed; null where nothing is in its way."""
    fence = case.fences.get(case.flag)
    dead = [] if fence is None else _killers(fence, case.attributes)
    taken = {effect.taken_by for effect in case.effects if effect.taken_by is not None}
    named = {one.rollback_id for effect in case.effects for one in case.standing.get(effect.flag, ()) if takes(one, effect)}
    ids = {*taken, *named, *(one for one in dead if one is not None)}
    if not ids and not dead:
        return None
    granted = [_granted(one, case) for one in sorted(ids)]
    if None in dead or None in granted:
        return Stop(is_taken=bool(taken), rollback_ids=tuple(sorted(ids)))
    return min((one for one in granted if one is not None), key=lambda grant: grant.closes_epoch)


def stays(case: Case) -> Stop | None:
    """What keeps a stopped instance from going on: all of that, and a kill that covers another flag's effect of it."""
    found = stop(case)
    if isinstance(found, Stop):
        return found
    for effect in case.effects:
        theirs = None if found is not None and effect.flag == case.flag else case.fences.get(effect.flag)
        if theirs is not None and not effect.is_off and effect.status != "failed":
            is_dead, rollback_id = killer(theirs, effect.attributes, effect.epoch)
            if is_dead:
                return Stop(rollback_ids=() if rollback_id is None else (rollback_id,))
    return None


def _killers(fence: Fence, attributes: dict[str, Any]) -> list[UUID | None]:
    """Whose kills cover what has these attributes: all of them; null for a flag that is closed by a recovery."""
    whole = [fence.rollback_id] if fence.closed else []
    return whole + [one.rollback_id for one in fence.scopes if in_scope(one.scope, attributes)]


def _granted(rollback_id: UUID, case: Case) -> Grant | None:
    """What this rollback grants the instance: it takes something of it, and has begun to undo nothing."""
    if any(effect.taken_by == rollback_id and not effect.continues for effect in case.effects):
        return None
    claims = [one for one in case.standing.get(case.flag, ()) if one.rollback_id == rollback_id]
    mine = [effect for effect in case.effects if effect.flag == case.flag and any(names(one, effect) for one in claims)]
    for grant in case.grants.get(case.flag, ()):
        is_meant = (grant.rollback_id, grant.saga, grant.version) == (rollback_id, case.saga, case.version)
        if is_meant and any(grant.pivot is None or _is_past(effect, grant) for effect in mine):
            return grant
    return None


def _is_past(effect: Done, grant: Grant) -> bool:
    is_done = effect.step == grant.pivot and effect.status == "succeeded"
    return is_done and effect.completed_at is not None and effect.completed_at <= grant.granted_at


def takes(rollback: Standing, effect: Done) -> bool:
    """Whether an unfinished rollback has or will have something to undo in this effect: not in what provably never happened."""
    is_unfinished = rollback.state != "settled" and rollback.compensate != "none"
    return is_unfinished and effect.status != "failed" and names(rollback, effect)


def names(rollback: Standing, effect: Done) -> bool:
    """Whether an effect is in a rollback's set by its own flag (P12)."""
    if effect.is_off:
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

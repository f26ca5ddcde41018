"""Whether an effect may be admitted: the ask, the fences that judge it, and the decision. Pure (P8, P9, hazards 9 and 13)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from difflib import get_close_matches
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct

from sagas.core import keys
from sagas.core.asks import Ask
from sagas.core.keys import Recorded, Verb

START_WINDOW_MS = 2_000

_MISSING = object()


class Scope(Struct, frozen=True, kw_only=True):
    """A standing narrowed kill of a flag."""

    scope: dict[str, Any]
    epoch: int
    """The epoch that it closed, and with it every one before."""
    rollback_id: UUID | None


class Fence(Struct, frozen=True, kw_only=True):
    """A flag's fence at one snapshot."""

    lock_key: int
    off_variant: str
    epoch: int
    closed: bool
    rollback_id: UUID | None
    opened: tuple[int, int]
    """The revision at which the present epoch opened."""
    scopes: tuple[Scope, ...] = ()


class Standing(Struct, frozen=True, kw_only=True):
    """An unfinished rollback's claim on the effects of a flag."""

    rollback_id: UUID
    scope: dict[str, Any]
    closes_epoch: int
    since_at: datetime | None
    since_revision: tuple[int, int] | None
    is_closed: bool
    """Its set is complete: what is reported from now on has to be brought to it (hazard 3)."""
    state: str
    compensate: str


class Sibling(Struct, frozen=True, kw_only=True):
    """An effect, not served the off variant and not failed, of the same saga instance."""

    flag: str
    epoch: int
    attributes: dict[str, Any]


class Verdict(Struct, frozen=True, kw_only=True, gc=False):
    """What the fence says of an ask: dead by which rollback, or alive under which epoch."""

    is_off: bool
    is_dead: bool
    rollback_id: UUID | None
    by_sibling: bool = False
    """Dead because a kill takes another effect of its saga instance."""


PASSES = Verdict(is_off=False, is_dead=False, rollback_id=None)
PASSES_OFF = Verdict(is_off=True, is_dead=False, rollback_id=None)


class Decision(Struct, frozen=True, kw_only=True, gc=False):
    verb: Verb
    verdict: Verdict
    recorded: Recorded | None = None


def in_scope(scope: dict[str, Any], attributes: dict[str, Any]) -> bool:
    """Whether an effect with these attributes falls under a kill of this scope: one that lacks one does (hazard 9).

    >>> in_scope({"region": "eu"}, {"region": "us"}), in_scope({"region": "eu"}, {}), in_scope({}, {"region": "us"})
    (False, True, True)
    """
    for name, wanted in scope.items():
        value = attributes.get(name, _MISSING)
        if value is not _MISSING and keys.canonical(value) != keys.canonical(wanted):
            return False
    return True


def killer(fence: Fence, attributes: dict[str, Any], epoch: int | None = None) -> tuple[bool, UUID | None]:
    """Whether a standing kill covers what has these attributes, and whose: a new effect (no epoch), or one of this epoch."""
    if fence.closed and (epoch is None or epoch < fence.epoch):
        return True, fence.rollback_id
    for one in fence.scopes:
        if (epoch is None or epoch <= one.epoch) and in_scope(one.scope, attributes):
            return True, one.rollback_id
    return False, None


def judge(fence: Fence, ask: Ask, siblings: Sequence[Sibling] = (), fences: dict[str, Fence] | None = None) -> Verdict:
    """What the fence says: the off variant always passes; else a kill of its flag, or of a sibling's, stops it (hazard 13)."""
    if ask.variant is not None and ask.variant == fence.off_variant:
        return PASSES_OFF
    is_dead, rollback_id = killer(fence, ask.attributes)
    if is_dead:
        return Verdict(is_off=False, is_dead=True, rollback_id=rollback_id)
    for sibling in siblings:
        theirs = (fences or {}).get(sibling.flag)
        if theirs is not None:
            is_dead, rollback_id = killer(theirs, sibling.attributes, sibling.epoch)
            if is_dead:
                return Verdict(is_off=False, is_dead=True, rollback_id=rollback_id, by_sibling=True)
    return PASSES


def covers(rollback: Standing, recorded: Recorded) -> bool:
    """Whether the effect belongs to the rollback's set (P12)."""
    if recorded.is_off or recorded.epoch > rollback.closes_epoch or not in_scope(rollback.scope, recorded.attributes):
        return False
    if rollback.since_at is not None and recorded.admitted_at < rollback.since_at:
        return False
    told = recorded.revision[1] > 0
    return rollback.since_revision is None or not told or recorded.revision >= rollback.since_revision


def with_compensation(recorded: Recorded, rollbacks: Sequence[Standing]) -> Recorded:
    """The record, told what the unfinished rollbacks of its flag will do to it: the strongest word of those that cover it.
    What has gone is in no set."""
    if recorded.is_gone:
        return recorded
    words = {_word(rollback) for rollback in rollbacks if covers(rollback, recorded)}
    word = next((word for word in ("due", "held", "none") if word in words), None)
    return msgspec.structs.replace(recorded, compensation=word) if word else recorded


def _word(rollback: Standing) -> str:
    match rollback.compensate:
        case "none":
            return "none"
        case "hold" if rollback.state in ("fenced", "drained", "grace", "held"):
            return "held"
        case _:
            return "due"


def decide(ask: Ask, fence: Fence, verdict: Verdict, recorded: Recorded | None) -> Decision:
    """What is done about the ask. The row of a failed effect is taken again only where it would say the same of the ask."""
    who = keys.asker(
        recorded,
        is_dead=verdict.is_dead,
        flag=ask.flag,
        payload_hash=ask.payload_hash,
        token=ask.token,
        is_later=recorded is not None and _is_later(ask, fence, verdict, recorded),
    )
    verb = keys.decide(recorded, who)
    if verb is Verb.AGAIN and recorded is not None and not _same_place(ask, fence, verdict, recorded):
        verb = Verb.NEXT
    return Decision(verb=verb, verdict=verdict, recorded=recorded)


def _is_later(ask: Ask, fence: Fence, verdict: Verdict, recorded: Recorded) -> bool:
    """Hazard 4: the off variant, or an evaluation no older than the opening of an epoch later than the recorded one."""
    if verdict.is_off:
        return True
    return ask.revision >= fence.opened and (ask.flag != recorded.flag or fence.epoch > recorded.epoch)


def _same_place(ask: Ask, fence: Fence, verdict: Verdict, recorded: Recorded) -> bool:
    """A retry that would be undone in another way is an effect of its own: the old one keeps its definition, should it turn out
    to have happened after all (P15)."""
    return (
        not recorded.is_gone
        and recorded.flag == ask.flag
        and recorded.is_off == verdict.is_off
        and recorded.epoch == fence.epoch
        and recorded.attributes == ask.attributes
        and recorded.saga == (ask.saga, ask.saga_instance, ask.step)
        and recorded.undoing == (ask.saga_version, ask.kind_version, ask.subject)
    )


def closest(name: str, known: Sequence[str]) -> str | None:
    """The known name that was probably meant.

    >>> closest("checkout.newflow", ["checkout.new-flow", "search"])
    'checkout.new-flow'
    """
    return next(iter(get_close_matches(name, known, n=1)), None)

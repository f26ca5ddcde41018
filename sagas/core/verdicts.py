"""What becomes of an effect that a rollback names, by what is known of it and what its definition says (P12, P15, P16).
Pure."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from sagas.core.compensation import Reason


class Fate(StrEnum):
    """The kinds of verdict."""

    CONTINUES = "continues"
    NEVER_HAPPENED = "never_happened"
    UNDETERMINED = "undetermined"
    LOOK_UP = "look_up"
    UNDO = "undo"
    NOTICE = "notice"
    IRREVERSIBLE = "irreversible"
    WAIT = "wait"


class Verdict(Struct, frozen=True):
    """`in_seconds`: when an undetermined effect is judged again. `reason`: why a person has to decide."""

    fate: Fate
    in_seconds: float = 0.0
    reason: Reason | None = None


class Terms(Struct, frozen=True, kw_only=True):
    """What the definition pinned to the effect says about undoing it."""

    irreversible: bool = False
    has_compensation: bool = False
    has_notice: bool = False
    notice_approved: bool = False
    needs_approval: bool = False
    """Its money is above what is given back without a person's word."""
    in_doubt: str = "wait"
    can_look_up: bool = False


def judge(status: str, terms: Terms | None, *, settles_in_seconds: float) -> Verdict:
    """The verdict on an effect. `settles_in_seconds`: until its lease and settle delay have run out, by PostgreSQL's clock.

    >>> judge("admitted", Terms(has_compensation=True), settles_in_seconds=3).fate
    <Fate.UNDETERMINED: 'undetermined'>
    >>> judge("in_doubt", Terms(has_compensation=True, in_doubt="assume_done"), settles_in_seconds=0).fate
    <Fate.UNDO: 'undo'>
    """
    if status == "failed":
        return Verdict(Fate.NEVER_HAPPENED)
    if status == "admitted" and settles_in_seconds > 0:
        return Verdict(Fate.UNDETERMINED, in_seconds=settles_in_seconds)
    if terms is None:
        return Verdict(Fate.WAIT, reason=Reason.NO_DEFINITION)
    if status in ("admitted", "in_doubt"):
        if terms.in_doubt == "look_up" and terms.can_look_up:
            return Verdict(Fate.LOOK_UP)
        if terms.in_doubt != "assume_done":
            return Verdict(Fate.WAIT, reason=Reason.IN_DOUBT)
    return _undo(terms)


def _undo(terms: Terms) -> Verdict:
    if not terms.irreversible:
        if terms.has_compensation and terms.needs_approval:
            return Verdict(Fate.WAIT, reason=Reason.APPROVAL)
        return Verdict(Fate.UNDO) if terms.has_compensation else Verdict(Fate.WAIT, reason=Reason.NO_COMPENSATION)
    if not terms.has_notice:
        return Verdict(Fate.IRREVERSIBLE)
    return Verdict(Fate.NOTICE) if terms.notice_approved else Verdict(Fate.WAIT, reason=Reason.NOTICE_UNAPPROVED)

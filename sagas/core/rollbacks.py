"""The rollback machine: what a coordinator does next with a rollback, from its row alone (P17, P18). Pure.

fenced, drained, then grace or held, then compensating (or paused), waiting, settled. Whoever is alive reads the row and goes
on.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Step(StrEnum):
    """What is to be done next."""

    CLOSE = "close"
    DRAIN = "drain"
    OPEN = "open"
    GRACE = "grace"
    COMPENSATE = "compensate"
    REST = "rest"


class Phase(Struct, frozen=True, kw_only=True):
    """A rollback's row, as far as it decides what comes next."""

    state: str
    is_closed: bool
    is_drained: bool
    flags_unclosed: int
    ended: bool
    """It settled with nothing to undo: lifted in grace, or compensate none."""


class Opening(Struct, frozen=True):
    """Where a drained rollback goes."""

    state: str
    outcome: str | None = None


def next_step(phase: Phase) -> Step:
    """The one step that the row asks for.

    >>> next_step(Phase(state="fenced", is_closed=False, is_drained=False, flags_unclosed=1, ended=False))
    <Step.CLOSE: 'close'>
    """
    if phase.ended:
        return Step.REST
    if not phase.is_closed or phase.flags_unclosed:
        return Step.CLOSE
    if not phase.is_drained:
        return Step.DRAIN
    match phase.state:
        case "fenced" | "drained":
            return Step.OPEN
        case "grace":
            return Step.GRACE
        case "held":
            return Step.REST
        case _:
            return Step.COMPENSATE


def opening(compensate: str, grace_seconds: float, *, cancelled: bool = False) -> Opening:
    """What follows *drained*. One that was cancelled has nothing to hold back: it goes on to skip, by name.

    >>> opening("hold", 0.0, cancelled=True)
    Opening(state='compensating', outcome=None)
    """
    match compensate:
        case "none":
            return Opening("settled", "not_compensated")
        case _ if cancelled:
            return Opening("compensating")
        case "hold":
            return Opening("held")
        case _:
            return Opening("grace") if grace_seconds > 0 else Opening("compensating")

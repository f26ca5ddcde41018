"""The compensation machine: what an attempt's outcome makes of a compensation, as a table one can read (P13, P16). Pure.

due -> running -> final, or back to due, or waiting for a person. "May have acted" is never forgotten: a compensation that was
once in doubt is repeated only under its key, inside the provider's window, and only where the key is recognised.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class State(StrEnum):
    """Where a compensation stands."""

    DUE = "due"
    RUNNING = "running"
    WAITING = "waiting"
    FINAL = "final"


class Event(StrEnum):
    """How an attempt ended."""

    DONE = "done"
    NOT_YET = "not_yet"
    DOUBT = "doubt"
    REFUSED = "refused"
    INTERRUPTED = "interrupted"


class Guarantee(StrEnum):
    """Whether an attempt of unknown outcome may be repeated under its key."""

    AT_LEAST_ONCE = "at_least_once"
    AT_MOST_ONCE = "at_most_once"


class Reason(StrEnum):
    """Why something waits for a person."""

    INTERRUPTED = "interrupted"
    IN_DOUBT = "in_doubt"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    AGE_EXHAUSTED = "age_exhausted"
    WINDOW_PASSED = "provider_window_passed"
    REFUSED = "refused"
    NO_DEFINITION = "no_definition"
    NO_COMPENSATION = "no_compensation"
    NOTICE_UNAPPROVED = "notice_unapproved"
    APPROVAL = "approval"
    LOOK_UP_EXHAUSTED = "look_up_exhausted"
    NO_WORKER = "no_worker"


class Move(Struct, frozen=True):
    """What an event does. `doubtful`: the attempt may have acted. `keeps_subject`: nobody else acts on the subject
    meanwhile."""

    state: State
    doubtful: bool = False
    keeps_subject: bool = False
    reason: Reason | None = None


FINISH = Move(State.FINAL)
AGAIN = Move(State.DUE)
AGAIN_SAME_KEY = Move(State.DUE, doubtful=True, keeps_subject=True)
WAIT_IN_DOUBT = Move(State.WAITING, doubtful=True, keeps_subject=True, reason=Reason.IN_DOUBT)
WAIT_INTERRUPTED = Move(State.WAITING, doubtful=True, keeps_subject=True, reason=Reason.INTERRUPTED)
WAIT_REFUSED = Move(State.WAITING, reason=Reason.REFUSED)

COLUMNS = (Guarantee.AT_LEAST_ONCE, Guarantee.AT_MOST_ONCE)

# fmt: off
MACHINE: dict[Event, tuple[Move, Move]] = {
    #                   at least once   at most once
    Event.DONE:        (FINISH,         FINISH),
    Event.NOT_YET:     (AGAIN,          AGAIN),
    Event.DOUBT:       (AGAIN_SAME_KEY, WAIT_IN_DOUBT),
    Event.INTERRUPTED: (AGAIN_SAME_KEY, WAIT_INTERRUPTED),
    Event.REFUSED:     (WAIT_REFUSED,   WAIT_REFUSED),
}
# fmt: on


class Trial(Struct, frozen=True, kw_only=True):
    """A compensation as its attempt found it. `since_first_seconds`: since its first attempt began, by PostgreSQL's clock."""

    guarantee: Guarantee
    attempt: int
    attempts_max: int
    doubtful: bool
    since_first_seconds: float
    window_seconds: float
    age_seconds: float | None = None
    """No attempt is laid down to begin later than this after the first; null: no limit, or a person said to try again."""


def after(trial: Trial, event: Event, *, delay_seconds: float) -> Move:
    """Where the compensation stands after this outcome, if the next attempt would begin `delay_seconds` from now.

    >>> mail = Trial(guarantee=Guarantee.AT_MOST_ONCE, attempt=1, attempts_max=20, doubtful=False, since_first_seconds=0,
    ...              window_seconds=86400)
    >>> after(mail, Event.DOUBT, delay_seconds=1).reason
    <Reason.IN_DOUBT: 'in_doubt'>
    """
    move = MACHINE[event][COLUMNS.index(trial.guarantee)]
    if move.state is State.FINAL:
        return move
    doubtful = move.doubtful or trial.doubtful
    reason = move.reason
    if move.state is State.DUE:
        if doubtful and trial.since_first_seconds + delay_seconds >= trial.window_seconds:
            reason = Reason.WINDOW_PASSED
        elif trial.attempt >= trial.attempts_max:
            reason = Reason.ATTEMPTS_EXHAUSTED
        elif trial.age_seconds is not None and trial.since_first_seconds + delay_seconds >= trial.age_seconds:
            reason = Reason.AGE_EXHAUSTED
    state = State.DUE if reason is None else State.WAITING
    return Move(state, doubtful=doubtful, keeps_subject=doubtful, reason=reason)


def may_begin(trial: Trial) -> bool:
    """Whether the next attempt may begin by itself: not past the window in which the provider would recognise a doubtful
    one."""
    return not trial.doubtful or trial.since_first_seconds < trial.window_seconds

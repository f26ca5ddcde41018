"""The effect machine: what becomes of an effect by the news of its body, as a table one can read (P10, P11, hazard 2).

An effect is admitted, then succeeded, failed (proven not done) or in doubt. `given_back` is failed by a permission that was
never used: nobody saw the body fail, so later news of the body outranks it.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

GIVEN_BACK_CODE = "given_back"


class Status(StrEnum):
    """What is stored of an effect."""

    ADMITTED = "admitted"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    IN_DOUBT = "in_doubt"


class State(StrEnum):
    """Where an effect stands for a report: its status, told apart by what its body is known to have done.

    The superseded ones are states of the news: its token is of an earlier attempt. A success of one is the effect's success,
    for something happened, whatever the later attempt comes to; beside a recorded success it may be a second effect.
    """

    ADMITTED = "admitted"
    BEGUN = "begun"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    GIVEN_BACK = "given_back"
    IN_DOUBT = "in_doubt"
    SUPERSEDED = "superseded"
    SUPERSEDED_SUCCEEDED = "superseded_succeeded"


class News(StrEnum):
    """What a report says of the body."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"
    BEGUN = "begun"
    NOT_STARTED = "not_started"
    EXTEND = "extend"


class Move(Struct, frozen=True):
    """What a report does to the row. `status` null leaves it; `evidence` keeps the report beside the row.

    `compare` holds a success against those that are recorded: what happened twice is two effects.
    """

    status: Status | None = None
    begun: bool = False
    extend: bool = False
    evidence: bool = False
    compare: bool = False


NOTHING = Move()
ASIDE = Move(evidence=True)
DONE = Move(status=Status.SUCCEEDED, begun=True)
DONE_LATE = Move(status=Status.SUCCEEDED, begun=True, evidence=True)
FAIL = Move(status=Status.FAILED)
DOUBT = Move(status=Status.IN_DOUBT, begun=True)
DOUBT_LATE = Move(status=Status.IN_DOUBT, begun=True, evidence=True)
UNPROVEN = Move(status=Status.IN_DOUBT, evidence=True)
"""Instead of a failure, where an earlier attempt may have acted."""
BEGIN = Move(begun=True)
GIVE_BACK = Move(status=Status.FAILED)
EXTEND = Move(begun=True, extend=True)
COMPARE = Move(compare=True)

COLUMNS = (News.SUCCEEDED, News.FAILED, News.UNKNOWN, News.BEGUN, News.NOT_STARTED, News.EXTEND)

# fmt: off
MACHINE: dict[State, tuple[Move, Move, Move, Move, Move, Move]] = {
    #                            succeeded  failed   unknown     begun    not_started  extend
    State.ADMITTED:             (DONE,      FAIL,    DOUBT,      BEGIN,   GIVE_BACK,   EXTEND),
    State.BEGUN:                (DONE,      FAIL,    DOUBT,      NOTHING, ASIDE,       EXTEND),
    State.IN_DOUBT:             (DONE,      FAIL,    NOTHING,    NOTHING, ASIDE,       NOTHING),
    State.SUCCEEDED:            (COMPARE,   ASIDE,   ASIDE,      NOTHING, ASIDE,       NOTHING),
    State.FAILED:               (DONE_LATE, NOTHING, ASIDE,      NOTHING, NOTHING,     NOTHING),
    State.GIVEN_BACK:           (DONE_LATE, FAIL,    DOUBT_LATE, ASIDE,   NOTHING,     ASIDE),
    State.SUPERSEDED:           (DONE_LATE, ASIDE,   ASIDE,      ASIDE,   ASIDE,       ASIDE),
    State.SUPERSEDED_SUCCEEDED: (COMPARE,   ASIDE,   ASIDE,      ASIDE,   ASIDE,       ASIDE),
}
# fmt: on


def state_of(status: Status, *, begun: bool, error_code: str | None, is_current: bool) -> State:
    """Where the effect stands for a report whose token is, or is not, that of its present attempt."""
    if not is_current:
        return State.SUPERSEDED_SUCCEEDED if status is Status.SUCCEEDED else State.SUPERSEDED
    match status:
        case Status.ADMITTED:
            return State.BEGUN if begun else State.ADMITTED
        case Status.FAILED:
            return State.GIVEN_BACK if error_code == GIVEN_BACK_CODE else State.FAILED
        case Status.SUCCEEDED:
            return State.SUCCEEDED
        case Status.IN_DOUBT:
            return State.IN_DOUBT


def move(state: State, news: News) -> Move:
    """What this news does to an effect in this state.

    >>> move(State.ADMITTED, News.UNKNOWN).status
    <Status.IN_DOUBT: 'in_doubt'>
    >>> move(State.SUCCEEDED, News.FAILED) == ASIDE  # never back
    True
    >>> move(State.SUPERSEDED, News.SUCCEEDED) == DONE_LATE  # the money was taken, whoever acts now
    True
    """
    return MACHINE[state][COLUMNS.index(news)]

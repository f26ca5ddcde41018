"""The saga machine: what comes next for a running instance, by its definition and the facts, as a table one can read. Pure.

Nothing else remembers where an instance stands (docs/decisions/0024), so `decide` answers for any facts, and asks for nothing
twice: what it asked for is queued, admitted or standing at the next look. Promises: nothing begins while others of its subject
are before it, where they stand in line; a step begins only once all before it are done and their waits have ended; a step is in
one hand at a time; once turned back, never forward again; it ends as done, or is undone, or waits for a person and says why
(P9, P14, P16).

A step in doubt is begun again only under its key, inside the provider's window, where the definition says that the key is
recognised. Turning back with a step in doubt is allowed before the pivot: how its doubt is settled is then the undoing's matter
(sagas/core/verdicts.py). A pivot in doubt may have been the point of no return: a person decides, by skipping it (it was done),
by trying it again, or by cancelling (it was not).

A killed instance does not go on, past its pivot neither. Whether one is killed is not decided here: a kill may grant by name
that it goes on first, and one that is lifted lets go of what it has not taken (sagas/core/stops.py). A cancel past the pivot
is refused where it is said; one that the pivot overtook waits for a person (`past_pivot`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from itertools import groupby
from typing import Literal

from msgspec import Struct

from sagas.core.retry import delay_seconds


class State(StrEnum):
    """Where an instance stands. `undone` is said by the undoing, when its last disposition is final."""

    RUNNING = "running"
    UNDOING = "undoing"
    WAITING = "waiting"
    KILLED = "killed"
    DONE = "done"


class Why(StrEnum):
    """Why it turned back, waits for a person, or holds still."""

    DRAINING = "draining"
    PAUSED = "paused"
    IN_LINE = "in_line"
    CANCELLED = "cancelled"
    TAKEN_OVER = "taken_over"
    PAST_PIVOT = "past_pivot"
    FAILED = "failed"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    AGE_EXHAUSTED = "age_exhausted"
    IN_DOUBT = "in_doubt"
    WINDOW_PASSED = "provider_window_passed"
    LOOK_UP_EXHAUSTED = "look_up_exhausted"
    REFUSED = "refused"
    DEADLINE = "deadline"


class StepTerms(Struct, frozen=True, kw_only=True):
    """What the definition says of doing a step. `window_seconds`: how long the provider recognises its key."""

    name: str
    kind: str = ""
    step_class: Literal["compensatable", "pivot", "retriable", "irreversible"] = "compensatable"
    group: str | None = None
    act_guarantee: Literal["at_least_once", "at_most_once"] = "at_least_once"
    act_in_doubt: Literal["again", "look_up", "assume_done", "wait"] = "again"
    first_seconds: float = 1.0
    factor: float = 2.0
    cap_seconds: float = 300.0
    attempts_max: int = 20
    age_seconds: float | None = None
    window_seconds: float = 86_400.0


class WaitTerms(Struct, frozen=True, kw_only=True):
    """What is waited for before a step and all that stand beside it. `seconds`: of a delay."""

    name: str
    before: str
    what: Literal["delay", "event", "approval"]
    seconds: float | None = None
    deadline_seconds: float | None = None
    on_deadline: Literal["undo", "go_on"] = "undo"


class Plan(Struct, frozen=True, kw_only=True):
    """A definition as the machine reads it."""

    steps: tuple[StepTerms, ...]
    waits: tuple[WaitTerms, ...] = ()


class StepFact(Struct, frozen=True, kw_only=True):
    """What the ledger says of a step's effect. Absent: it was never admitted."""

    status: Literal["admitted", "succeeded", "failed", "in_doubt"]
    attempt: int = 1
    is_final: bool = False
    """trying again does not help; in doubt with that, an earlier attempt may have acted"""
    is_leased: bool = False
    """its lease has not run out"""
    given_back: bool = False
    """its last attempt never began, and does not count"""
    since_first_seconds: float = 0.0
    queued: bool = False
    looking: Literal["not", "asked", "in_vain"] = "not"
    """whether the provider was asked what became of it, and could not say"""


class Facts(Struct, frozen=True, kw_only=True):
    """Everything durable that the decision rests on."""

    steps: Mapping[str, StepFact] = {}
    queued: frozenset[str] = frozenset()
    """steps that lie in `ready`"""
    waits_standing: frozenset[str] = frozenset()
    waits_ended: Mapping[str, str] = {}
    """name -> ended, refused, deadline"""
    cancelled: bool = False
    killed: bool = False
    """the fence refused a step"""
    paused: bool = False
    skipped: frozenset[str] = frozenset()
    """steps, and waits, that a person counts as done"""
    retry_base: Mapping[str, int] = {}
    """attempts there were when a person said to try again"""
    taken_over: bool = False
    """of `client.run`: its process is gone"""
    in_line: bool = False
    """others of its subject are before it"""
    is_undoing: bool = False
    """it has turned back: late news does not turn it again"""


class Begin(Struct, frozen=True, kw_only=True):
    """A step to hand out, in so many seconds."""

    step: str
    in_seconds: float = 0.0


class Decision(Struct, frozen=True, kw_only=True):
    """What comes next. Whatever lies in `ready` of an instance that is not running is to be taken out of it."""

    state: State
    begin: tuple[Begin, ...] = ()
    waits: tuple[str, ...] = ()
    """to be set up now"""
    look_up: tuple[str, ...] = ()
    """steps whose provider is to be asked what became of them"""
    reason: str | None = None
    cause: str | None = None
    """the step, or the wait, that made it turn back or wait for a person"""


class Place(StrEnum):
    """Where a step stands. Irreversible steps count by where they stand, and without a pivot all are before it."""

    BEFORE = "before"
    PIVOT = "pivot"
    PAST = "past"


class Became(StrEnum):
    """What became of a step, or of a wait."""

    NOTHING = "nothing"
    OUT = "out"
    DONE = "done"
    AGAIN = "again"
    FAILED = "failed"
    UNKNOWN = "unknown"
    IN_DOUBT = "in_doubt"
    DOUBTED_OUT = "doubted_out"
    TURNED_DOWN = "turned_down"


class Move(StrEnum):
    """What it means for the instance."""

    BEGIN = "begin"
    STAY = "stay"
    GO_ON = "go_on"
    LOOK_UP = "look_up"
    TURN_BACK = "turn_back"
    WAIT = "wait"


COLUMNS = (Place.BEFORE, Place.PIVOT, Place.PAST)

# fmt: off
MACHINE: dict[Became, tuple[Move, Move, Move]] = {
    #                    before the pivot  the pivot        past the pivot
    Became.NOTHING:     (Move.BEGIN,      Move.BEGIN,      Move.BEGIN),      # never begun, or not set up
    Became.OUT:         (Move.STAY,       Move.STAY,       Move.STAY),       # queued, in a hand, being asked about, standing
    Became.DONE:        (Move.GO_ON,      Move.GO_ON,      Move.GO_ON),      # succeeded, skipped, assumed done, ended
    Became.AGAIN:       (Move.BEGIN,      Move.BEGIN,      Move.BEGIN),      # failed or in doubt, and may be tried again
    Became.FAILED:      (Move.TURN_BACK,  Move.TURN_BACK,  Move.WAIT),       # proven not done, and not tried again
    Became.UNKNOWN:     (Move.LOOK_UP,    Move.LOOK_UP,    Move.LOOK_UP),    # in doubt, and the provider can say
    Became.IN_DOUBT:    (Move.WAIT,       Move.WAIT,       Move.WAIT),       # in doubt, and a person is to say
    Became.DOUBTED_OUT: (Move.TURN_BACK,  Move.WAIT,       Move.WAIT),       # in doubt, and tried for as long as may be
    Became.TURNED_DOWN: (Move.TURN_BACK,  Move.TURN_BACK,  Move.WAIT),       # refused, or the deadline has passed
}
# fmt: on


class News(Struct, frozen=True):
    """What became of one step or wait, why, and when it may be begun."""

    name: str
    became: Became
    why: Why | None = None
    in_seconds: float = 0.0


def decide(plan: Plan, facts: Facts, *, chance: float) -> Decision:
    """What comes next. `chance` is in [0, 1) and spreads retries; one that would begin past its window or age does not.

    >>> plan = Plan(steps=(StepTerms(name="capture"), StepTerms(name="confirm")))
    >>> decide(plan, Facts(), chance=0).begin
    (Begin(step='capture', in_seconds=0.0),)
    >>> lost = Facts(steps={"capture": StepFact(status="failed", is_final=True)})
    >>> decide(plan, lost, chance=0).state
    <State.UNDOING: 'undoing'>
    """
    if facts.is_undoing:
        return _back(facts, None, None)
    if facts.killed:
        return Decision(state=State.KILLED)
    if facts.in_line and not facts.cancelled:
        return Decision(state=State.RUNNING, reason=Why.IN_LINE)
    news = _news(plan, facts, chance)
    is_past = any(terms.step_class == "pivot" and _is_done(news[terms.name]) for terms in plan.steps)
    stage = _stage(plan, news)
    if stage is None:
        return Decision(state=State.DONE)
    if facts.cancelled:
        past = Decision(state=State.WAITING, reason=Why.PAST_PIVOT)
        return past if is_past else _back(facts, Why.CANCELLED, None)
    if facts.taken_over and not is_past:
        return _unless_paused(_back(facts, Why.TAKEN_OVER, None), facts)
    return _unless_paused(_next(plan, facts, stage, news, is_past=is_past), facts)


def may_begin(plan: Plan, facts: Facts, step: str) -> bool:
    """Whether a step that lies in `ready` may be handed out now: facts may have changed since it was laid there."""
    if facts.paused or facts.in_line or not _is_queued(step, facts) or decide(plan, facts, chance=0).state is not State.RUNNING:
        return False
    fact = facts.steps.get(step)
    is_in_hand = fact is not None and fact.status == "admitted" and fact.is_leased
    return not is_in_hand and any(terms.name == step for terms in _stage(plan, _news(plan, facts, 0)) or ())


def stages(plan: Plan) -> Iterator[tuple[StepTerms, ...]]:
    """Steps that run beside each other, in order: neighbours of one group, and every other step by itself."""
    for _, stage in groupby(enumerate(plan.steps), lambda each: each[1].group or each[0]):
        yield tuple(terms for _, terms in stage)


def _news(plan: Plan, facts: Facts, chance: float) -> dict[str, News]:
    return {terms.name: _became(terms, facts, chance) for terms in plan.steps}


def _stage(plan: Plan, news: Mapping[str, News]) -> tuple[StepTerms, ...] | None:
    """The first stage that is not done, or null."""
    return next((stage for stage in stages(plan) if not all(_is_done(news[terms.name]) for terms in stage)), None)


def _next(plan: Plan, facts: Facts, stage: tuple[StepTerms, ...], news: Mapping[str, News], *, is_past: bool) -> Decision:
    """What the stage that is not done comes to: its waits one after another, then its steps all at once."""
    names = {terms.name for terms in stage}
    column = Place.PAST if is_past else Place.BEFORE
    for terms in (wait for wait in plan.waits if wait.before in names):
        wait = _ended(terms, facts)
        if not _is_done(wait):
            return _weigh(facts, [(wait, column)], are_waits=True)
    places = [Place.PIVOT if terms.step_class == "pivot" else column for terms in stage]
    return _weigh(facts, [(news[terms.name], place) for terms, place in zip(stage, places, strict=True)])


def _weigh(facts: Facts, found: list[tuple[News, Place]], *, are_waits: bool = False) -> Decision:
    """One that turns back outweighs its siblings, then one that waits for a person: nothing new begins beside either."""
    moves = [(news, MACHINE[news.became][COLUMNS.index(place)]) for news, place in found]
    for news, move in moves:
        if move is Move.TURN_BACK:
            return _back(facts, news.why, news.name)
    for news, move in moves:
        if move is Move.WAIT:
            return Decision(state=State.WAITING, reason=news.why, cause=news.name)
    begin = tuple(Begin(step=news.name, in_seconds=news.in_seconds) for news, move in moves if move is Move.BEGIN)
    if are_waits:
        return Decision(state=State.RUNNING, waits=tuple(each.step for each in begin))
    return Decision(state=State.RUNNING, begin=begin, look_up=tuple(news.name for news, move in moves if move is Move.LOOK_UP))


def _back(facts: Facts, why: Why | None, cause: str | None) -> Decision:
    """Turned back: what is in hands is let end before the undoing is laid down."""
    is_draining = any(fact.status == "admitted" and fact.is_leased for fact in facts.steps.values())
    return Decision(state=State.UNDOING, reason=Why.DRAINING if is_draining else why, cause=cause)


def _unless_paused(decision: Decision, facts: Facts) -> Decision:
    """Nothing begins while it is paused, its undoing neither; a cancel is a person's own word, and does not come here."""
    if facts.paused and decision.state in (State.RUNNING, State.UNDOING):
        return Decision(state=State.RUNNING, reason=Why.PAUSED)
    return decision


def _ended(terms: WaitTerms, facts: Facts) -> News:
    if terms.name in facts.skipped:
        return News(terms.name, Became.DONE)
    match facts.waits_ended.get(terms.name):
        case None:
            return News(terms.name, Became.OUT if terms.name in facts.waits_standing else Became.NOTHING)
        case "refused":
            return News(terms.name, Became.TURNED_DOWN, Why.REFUSED)
        case "deadline" if terms.on_deadline == "undo":
            return News(terms.name, Became.TURNED_DOWN, Why.DEADLINE)
        case _:
            return News(terms.name, Became.DONE)


def _became(terms: StepTerms, facts: Facts, chance: float) -> News:
    fact = facts.steps.get(terms.name)
    if fact is not None and fact.status == "admitted" and fact.is_leased:
        return News(terms.name, Became.OUT)
    if terms.name in facts.skipped or (fact is not None and fact.status == "succeeded"):
        return News(terms.name, Became.DONE)
    is_queued = _is_queued(terms.name, facts)
    if fact is None:
        return News(terms.name, Became.OUT if is_queued else Became.NOTHING)
    base = facts.retry_base.get(terms.name, 0)
    if base >= fact.attempt:
        return News(terms.name, Became.OUT if is_queued else Became.AGAIN)
    if fact.status != "failed" and not (terms.act_in_doubt == "again" and terms.act_guarantee == "at_least_once"):
        return _doubt(terms, fact)
    return _again(terms, fact, base, is_queued=is_queued, chance=chance)


def _again(terms: StepTerms, fact: StepFact, base: int, *, is_queued: bool, chance: float) -> News:
    """A try that came to nothing, or to doubt under a key that is recognised. A person's retry counts attempts anew, and asks
    for no age."""
    attempt, is_doubt = fact.attempt - base - fact.given_back, fact.status != "failed"
    delay = 0.0 if is_queued else _delay(terms, attempt, chance)
    if fact.is_final:
        why = Why.FAILED
    elif is_doubt and fact.since_first_seconds + delay >= terms.window_seconds:
        why = Why.WINDOW_PASSED
    elif is_queued:
        return News(terms.name, Became.OUT)
    elif attempt >= terms.attempts_max:
        why = Why.ATTEMPTS_EXHAUSTED
    elif not base and terms.age_seconds is not None and fact.since_first_seconds + delay >= terms.age_seconds:
        why = Why.AGE_EXHAUSTED
    else:
        return News(terms.name, Became.AGAIN, in_seconds=delay)
    return News(terms.name, Became.DOUBTED_OUT if is_doubt else Became.FAILED, why)


def _doubt(terms: StepTerms, fact: StepFact) -> News:
    """In doubt, and not simply begun again."""
    match terms.act_in_doubt, fact.looking:
        case "assume_done", _:
            return News(terms.name, Became.DONE)
        case "look_up", "not":
            return News(terms.name, Became.UNKNOWN)
        case "look_up", "asked":
            return News(terms.name, Became.OUT)
        case "look_up", _:
            return News(terms.name, Became.IN_DOUBT, Why.LOOK_UP_EXHAUSTED)
        case _:
            return News(terms.name, Became.IN_DOUBT, Why.IN_DOUBT)


def _delay(terms: StepTerms, attempt: int, chance: float) -> float:
    return delay_seconds(
        max(1, attempt), first_seconds=terms.first_seconds, factor=terms.factor, cap_seconds=terms.cap_seconds, chance=chance
    )


def _is_queued(step: str, facts: Facts) -> bool:
    fact = facts.steps.get(step)
    return step in facts.queued or (fact is not None and fact.queued)


def _is_done(news: News) -> bool:
    return news.became is Became.DONE

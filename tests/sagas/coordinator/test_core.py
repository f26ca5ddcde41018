"""The pure core: order, pace, retries, the compensation machine, verdicts."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagas.core.compensation import MACHINE, Event, Guarantee, Reason, State, Trial, after, may_begin
from sagas.core.order import Candidate, Choice, Place, Stand, blocked, choose, relaxed
from sagas.core.pacing import BURST_SECONDS, Limits, allowance, cost_seconds
from sagas.core.retry import delay_seconds
from sagas.core.rollbacks import Phase, Step, next_step, opening
from sagas.core.verdicts import Fate, Terms, judge

START = datetime(2026, 1, 1, tzinfo=UTC)
PLACE: Place = ("payment.capture", "payments")


def at(second: int) -> datetime:
    return START + timedelta(seconds=second)


# (instance, second, compensation): where the effects of each compensation stand
Standing = tuple[int, int, int]
standings = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 20), st.integers(0, 9)), min_size=1, max_size=30)


def world(standing: list[Standing], done: set[int], subjects: dict[int, str]) -> tuple[list[Candidate], list[Stand]]:
    left = sorted({number for _, _, number in standing} - done)
    candidates = [
        Candidate(
            id=UUID(int=number),
            place=PLACE,
            subject=subjects.get(number),
            merged=len([1 for _, _, other in standing if other == number]) > 1,
        )
        for number in left
    ]
    stands = [
        Stand(instance=("order", str(instance)), position=at(second), compensation_id=UUID(int=number))
        for instance, second, number in standing
        if number not in done
    ]
    return candidates, stands


def choice_of(standing: list[Standing], done: set[int], subjects: dict[int, str], limit: int = 99) -> Choice:
    candidates, stands = world(standing, done, subjects)
    return choose(candidates, stands, allowances={PLACE: 99}, limit=limit)


@given(standings)
def test_what_is_chosen_has_nothing_later_in_any_of_its_saga_instances(standing: list[Standing]) -> None:  # P14
    for chosen in choice_of(standing, set(), {}).chosen:
        for instance in {i for i, _, number in standing if number == chosen.id.int}:
            own = max(second for i, second, number in standing if i == instance and number == chosen.id.int)
            assert all(second <= own for i, second, number in standing if i == instance and number != chosen.id.int)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 20)), min_size=1, max_size=30))
def test_without_merged_ones_the_order_never_closes_a_circle(places: list[tuple[int, int]]) -> None:  # P14
    standing = [(instance, second, number) for number, (instance, second) in enumerate(places)]
    done: set[int] = set()
    while len(done) < len(standing):
        chosen = choice_of(standing, done, {}).chosen
        assert chosen
        done |= {each.id.int for each in chosen}


@given(standings)
def test_a_circle_is_opened_at_a_merged_one_and_everything_ends(standing: list[Standing]) -> None:  # P14
    done: set[int] = set()
    for _ in range(100):
        candidates, stands = world(standing, done, {})
        if not candidates:
            return
        chosen = choose(candidates, stands, allowances={PLACE: 99}, limit=99).chosen
        if not chosen:
            one = relaxed(candidates, stands)
            assert one is not None
            assert one.merged
            chosen = [one]
        done |= {each.id.int for each in chosen}
    raise AssertionError("it does not end")


@given(standings, st.dictionaries(st.integers(0, 9), st.sampled_from("abc")), st.integers(1, 5))
def test_a_subject_is_chosen_once_and_no_limit_is_passed(
    standing: list[Standing], subjects: dict[int, str], limit: int
) -> None:  # P14, P17
    chosen = choice_of(standing, set(), subjects, limit).chosen
    named = [each.subject for each in chosen if each.subject is not None]
    assert len(named) == len(set(named))
    assert len(chosen) <= limit


def test_an_undetermined_effect_holds_back_what_was_completed_before() -> None:  # P14, P16
    one = Candidate(id=UUID(int=1), place=PLACE)
    stands = [
        Stand(instance=("order", "1"), position=at(1), compensation_id=one.id),
        Stand(instance=("order", "1"), position=datetime.max.replace(tzinfo=UTC), compensation_id=None),
    ]
    assert blocked([one], stands) == {one.id}


def test_what_may_begin_in_its_turn_is_no_circle() -> None:  # P14
    candidates, stands = world([(1, 1, 1), (2, 1, 1), (1, 2, 2), (2, 2, 2)], set(), {})
    assert all(candidate.merged for candidate in candidates)
    assert relaxed(candidates, stands) is None


def test_open_and_busy_ones_do_not_begin() -> None:  # hazards 16 and 18
    candidates = [
        Candidate(id=UUID(int=1), place=PLACE, merged=True, is_open=True),
        Candidate(id=UUID(int=2), place=PLACE, subject="c1", is_busy=True),
    ]
    choice = choose(candidates, [], allowances={PLACE: 9}, limit=9)
    assert (choice.chosen, choice.orderly, choice.free) == ([], 1, 0)
    assert relaxed(candidates, []) is None


@given(st.floats(1, 5000), st.lists(st.tuples(st.floats(0, 0.5), st.integers(1, 64)), max_size=40))
def test_no_second_begins_more_than_rate_and_burst(rate: float, asks: list[tuple[float, int]]) -> None:  # P17
    limits = Limits(per_second=rate)
    now, next_at, begun = 0.0, float("-inf"), []
    for pause, wanted in asks:
        now += pause
        count = allowance(limits, running=0, idle_seconds=min(now - next_at, 86_400), at_most=wanted)
        if count:
            next_at = max(next_at, now - BURST_SECONDS) + cost_seconds(limits, count)
            begun += [now] * count
    for start in begun:
        assert sum(start <= moment < start + 1 for moment in begun) <= rate * (1 + BURST_SECONDS) + 2


@given(st.integers(1, 50), st.integers(0, 60), st.integers(0, 64))
def test_no_more_run_than_may(limit: int, running: int, wanted: int) -> None:  # P17
    count = allowance(Limits(concurrency_max=limit), running=running, idle_seconds=0, at_most=wanted)
    assert 0 <= count <= wanted
    assert count == 0 or running + count <= limit


@given(st.integers(1, 10_000), st.floats(0.001, 100), st.floats(1, 10), st.floats(0, 0.999))
def test_a_wait_is_never_longer_than_its_cap(attempt: int, first: float, factor: float, chance: float) -> None:
    delay = delay_seconds(attempt, first_seconds=first, factor=factor, cap_seconds=300, chance=chance)
    assert 0 <= delay <= 300


trials = st.builds(
    Trial,
    guarantee=st.sampled_from(Guarantee),
    attempt=st.integers(1, 30),
    attempts_max=st.integers(1, 20),
    doubtful=st.booleans(),
    since_first_seconds=st.floats(0, 1e6),
    window_seconds=st.floats(0, 1e6),
)


def test_the_machine_knows_every_event() -> None:
    assert set(MACHINE) == set(Event)


@given(trials, st.sampled_from(Event), st.floats(0, 1e4))
def test_what_may_have_acted_is_repeated_only_under_a_key_inside_the_window(
    trial: Trial, event: Event, delay: float
) -> None:  # P13
    move = after(trial, event, delay_seconds=delay)
    unknown = event in (Event.DOUBT, Event.INTERRUPTED)
    if unknown and trial.guarantee is Guarantee.AT_MOST_ONCE:
        assert move.state is State.WAITING
    if move.state is State.DUE and (unknown or trial.doubtful):
        assert move.doubtful
        assert move.keeps_subject
        assert trial.since_first_seconds + delay < trial.window_seconds
    assert (move.state is State.FINAL) == (event is Event.DONE)
    assert (move.reason is not None) == (move.state is State.WAITING)
    if trial.doubtful and move.state is not State.FINAL:
        assert move.doubtful, "a doubt is never forgotten"


@given(trials)
def test_attempts_are_bounded(trial: Trial) -> None:  # P16
    move = after(trial, Event.NOT_YET, delay_seconds=0)
    if trial.attempt >= trial.attempts_max:
        assert move.state is State.WAITING
    if move.reason is Reason.WINDOW_PASSED:
        assert trial.doubtful
    assert may_begin(trial) or trial.doubtful


@given(trials, st.floats(0, 1e4), st.floats(1, 1e6))
def test_no_attempt_is_laid_down_past_its_age(trial: Trial, delay: float, age: float) -> None:  # P16
    aged = msgspec.structs.replace(trial, age_seconds=age)
    move = after(aged, Event.NOT_YET, delay_seconds=delay)
    if trial.since_first_seconds + delay >= age:
        assert move.state is State.WAITING
    else:
        assert move == after(trial, Event.NOT_YET, delay_seconds=delay)


@given(
    st.sampled_from(["admitted", "succeeded", "failed", "in_doubt"]),
    st.one_of(
        st.none(),
        st.builds(
            Terms,
            irreversible=st.booleans(),
            has_compensation=st.booleans(),
            has_notice=st.booleans(),
            notice_approved=st.booleans(),
            in_doubt=st.sampled_from(["look_up", "same_key", "assume_done", "wait"]),
            can_look_up=st.booleans(),
        ),
    ),
    st.floats(-100, 100),
)
def test_no_verdict_guesses(status: str, terms: Terms | None, settles: float) -> None:  # P12, P16
    verdict = judge(status, terms, settles_in_seconds=settles)
    assert (verdict.fate is Fate.NEVER_HAPPENED) == (status == "failed")
    assert (verdict.fate is Fate.WAIT) == (verdict.reason is not None)
    if status == "admitted" and settles > 0:
        assert verdict.fate is Fate.UNDETERMINED
    if verdict.fate in (Fate.UNDO, Fate.NOTICE, Fate.IRREVERSIBLE):
        assert terms is not None
        assert status == "succeeded" or terms.in_doubt == "assume_done"
        assert (verdict.fate is Fate.UNDO) == (not terms.irreversible)
    if verdict.fate is Fate.NOTICE:
        assert terms is not None
        assert terms.notice_approved
    if verdict.fate is Fate.LOOK_UP:
        assert terms is not None
        assert terms.can_look_up


@pytest.mark.parametrize(
    ("compensate", "grace", "state"),
    [("auto", 0.0, "compensating"), ("auto", 5.0, "grace"), ("hold", 0.0, "held"), ("none", 5.0, "settled")],
)
def test_where_a_drained_rollback_goes(compensate: str, grace: float, state: str) -> None:  # P17
    assert opening(compensate, grace).state == state
    ends = "settled" if compensate == "none" else "compensating"
    assert opening(compensate, grace, cancelled=True).state == ends, "there is nothing to hold back: the rest is skipped"


def test_nothing_is_compensated_before_the_set_is_closed_and_drained() -> None:  # P8
    states = ("fenced", "drained", "grace", "held", "compensating", "paused", "waiting", "settled")
    for state, closed, drained, unclosed, ended in itertools.product(states, (0, 1), (0, 1), (0, 2), (0, 1)):
        phase = Phase(state=state, is_closed=bool(closed), is_drained=bool(drained), flags_unclosed=unclosed, ended=bool(ended))
        if next_step(phase) is Step.COMPENSATE:
            assert closed
            assert drained
            assert not unclosed
            assert not ended

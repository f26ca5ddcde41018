"""The saga machine, case by case (docs/decisions/0024): what each fact makes of an instance."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from sagas.core.instances import (
    MACHINE,
    Became,
    Begin,
    Decision,
    Facts,
    Plan,
    State,
    StepFact,
    StepTerms,
    WaitTerms,
    decide,
    may_begin,
    stages,
)

DONE = StepFact(status="succeeded")
OUT = StepFact(status="admitted", is_leased=True)
LOST = StepFact(status="admitted", attempt=1)
FAILED = StepFact(status="failed")
NEVER = StepFact(status="failed", is_final=True)
DOUBT = StepFact(status="in_doubt")


def terms(name: str, **said: Any) -> StepTerms:
    return StepTerms(name=name, **said)


ORDER = Plan(
    steps=(
        terms("reserve"),
        terms("capture", step_class="pivot"),
        terms("ship", step_class="retriable"),
        terms("mail", step_class="irreversible"),
    )
)


def one(step: StepFact | None, **said: Any) -> Decision:
    """The decision of a plan of one step, with terms and facts as said."""
    facts = {name: said.pop(name) for name in ("retry_base", "skipped", "queued", "paused", "cancelled") if name in said}
    plan = Plan(steps=(terms("a", **said),))
    return decide(plan, Facts(steps={"a": step} if step else {}, **facts), chance=0.5)


def order(chance: float = 0, **facts: Any) -> Decision:
    """The decision of `ORDER`; steps by name, facts by theirs."""
    steps = {name: facts.pop(name) for name in ("reserve", "capture", "ship", "mail") if name in facts}
    return decide(ORDER, Facts(steps=steps, **facts), chance=chance)


def test_every_row_of_the_table_is_there() -> None:
    assert set(MACHINE) == set(Became)


def test_steps_come_one_after_another() -> None:
    assert order().begin == (Begin(step="reserve"),)
    assert order(reserve=OUT) == Decision(state=State.RUNNING)
    assert order(queued=frozenset({"reserve"})) == Decision(state=State.RUNNING)
    assert order(reserve=DONE).begin == (Begin(step="capture"),)
    assert order(reserve=DONE, capture=DONE, ship=DONE, mail=DONE) == Decision(state=State.DONE)


def test_neighbours_of_a_group_begin_beside_each_other_and_nothing_past_them() -> None:
    plan = Plan(steps=(terms("a", group="g"), terms("b", group="g"), terms("c"), terms("d", group="g")))
    assert [[each.name for each in stage] for stage in stages(plan)] == [["a", "b"], ["c"], ["d"]]
    assert [begin.step for begin in decide(plan, Facts(), chance=0).begin] == ["a", "b"]
    assert decide(plan, Facts(steps={"a": DONE, "b": OUT}), chance=0).begin == ()


@pytest.mark.parametrize("fact", [FAILED, DOUBT, LOST])
def test_what_may_be_tried_again_is_begun_after_its_delay_with_jitter(fact: StepFact) -> None:
    assert one(fact, first_seconds=8).begin == (Begin(step="a", in_seconds=4.0),)


@pytest.mark.parametrize(
    ("fact", "said", "why"),
    [
        (NEVER, {}, "failed"),
        (StepFact(status="failed", attempt=3), {"attempts_max": 3}, "attempts_exhausted"),
        (StepFact(status="failed", since_first_seconds=60), {"age_seconds": 60}, "age_exhausted"),
        (StepFact(status="in_doubt", attempt=3), {"attempts_max": 3}, "attempts_exhausted"),
        (StepFact(status="in_doubt", since_first_seconds=600), {"window_seconds": 600}, "provider_window_passed"),
    ],
)
def test_what_is_given_up_turns_back_before_the_pivot_and_waits_past_it(
    fact: StepFact, said: dict[str, Any], why: str
) -> None:  # P13, P16
    assert one(fact, **said) == Decision(state=State.UNDOING, reason=why, cause="a")
    plan = Plan(steps=(terms("p", step_class="pivot"), terms("a", step_class="retriable", **said)))
    past = decide(plan, Facts(steps={"p": DONE, "a": fact}), chance=0.5)
    assert past == Decision(state=State.WAITING, reason=why, cause="a")


def test_a_pivot_that_failed_turns_back_and_one_in_doubt_is_a_persons() -> None:  # P16
    assert order(reserve=DONE, capture=NEVER).state is State.UNDOING
    given_up = StepFact(status="in_doubt", attempt=20)
    assert order(reserve=DONE, capture=given_up) == Decision(state=State.WAITING, reason="attempts_exhausted", cause="capture")


def test_an_irreversible_step_counts_by_where_it_stands() -> None:
    before = Plan(steps=(terms("mail", step_class="irreversible"), terms("capture", step_class="pivot")))
    assert decide(before, Facts(steps={"mail": NEVER}), chance=0).state is State.UNDOING
    assert order(reserve=DONE, capture=DONE, ship=DONE, mail=NEVER).state is State.WAITING


@pytest.mark.parametrize("fact", [DOUBT, LOST])
@pytest.mark.parametrize("said", [{"act_guarantee": "at_most_once"}, {"act_in_doubt": "wait"}])
def test_what_may_not_be_repeated_waits_in_doubt(fact: StepFact, said: dict[str, Any]) -> None:  # P13, P16
    assert one(fact, **said) == Decision(state=State.WAITING, reason="in_doubt", cause="a")


def test_an_outcome_is_assumed_or_asked_for_where_the_definition_says_so() -> None:  # P16
    assert one(DOUBT, act_in_doubt="assume_done").state is State.DONE
    assert one(DOUBT, act_in_doubt="look_up").look_up == ("a",)
    asked, in_vain = (StepFact(status="in_doubt", looking=looking) for looking in ("asked", "in_vain"))
    assert one(asked, act_in_doubt="look_up") == Decision(state=State.RUNNING)
    assert one(in_vain, act_in_doubt="look_up").reason == "look_up_exhausted"


def test_nothing_begins_while_others_of_its_subject_are_before_it() -> None:
    plan = Plan(steps=(terms("a"),))
    following = Facts(in_line=True, queued=frozenset({"a"}))
    assert decide(plan, following, chance=0) == Decision(state=State.RUNNING, reason="in_line")
    assert not may_begin(plan, following, "a")
    assert decide(plan, Facts(in_line=True, cancelled=True), chance=0).state is State.UNDOING
    assert decide(plan, Facts(in_line=True, killed=True), chance=0).state is State.KILLED


def test_a_sibling_that_turns_back_lets_the_others_end_first() -> None:
    plan = Plan(steps=(terms("a", group="g"), terms("b", group="g"), terms("c", group="g")))
    draining = decide(plan, Facts(steps={"a": NEVER, "b": OUT}), chance=0)
    assert draining == Decision(state=State.UNDOING, reason="draining", cause="a")
    assert decide(plan, Facts(steps={"a": NEVER, "b": DONE}), chance=0).reason == "failed"
    lost = decide(plan, Facts(steps={"a": NEVER, "b": LOST}), chance=0)  # how its doubt ends is the undoing's matter
    assert lost.reason == "failed"


def test_beside_a_sibling_that_waits_for_a_person_nothing_begins() -> None:
    plan = Plan(steps=(terms("a", group="g", act_in_doubt="wait"), terms("b", group="g")))
    assert decide(plan, Facts(steps={"a": DOUBT}), chance=0) == Decision(state=State.WAITING, reason="in_doubt", cause="a")
    assert decide(plan, Facts(steps={"a": DOUBT, "b": NEVER}), chance=0).state is State.UNDOING


def test_a_persons_retry_begins_at_once_whatever_came_of_it_and_counts_anew() -> None:
    tried = StepFact(status="in_doubt", attempt=3)
    assert one(tried, act_in_doubt="wait", retry_base={"a": 3}).begin == (Begin(step="a"),)
    assert one(tried, act_in_doubt="wait", retry_base={"a": 3}, queued=frozenset({"a"})).begin == ()
    again = StepFact(status="failed", attempt=4, since_first_seconds=9_999)
    assert one(again, attempts_max=2, age_seconds=10, retry_base={"a": 3}).begin[0].step == "a"
    over = StepFact(status="failed", attempt=5)
    assert one(over, attempts_max=2, retry_base={"a": 3}).reason == "attempts_exhausted"


def test_a_skipped_step_counts_as_done_once_it_is_in_no_hand() -> None:
    skipped = frozenset({"capture"})
    assert order(reserve=DONE, capture=OUT, skipped=skipped).begin == ()
    assert order(reserve=DONE, capture=DOUBT, skipped=skipped).begin == (Begin(step="ship"),)
    assert order(reserve=DONE, skipped=skipped, ship=NEVER).state is State.WAITING  # the pivot is passed


def test_a_cancel_undoes_before_the_pivot_and_is_a_persons_past_it() -> None:
    assert order(cancelled=True).reason == "cancelled"
    assert order(reserve=OUT, cancelled=True).reason == "draining"
    assert order(reserve=DONE, capture=DOUBT, cancelled=True).state is State.UNDOING
    assert order(reserve=DONE, capture=DONE, cancelled=True) == Decision(state=State.WAITING, reason="past_pivot")


def test_one_whose_process_is_gone_goes_forward_only_past_its_pivot() -> None:
    assert order(reserve=DONE, taken_over=True) == Decision(state=State.UNDOING, reason="taken_over")
    assert order(reserve=DONE, capture=LOST, taken_over=True).state is State.UNDOING
    assert order(reserve=DONE, capture=DONE, taken_over=True).begin == (Begin(step="ship"),)


def test_a_killed_one_is_killed_past_its_pivot_too() -> None:  # P8
    assert order(killed=True) == Decision(state=State.KILLED)
    assert order(reserve=DONE, capture=DONE, ship=FAILED, killed=True, cancelled=True).state is State.KILLED


def test_paused_nothing_begins_its_undoing_neither_and_a_cancel_goes_through() -> None:
    held = Decision(state=State.RUNNING, reason="paused")
    assert order(paused=True) == held
    assert order(reserve=NEVER, paused=True) == held
    assert order(reserve=NEVER, paused=True, cancelled=True).state is State.UNDOING
    assert order(reserve=DONE, capture=DONE, ship=NEVER, paused=True).state is State.WAITING


def test_once_turned_back_late_news_does_not_turn_it_again() -> None:  # P11
    assert order(reserve=DONE, is_undoing=True) == Decision(state=State.UNDOING)
    assert order(reserve=OUT, is_undoing=True).reason == "draining"


WAITING = Plan(
    steps=(terms("a"), terms("b", group="g"), terms("c", group="g"), terms("p", step_class="pivot"), terms("d")),
    waits=(
        WaitTerms(name="cool", before="c", what="delay", seconds=60),
        WaitTerms(name="agree", before="b", what="approval", deadline_seconds=60),
        WaitTerms(name="late", before="d", what="event", deadline_seconds=60, on_deadline="go_on"),
    ),
)


def waiting(*done: str, **facts: Any) -> Decision:
    return decide(WAITING, Facts(steps=dict.fromkeys(done, DONE), **facts), chance=0)


def test_waits_stand_one_after_another_before_the_whole_group() -> None:
    assert waiting().begin == (Begin(step="a"),)
    assert waiting("a") == Decision(state=State.RUNNING, waits=("cool",))
    assert waiting("a", waits_standing=frozenset({"cool"})) == Decision(state=State.RUNNING)
    assert waiting("a", waits_ended={"cool": "ended"}).waits == ("agree",)
    ended = waiting("a", waits_ended={"cool": "ended", "agree": "ended"})
    assert [begin.step for begin in ended.begin] == ["b", "c"]


@pytest.mark.parametrize(("how", "why"), [("refused", "refused"), ("deadline", "deadline")])
def test_a_wait_that_is_turned_down_turns_back_before_the_pivot_and_waits_past_it(how: str, why: str) -> None:
    before = waiting("a", waits_ended={"cool": "ended", "agree": how})
    assert before == Decision(state=State.UNDOING, reason=why, cause="agree")
    past = waiting("a", "b", "c", "p", waits_ended={"cool": "ended", "agree": "ended", "late": "refused"})
    assert past == Decision(state=State.WAITING, reason="refused", cause="late")


def test_a_deadline_may_go_on_and_a_person_may_skip_a_wait() -> None:
    ended = {"cool": "ended", "agree": "ended"}
    assert waiting("a", "b", "c", "p", waits_ended={**ended, "late": "deadline"}).begin == (Begin(step="d"),)
    assert len(waiting("a", skipped=frozenset({"cool", "agree"})).begin) == 2


def test_a_queued_step_is_handed_out_only_while_its_instance_runs() -> None:  # P8, P13
    queued = frozenset({"reserve"})
    assert may_begin(ORDER, Facts(queued=queued), "reserve")
    assert may_begin(ORDER, Facts(queued=queued, steps={"reserve": FAILED}), "reserve")
    for facts in (
        Facts(),
        Facts(queued=queued, paused=True),
        Facts(queued=queued, cancelled=True),
        Facts(queued=queued, killed=True),
        Facts(queued=queued, steps={"reserve": DONE}),
        Facts(queued=queued, steps={"reserve": OUT}),
        Facts(queued=queued, steps={"reserve": StepFact(status="in_doubt", since_first_seconds=86_400)}),
    ):
        assert not may_begin(ORDER, facts, "reserve")


@given(some.floats(0, 1, exclude_max=True), some.integers(1, 19), some.sampled_from(["failed", "in_doubt"]))
def test_a_retry_is_never_later_than_its_bound(chance: float, attempt: int, status: Any) -> None:
    plan = Plan(steps=(terms("a", first_seconds=1, factor=2, cap_seconds=30),))
    begin = decide(plan, Facts(steps={"a": StepFact(status=status, attempt=attempt)}), chance=chance).begin[0]
    assert 0 <= begin.in_seconds <= min(30, 2 ** (attempt - 1))

"""Lives of saga instances over the pure machine: a world in which steps fail, time out and are lost, reports come late, people
cancel, pause, skip and retry, and flags are killed. Every promise is an invariant of its own; RESCIND_TEST_LONG=1 lives longer.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import msgspec
from hypothesis import assume, settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sagas.core.instances import Decision, Facts, Plan, State, StepFact, StepTerms, WaitTerms, decide, may_begin, stages

LONG = os.environ.get("RESCIND_TEST_LONG") == "1"
HEALING_ROUNDS = 400
"""More than all attempts of all steps, their waits, and a person's word on each."""
ATTEMPTS_MAX = 3
WINDOW_SECONDS = 1_000.0

numbers = some.integers(0, 5)
chances = some.floats(0, 1, exclude_max=True)
acts = some.fixed_dictionaries(
    {
        "act_guarantee": some.sampled_from(["at_least_once", "at_most_once"]),
        "act_in_doubt": some.sampled_from(["again", "wait", "look_up", "assume_done"]),
    },
    optional={"age_seconds": some.sampled_from([5.0, 500.0])},
)
shapes = some.lists(some.tuples(some.booleans(), some.booleans(), acts), min_size=2, max_size=5)


def plan_of(shape: list[tuple[bool, bool, dict[str, Any]]], pivot: int, waits: list[WaitTerms]) -> Plan:
    """Steps s0, s1, ... with their pivot, if the number is of one; the first flag groups with the one before, the second makes
    irreversible."""
    steps: list[StepTerms] = []
    for index, (joins, irreversible, act) in enumerate(shape):
        if index == pivot:
            group, step_class = None, "pivot"
        else:
            before = steps[-1].group if steps and joins else None
            group = before or f"g{index}"
            step_class = "irreversible" if irreversible else "retriable" if index > pivot else "compensatable"
        said = {"name": f"s{index}", "group": group, "step_class": step_class}
        common = {"attempts_max": ATTEMPTS_MAX, "window_seconds": WINDOW_SECONDS}
        steps.append(msgspec.convert({**common, **act, **said}, StepTerms))
    names = {step.name for step in steps}
    return Plan(steps=tuple(steps), waits=tuple(wait for wait in waits if wait.before in names))


class Lives(RuleBasedStateMachine):
    """The shell that the machine asks for: it keeps facts and a queue, and does what a decision says, nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.plan = Plan(steps=(StepTerms(name="s0"),))
        self.facts = Facts()
        self.decision = Decision(state=State.RUNNING)
        self.hands: Counter[str] = Counter()
        self.tries: list[str] = []
        self.states: list[State] = []
        self.given_back: set[str] = set()

    # --- the shell ---------------------------------------------------------------------------------------------------

    def learn(self, **changed: Any) -> None:
        self.facts = msgspec.structs.replace(self.facts, **changed)

    def learn_of(self, step: str, **changed: Any) -> None:
        fact = msgspec.structs.replace(self.facts.steps[step], **changed)
        self.learn(steps={**self.facts.steps, step: fact})

    def look(self, chance: float = 0.5) -> None:
        """Decide, lay down what was asked for, and see that nothing is asked for twice."""
        self.decision = decide(self.plan, self.facts, chance=chance)
        self.states.append(self.decision.state)
        self.learn(
            queued=self.facts.queued | {begin.step for begin in self.decision.begin},
            waits_standing=self.facts.waits_standing | set(self.decision.waits),
            is_undoing=self.decision.state is State.UNDOING,
        )
        for step in self.decision.look_up:
            self.learn_of(step, looking="asked")
        if self.decision.state is not State.RUNNING:
            self.learn(queued=frozenset())
        if self.decision.state is State.KILLED:
            delays = {wait.name for wait in self.plan.waits if wait.what == "delay"}
            self.learn(waits_standing=self.facts.waits_standing & delays)
        again = decide(self.plan, self.facts, chance=chance)
        assert (again.begin, again.waits, again.look_up) == ((), (), ()), "asked for twice"
        assert again.state is self.decision.state

    @initialize(
        shape=shapes,
        pivot=some.sampled_from([1, 0, 2, 3, 9]),
        ahead=some.integers(0, 4),
        waits=some.lists(
            some.tuples(numbers, some.sampled_from(["delay", "event", "approval"]), some.sampled_from(["undo", "go_on"])),
            max_size=2,
        ),
    )
    def begin(self, shape: list[tuple[bool, bool, dict[str, Any]]], pivot: int, ahead: int, waits: list[Any]) -> None:
        terms = [
            WaitTerms(name=f"w{index}", before=f"s{number}", what=what, on_deadline=on_deadline)
            for index, (number, what, on_deadline) in enumerate(waits)
        ]
        self.plan = plan_of(shape, pivot, terms)
        self.look()
        for _ in range(ahead):
            self.all_goes_well()

    def take(self, step: str) -> None:
        """Hand a queued step out, if it still may be."""
        may = may_begin(self.plan, self.facts, step)
        self.learn(queued=self.facts.queued - {step})
        if not may:
            return
        self.check_stage(step)
        before = self.facts.steps.get(step)
        attempt = before.attempt + 1 if before else 1
        since = before.since_first_seconds if before else 0.0
        fact = StepFact(status="admitted", attempt=attempt, is_leased=True, since_first_seconds=since)
        self.learn(steps={**self.facts.steps, step: fact})
        self.hands[step] += 1
        self.tries.append(step)

    def check_stage(self, step: str) -> None:
        """Never a step before its stage, never past the window, never forward after back."""
        facts = self.facts
        for stage in stages(self.plan):
            names = {terms.name for terms in stage}
            if step in names:
                for wait in (wait for wait in self.plan.waits if wait.before in names):
                    assert wait.name in facts.waits_ended or wait.name in facts.skipped, "begun before its wait ended"
                break
            for terms in stage:
                assert self.is_done(terms), "begun before its stage"
        assert State.UNDOING not in self.states, "forward after back"
        assert not facts.killed and not facts.paused and not facts.cancelled  # noqa: PT018
        fact = facts.steps.get(step)
        if fact is not None and fact.status != "failed" and facts.retry_base.get(step, 0) < fact.attempt:
            terms = next(terms for terms in self.plan.steps if terms.name == step)
            assert terms.act_guarantee == "at_least_once", "repeated what may be done once at most"
            assert fact.since_first_seconds < WINDOW_SECONDS, "repeated past the window"

    def is_done(self, terms: StepTerms) -> bool:
        fact = self.facts.steps.get(terms.name)
        if fact is not None and fact.status == "admitted" and fact.is_leased:
            return False
        if terms.name in self.facts.skipped or (fact is not None and fact.status == "succeeded"):
            return True
        return fact is not None and fact.status in ("admitted", "in_doubt") and terms.act_in_doubt == "assume_done"

    def end(self, step: str, **became: Any) -> None:
        self.hands[step] = 0
        self.learn_of(step, is_leased=False, **became)

    def out(self) -> list[str]:
        return sorted(step for step, count in self.hands.items() if count)

    def pick(self, number: int, among: Any) -> str:
        found = sorted(among)
        assume(found)
        return str(found[number % len(found)])

    def doubted(self) -> list[str]:
        return [name for name, fact in self.facts.steps.items() if fact.status != "succeeded" and not self.hands[name]]

    # --- what happens ------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.facts.queued)
    @rule(number=numbers)
    def a_worker_takes_one(self, number: int) -> None:
        self.take(self.pick(number, self.facts.queued))
        self.look()

    @precondition(lambda self: self.facts.queued or self.out())
    @rule()
    def what_is_out_goes_well(self) -> None:
        self.all_goes_well()

    @precondition(lambda self: self.facts.queued)
    @rule(how=some.sampled_from(["in_doubt", "failed", "admitted"]))
    def what_is_out_goes_wrong(self, how: str) -> None:
        for step in sorted(self.facts.queued):
            self.take(step)
        for step in self.out():
            self.end(step, status=how)
        self.look()

    @precondition(lambda self: self.facts.queued)
    @rule()
    def nothing_helps(self) -> None:
        """One step fails for as often as it may."""
        step = min(self.facts.queued)
        for _ in range(ATTEMPTS_MAX):
            if step in self.facts.queued:
                self.take(step)
            if self.hands[step]:
                self.end(step, status="failed")
            self.look()

    def all_goes_well(self) -> None:
        for step in sorted(self.facts.queued):
            self.take(step)
        for step in self.out():
            self.end(step, status="succeeded")
        self.look()

    @precondition(lambda self: self.out())
    @rule(
        number=numbers,
        how=some.sampled_from(["succeeded", "failed", "in_doubt", "silent", "final", "given_back"]),
        chance=chances,
    )
    def it_ends(self, number: int, how: str, chance: float) -> None:
        step = self.pick(number, self.out())
        match how:
            case "final":
                self.end(step, status="failed", is_final=True)
            case "given_back":
                self.given_back.add(step)
                self.end(step, status="failed", given_back=True)
            case "silent":
                self.end(step)
            case _:
                self.end(step, status=how)
        self.look(chance)

    @precondition(lambda self: self.doubted())
    @rule(number=numbers)
    def late_news_of_success(self, number: int) -> None:
        self.learn_of(self.pick(number, self.doubted()), status="succeeded")
        self.look()

    @precondition(lambda self: any(fact.looking == "asked" for fact in self.facts.steps.values()))
    @rule(number=numbers, how=some.sampled_from(["succeeded", "failed", "in_vain"]))
    def the_provider_says(self, number: int, how: str) -> None:
        asked = {
            name
            for name, fact in self.facts.steps.items()
            if fact.looking == "asked" and fact.status != "succeeded" and not self.hands[name]
        }
        changed = {"looking": "in_vain"} if how == "in_vain" else {"looking": "not", "status": how}
        self.learn_of(self.pick(number, asked), **changed)
        self.look()

    @rule(seconds=some.sampled_from([10.0, WINDOW_SECONDS]))
    def time_passes(self, seconds: float) -> None:
        for step, fact in self.facts.steps.items():
            self.learn_of(step, since_first_seconds=fact.since_first_seconds + seconds)
        self.look()

    @precondition(lambda self: self.facts.waits_standing)
    @rule(number=numbers, how=some.sampled_from(["ended", "refused", "deadline"]))
    def a_wait_ends(self, number: int, how: str) -> None:
        wait = self.pick(number, self.facts.waits_standing)
        self.learn(
            waits_standing=self.facts.waits_standing - {wait},
            waits_ended={**self.facts.waits_ended, wait: how},
        )
        self.look()

    @precondition(lambda self: self.decision.state in (State.RUNNING, State.WAITING) and len(self.states) > 2)
    @rule(what=some.sampled_from(["killed", "cancelled", "taken_over"]))
    def a_blow(self, what: str) -> None:
        self.learn(**{what: True})
        self.look()

    @precondition(lambda self: self.decision.state is State.KILLED)
    @rule()
    def the_kill_is_lifted(self) -> None:  # P17
        """It goes on where it stood, as if it had not been stopped: nothing of it was taken."""
        self.states = [state for state in self.states if state is not State.KILLED]
        self.learn(killed=False)
        self.look()

    @rule()
    def a_person_pauses_or_resumes(self) -> None:
        self.learn(paused=not self.facts.paused)
        self.look()

    @precondition(lambda self: self.decision.state is State.WAITING and self.decision.cause)
    @rule()
    def a_person_says_try_again(self) -> None:
        cause = self.decision.cause
        assume(cause in self.facts.steps)
        self.learn(retry_base={**self.facts.retry_base, cause: self.facts.steps[cause].attempt})
        self.look()
        assert self.decision.state is not State.WAITING or self.decision.cause != cause

    @precondition(lambda self: self.decision.state is State.WAITING and self.decision.cause)
    @rule()
    def a_person_skips(self) -> None:
        cause = self.decision.cause
        self.learn(skipped=self.facts.skipped | {cause})
        self.look()
        assert self.decision.cause != cause

    # --- what is promised --------------------------------------------------------------------------------------------

    @invariant()
    def a_step_is_in_one_hand_at_a_time(self) -> None:  # P9
        assert all(count <= 1 for count in self.hands.values())

    @invariant()
    def an_end_is_the_end(self) -> None:
        for before, after in zip(self.states, self.states[1:], strict=False):
            if before in (State.UNDOING, State.KILLED, State.DONE):
                assert after is before

    @invariant()
    def who_waits_or_turned_back_says_why(self) -> None:
        if self.decision.state is State.WAITING:
            assert self.decision.reason

    @invariant()
    def only_one_that_is_running_asks_for_something(self) -> None:
        if self.decision.state is not State.RUNNING or self.facts.paused:
            assert (self.decision.begin, self.decision.waits, self.decision.look_up) == ((), (), ())

    @invariant()
    def nothing_turns_back_past_its_pivot(self) -> None:
        pivot = next((terms for terms in self.plan.steps if terms.step_class == "pivot"), None)
        is_new = self.states.count(State.UNDOING) == 1 and self.decision.state is State.UNDOING
        if pivot is not None and is_new:
            assert not self.is_done(pivot)

    @invariant()
    def the_undoing_is_laid_down_only_once_hands_are_empty(self) -> None:  # P8
        if self.decision.state is State.UNDOING and self.out():
            assert self.decision.reason == "draining"

    @invariant()
    def attempts_are_bounded(self) -> None:
        words = Counter(self.tries)
        for step, count in words.items():
            assert count <= ATTEMPTS_MAX + self.facts.retry_base.get(step, 0) + (step in self.given_back)

    def teardown(self) -> None:
        """All faults heal: what is handed out succeeds, waits end, people resume. Then it ends."""
        self.learn(paused=False)
        self.look()
        for _ in range(HEALING_ROUNDS):
            if not self.heal():
                break
        assert not self.out()
        assert self.decision.state is not State.RUNNING, "neither moves nor says whom it waits for"
        assert self.decision.state is State.WAITING or self.decision.reason != "draining"

    def heal(self) -> bool:
        """One thing that gets better; false once there is none."""
        asked = [name for name, fact in self.facts.steps.items() if fact.looking == "asked" and fact.status != "succeeded"]
        if self.out():
            self.end(self.out()[0], status="succeeded")
        elif asked and self.decision.state is State.RUNNING:
            self.learn_of(asked[0], looking="not", status="failed")
        elif self.facts.queued:
            self.take(min(self.facts.queued))
        elif self.facts.waits_standing and self.decision.state is State.RUNNING:
            wait = min(self.facts.waits_standing)
            self.learn(waits_standing=self.facts.waits_standing - {wait}, waits_ended={**self.facts.waits_ended, wait: "ended"})
        else:
            return False
        self.look()
        return True


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=3_000 if LONG else 400, stateful_step_count=50 if LONG else 30, deadline=None)

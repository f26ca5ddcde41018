"""Counts of one instance: evaluations by flag, variant and reason, outcomes by flag and variant. Never in the way (P6).

`Evaluations.boolean` bumps the tally that hangs on the prepared outcome, a loop that ends at its first step. All else is
done here, once per series, or once in a window. Windows are closed by whoever delivers them (`rescind.summaries`).
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Final, NamedTuple

from rescind.clock import Clock
from rescind.durations import bucket_of
from rescind.evaluation.resolution import ErrorCode, Reason, Resolution
from rescind.tallies import Tallies
from rescind.wire import CountsWindow, EvaluationCount, OutcomeCount, is_countable

SERIES_MAX: Final = 4096
"""Distinct (flag, variant, reason) at a time. What finds no room is counted as `OTHERS`."""
UNKNOWN_MAX: Final = 64
"""Names of flags that do not exist: each is kept apart up to so many, for whoever looks for a typing error."""
OUTCOMES_MAX: Final = 8192
"""Distinct (flag, variant, ok or not, bucket of the duration)."""
ATTACHED_MAX: Final = 4 * SERIES_MAX
"""Prepared outcomes that carry a tally: those of flags that changed are let go of at this many."""
HELD_ROWS_MAX: Final = 20_000
HELD_SECONDS_MAX: Final = 3600.0
NO_FLAG: Final = (ErrorCode.FLAG_NOT_FOUND, ErrorCode.PROVIDER_NOT_READY)
OTHERS: Final = ""
"""The flag under which is summed what found no room."""


class Evaluated(NamedTuple):
    """A series of evaluations. `variant` is empty where the caller's default was served."""

    flag: str
    variant: str
    reason: str


class Told(NamedTuple):
    """A series of outcomes: those of one variant whose durations share a bucket."""

    flag: str
    variant: str
    ok: bool
    bucket: int | None


class Window(NamedTuple):
    """A closed window that the server has not got yet."""

    sequence: int
    ends_at: float
    """On the monotonic clock."""
    evaluations: list[EvaluationCount]
    outcomes: list[OutcomeCount]

    @property
    def row_count(self) -> int:
        return len(self.evaluations) + len(self.outcomes)

    @property
    def total(self) -> int:
        """How many evaluations and outcomes it sums up."""
        return sum(one.count for one in self.evaluations) + sum(one.ok + one.failed for one in self.outcomes)

    def message(self, now: float) -> CountsWindow:
        """As it is sent: its end is said as an age, so that no two clocks are compared."""
        ended_ms_ago = round((now - self.ends_at) * 1000)
        return CountsWindow(
            sequence=self.sequence, ended_ms_ago=ended_ms_ago, evaluations=self.evaluations, outcomes=self.outcomes
        )


class Counts:
    """What one process counts. `count`, `attach` and `track` from any thread; the rest by one, the deliverer."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._evaluations: Tallies[Evaluated] = Tallies(SERIES_MAX, lambda _: Evaluated(OTHERS, "", ""))
        self._unknown: Tallies[Evaluated] = Tallies(UNKNOWN_MAX, lambda one: Evaluated(OTHERS, "", one.reason))
        self._outcomes: Tallies[Told] = Tallies(OUTCOMES_MAX, lambda one: Told(OTHERS, "", one.ok, None))
        self._attached: list[Resolution] = []
        self._begin()

    def _begin(self) -> None:
        self.run = self._clock.token()
        """Names this process to the server: sequences are counted within it."""
        self.held: deque[Window] = deque()
        self.dropped_count = 0
        """Evaluations and outcomes that were given up: too old, too many, or refused."""
        self._sequence = 0

    # --- by any thread ------------------------------------------------------------------------------------------------

    def count(self, flag: str, outcome: Resolution) -> None:
        """One evaluation was answered with `outcome`."""
        for _ in outcome.tally:
            return
        next(self._tallies_of(outcome).of(series_of(flag, outcome)))

    def attach(self, flag: str, outcome: Resolution) -> None:
        """One evaluation was answered with `outcome`; where that is a prepared one, the next ones are counted on it itself."""
        attached = self._attached
        tally = self._tallies_of(outcome).of(series_of(flag, outcome))
        next(tally)
        if outcome.error_code is None and len(attached) < ATTACHED_MAX:
            outcome.__dict__["tally"] = tally
            attached.append(outcome)
            if attached is not self._attached:  # meanwhile all were let go of
                outcome.__dict__.pop("tally", None)

    def track(self, flag: str, variant: str, ok: bool, duration_ms: float | None) -> None:
        """What `variant` led to once."""
        bucket = None if duration_ms is None else bucket_of(duration_ms)
        named = is_countable(flag) and is_countable(variant)
        told = Told(flag, variant, ok, bucket) if named else Told(OTHERS, "", ok, None)
        next(self._outcomes.of(told))

    # --- by the deliverer ---------------------------------------------------------------------------------------------

    def close_window(self, ends_at: float) -> None:
        """What came in since the last time is one window, which ends at `ends_at` on the monotonic clock."""
        evaluations = self._evaluations.drain() + self._unknown.drain()
        outcomes = self._outcomes.drain()
        if self._evaluations.is_full or len(self._attached) >= ATTACHED_MAX:
            self._let_go()
        for tallies in (self._unknown, self._outcomes):
            if tallies.is_full:
                tallies.forget()
        if evaluations or outcomes:
            self._sequence += 1
            self.held.append(Window(self._sequence, ends_at, evaluation_rows(evaluations), outcome_rows(outcomes)))
        self._bound()

    def delivered(self, sequence: int) -> None:
        """The server has everything up to this window."""
        while self.held and self.held[0].sequence <= sequence:
            self.held.popleft()

    def give_up(self, sequence: int) -> None:
        """No repeat will deliver what is held up to this window."""
        self.dropped_count += sum(one.total for one in self.held if one.sequence <= sequence)
        self.delivered(sequence)

    def age_seconds(self) -> float | None:
        """How long ago the oldest window ended that the server has not got; None where it has all."""
        return max(0.0, self._clock.monotonic() - self.held[0].ends_at) if self.held else None

    def forked(self) -> None:
        """This is a child: it counts from zero, and what its parent has not delivered yet is for the parent to deliver."""
        for tallies in (self._evaluations, self._unknown, self._outcomes):
            tallies.drain()
        self._begin()

    def _tallies_of(self, outcome: Resolution) -> Tallies[Evaluated]:
        return self._unknown if outcome.error_code in NO_FLAG else self._evaluations

    def _let_go(self) -> None:
        """No prepared outcome carries a tally any more; those that are still served get theirs anew."""
        self._evaluations.forget()
        attached, self._attached = self._attached, []
        for outcome in attached:
            outcome.__dict__.pop("tally", None)

    def _bound(self) -> None:
        """The oldest go first. They are not merged: a window that was sent once must stay what it was."""
        row_count = sum(one.row_count for one in self.held)
        oldest = self._clock.monotonic() - HELD_SECONDS_MAX
        while self.held and (row_count > HELD_ROWS_MAX or self.held[0].ends_at < oldest):
            row_count -= self.held[0].row_count
            self.give_up(self.held[0].sequence)


def series_of(flag: str, outcome: Resolution) -> Evaluated:
    """What an evaluation is counted under. A key that no count can name counts with the others."""
    if not is_countable(flag):
        return Evaluated(OTHERS, "", str(Reason.ERROR))
    variant = outcome.variant or ""
    return Evaluated(flag, variant if is_countable(variant) else "", str(outcome.reason))


def evaluation_rows(drained: Counter[Evaluated]) -> list[EvaluationCount]:
    """As they are sent."""
    return [EvaluationCount(flag=one.flag, variant=one.variant, reason=one.reason, count=n) for one, n in drained.items()]


def outcome_rows(drained: Counter[Told]) -> list[OutcomeCount]:
    """As they are sent: one for each flag and variant, with the durations of all its outcomes."""
    ok: Counter[tuple[str, str]] = Counter()
    failed: Counter[tuple[str, str]] = Counter()
    durations: dict[tuple[str, str], Counter[int]] = {}
    for one, number in drained.items():
        (ok if one.ok else failed)[one.flag, one.variant] += number
        if one.bucket is not None:
            durations.setdefault((one.flag, one.variant), Counter())[one.bucket] += number
    return [
        OutcomeCount(
            flag=flag,
            variant=variant,
            ok=ok[flag, variant],
            failed=failed[flag, variant],
            durations=sorted(durations.get((flag, variant), {}).items()),
        )
        for flag, variant in sorted({*ok, *failed})
    ]

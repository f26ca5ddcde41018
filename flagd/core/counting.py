"""Summaries of counts: reading what an SDK sends, every fault at once, and summing up many of them into rows. Pure.

Unknown fields are ignored (P21). What is not sound is refused whole, with its places: nobody counts half a window.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import Struct
from rescind import wire
from rescind.durations import BUCKET_MAX, BUCKET_MIN

T = TypeVar("T")

WINDOW_SECONDS = wire.COUNTS_WINDOW_SECONDS
WINDOWS_MAX = 60
ROWS_MAX = 20_000
"""Of one request, over all its windows."""
COUNT_MAX = 10**9
"""Of one row: a hundred million a second."""
SEQUENCE_MAX = 2**53
AGE_MS_MAX = 3_600_000
AHEAD_MS_MAX = 2 * WINDOW_SECONDS * 1000
RUN_LENGTH_MAX = 64
BUCKETS_MAX = BUCKET_MAX - BUCKET_MIN + 1
SERIES_MAX = 10_000
"""Distinct rows of a kind in one window that a server keeps apart, per environment; the rest is summed under the flag ''."""
ROOMS_MAX = 64
"""Windows of environments whose rows are counted at a time."""
FAULTS_MAX = 100
OTHERS = ""


class EvaluationKey(NamedTuple):
    """A row of `flagd.evaluation_counts`, in the order of its key."""

    environment: str
    flag: str
    window_at: int
    """Seconds since 1970, a multiple of the window's length."""
    service: str
    variant: str
    reason: str


class OutcomeKey(NamedTuple):
    """A row of `flagd.outcome_counts`, in the order of its key."""

    environment: str
    flag: str
    window_at: int
    service: str
    variant: str


class Outcomes:
    """What is added to one row."""

    __slots__ = ("durations", "failed", "ok")

    def __init__(self) -> None:
        self.ok = self.failed = 0
        self.durations: Counter[int] = Counter()


class Window(Struct, frozen=True):
    """A window as it was read, all of its parts sound."""

    sequence: int
    ended_ms_ago: int
    evaluations: list[wire.EvaluationCount]
    outcomes: list[wire.OutcomeCount]


class Summary(Struct, frozen=True):
    """A request as it was read."""

    run: str
    service: str
    windows: list[Window]

    @property
    def row_count(self) -> int:
        return sum(len(window.evaluations) + len(window.outcomes) for window in self.windows)

    @property
    def flags(self) -> set[str]:
        """The flags that it names."""
        evaluated = {one.flag for window in self.windows for one in window.evaluations}
        return evaluated | {one.flag for window in self.windows for one in window.outcomes}


class _Reader:
    """Collects the faults of a document."""

    def __init__(self) -> None:
        self.faults: list[wire.Fault] = []

    def fault(self, at: str, detail: str) -> None:
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(wire.Fault(pointer=at, detail=detail))

    def struct(self, document: object, kind: type[T], at: str, check: Callable[[T, str], None]) -> T | None:
        try:
            value = msgspec.convert(document, type=kind)
        except (msgspec.ValidationError, OverflowError) as error:
            self.fault(at, str(error))
            return None
        check(value, at)
        return value

    def each(self, items: Sequence[object], kind: type[T], at: str, check: Callable[[T, str], None]) -> list[T]:
        read = (self.struct(item, kind, f"{at}/{index}", check) for index, item in enumerate(items))
        return [value for value in read if value is not None]

    def text(self, text: str, at: str, bytes_max: int = wire.COUNTED_BYTES_MAX) -> None:
        if not wire.is_countable(text, bytes_max):
            self.fault(at, f"a text of at most {bytes_max} bytes without control characters")

    def number(self, number: int, at: str, least: int, most: int) -> None:
        if not least <= number <= most:
            self.fault(at, f"a number from {least} to {most}")

    def request(self, request: wire.CountsRequest, at: str) -> None:
        self.text(request.run, f"{at}/run", RUN_LENGTH_MAX)
        self.text(request.service, f"{at}/service")
        if not request.run:
            self.fault(f"{at}/run", "`run` names the process that counted")
        if len(request.windows) > WINDOWS_MAX:
            self.fault(f"{at}/windows", f"at most {WINDOWS_MAX} windows")

    def window(self, window: wire.CountsWindow, at: str) -> None:
        self.number(window.sequence, f"{at}/sequence", 1, SEQUENCE_MAX)
        self.number(window.ended_ms_ago, f"{at}/ended_ms_ago", -AHEAD_MS_MAX, SEQUENCE_MAX)

    def evaluation(self, one: wire.EvaluationCount, at: str) -> None:
        for name in ("flag", "variant", "reason"):
            self.text(getattr(one, name), f"{at}/{name}")
        self.number(one.count, f"{at}/count", 0, COUNT_MAX)

    def outcome(self, one: wire.OutcomeCount, at: str) -> None:
        for name in ("flag", "variant"):
            self.text(getattr(one, name), f"{at}/{name}")
        for name in ("ok", "failed"):
            self.number(getattr(one, name), f"{at}/{name}", 0, COUNT_MAX)
        if len(one.durations) > BUCKETS_MAX:
            self.fault(f"{at}/durations", f"at most {BUCKETS_MAX} buckets")
        elif not all(BUCKET_MIN <= bucket <= BUCKET_MAX and 0 <= number <= COUNT_MAX for bucket, number in one.durations):
            for index, (bucket, number) in enumerate(one.durations):
                self.number(bucket, f"{at}/durations/{index}/0", BUCKET_MIN, BUCKET_MAX)
                self.number(number, f"{at}/durations/{index}/1", 0, COUNT_MAX)


def read(document: object) -> tuple[Summary | None, list[wire.Fault]]:
    """A request's body, or None with all that is wrong with it, a hundred faults at most."""
    reader = _Reader()
    request = reader.struct(document, wire.CountsRequest, "", reader.request)
    if request is None:
        return None, reader.faults
    room = ROWS_MAX
    windows = []
    for index, item in enumerate(request.windows[:WINDOWS_MAX]):
        at = f"/windows/{index}"
        window = reader.struct(item, wire.CountsWindow, at, reader.window)
        if window is None:
            continue
        room -= len(window.evaluations) + len(window.outcomes)
        if room < 0:
            reader.fault(at, f"at most {ROWS_MAX} rows in all windows")
            break
        evaluations = reader.each(window.evaluations, wire.EvaluationCount, f"{at}/evaluations", reader.evaluation)
        outcomes = reader.each(window.outcomes, wire.OutcomeCount, f"{at}/outcomes", reader.outcome)
        windows.append(Window(window.sequence, window.ended_ms_ago, evaluations, outcomes))
    return (None, reader.faults) if reader.faults else (Summary(request.run, request.service, windows), [])


def unseen(windows: Iterable[Window], sequence: int) -> list[Window]:
    """Those that are not in yet, by their numbers: each once."""
    found: dict[int, Window] = {}
    for window in windows:
        if window.sequence > sequence:
            found.setdefault(window.sequence, window)
    return [found[number] for number in sorted(found)]


def begin_of(ended_ms_ago: float, now: float) -> int:
    """When the window began that ended so long before `now` (seconds since 1970): the aligned one that is nearest.

    >>> begin_of(2_400, 1_000_012.0), begin_of(-7_000, 1_000_003.5)
    (1000000, 1000000)
    """
    return round((now - ended_ms_ago / 1000) / WINDOW_SECONDS) * WINDOW_SECONDS - WINDOW_SECONDS


class Room:
    """How many rows of one window are kept apart, over many batches: so that nobody fills the tables with names."""

    def __init__(self, series_max: int = SERIES_MAX) -> None:
        self._series_max = series_max
        self._held: dict[tuple[str, int, type], set[tuple[Any, ...]]] = {}

    def fits(self, key: EvaluationKey | OutcomeKey) -> bool:
        """Whether the row is there, or there is room for it, which it then takes."""
        place = (key.environment, key.window_at, type(key))
        held = self._held.setdefault(place, set())
        if len(self._held) > ROOMS_MAX:
            self._held.pop(next(iter(self._held)))
        if len(held) >= self._series_max and key not in held:
            return False
        held.add(key)
        return True


class Sums:
    """Many summaries as few rows. `has` says whether a flag of an environment is there."""

    def __init__(self, has: Callable[[tuple[str, str]], bool], room: Room) -> None:
        self._has = has
        self._room = room
        self.evaluations: Counter[EvaluationKey] = Counter()
        self.outcomes: dict[OutcomeKey, Outcomes] = {}

    def add(self, environment: str, service: str, window: Window, window_at: int) -> None:
        """Take one window in."""
        for one in window.evaluations:
            key = EvaluationKey(environment, one.flag, window_at, service, one.variant, one.reason)
            if not (self._has((environment, one.flag)) and self._room.fits(key)):
                key = EvaluationKey(environment, OTHERS, window_at, OTHERS, OTHERS, OTHERS)
            self.evaluations[key] += one.count
        for two in window.outcomes:
            place = OutcomeKey(environment, two.flag, window_at, service, two.variant)
            if not (self._has((environment, two.flag)) and self._room.fits(place)):
                place = OutcomeKey(environment, OTHERS, window_at, OTHERS, OTHERS)
            row = self.outcomes.setdefault(place, Outcomes())
            row.ok += two.ok
            row.failed += two.failed
            for bucket, number in two.durations:
                row.durations[bucket] += number

    def evaluation_rows(self) -> list[dict[str, Any]]:
        """As the query takes them."""
        return [{**key._asdict(), "count": number} for key, number in self.evaluations.items() if number]

    def outcome_rows(self) -> list[dict[str, Any]]:
        """As the query takes them."""
        return [
            {**key._asdict(), "ok": row.ok, "failed": row.failed, "durations": {str(k): n for k, n in row.durations.items()}}
            for key, row in self.outcomes.items()
        ]

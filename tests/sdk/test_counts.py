"""What a client counts: every evaluation once, by whichever thread, within bounds (P6)."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from rescind import Client
from rescind.clock import Clock
from rescind.counts import (
    ATTACHED_MAX,
    HELD_ROWS_MAX,
    HELD_SECONDS_MAX,
    OTHERS,
    OUTCOMES_MAX,
    SERIES_MAX,
    UNKNOWN_MAX,
    Counts,
)
from rescind.evaluation.resolution import ErrorCode, Resolution, error
from rescind.tallies import Tallies
from rescind.testing import FlagsFixture
from rescind.wire import Change, Revision, Snapshot, SnapshotFlag

THREADS = 8
EACH = 20_000
VARIANTS = {"on": True, "off": False}


def defined(default: str | None = "on", **more: Any) -> SnapshotFlag:
    return SnapshotFlag(definition={"state": "ENABLED", "variants": VARIANTS, "defaultVariant": default, **more})


FLAGS = {
    "on": defined(),
    "half": defined("off", targeting={"if": [{"==": [{"var": "plan"}, "pro"]}, "on", None]}),
    "disabled": defined(state="DISABLED"),
    "bare": defined(None),
    "text": SnapshotFlag(definition={"state": "ENABLED", "variants": {"a": "A"}, "defaultVariant": "a"}),
}


class Hand(Clock):
    """Clocks that are moved by hand: the monotonic one from 0, the wall clock from 1970."""

    at = 0.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)

    def monotonic(self) -> float:
        return self.at


@pytest.fixture
def client() -> Client:
    """One that was given a snapshot, and does no work of its own."""
    made = Client(url="http://rescind.invalid", token="none", environment="production", service="tests")
    made.core.closed = True
    made.core.current.take_snapshot(Snapshot(environment="production", revision=Revision(1, 1), flags=FLAGS))
    return made


def drained(counts: Counts) -> Counter[Any]:
    """What came in since the last time, by series."""
    found: Counter[Any] = Counter()
    drain_into(found, counts)
    return found


def drain_into(found: Counter[Any], counts: Counts) -> None:
    counts.close_window(Clock().monotonic())
    for window in counts.held:
        for one in window.evaluations:
            found[one.flag, one.variant, one.reason] += one.count
        for two in window.outcomes:
            found["ok"] += two.ok
            found["failed"] += two.failed
            found["durations"] += sum(number for _, number in two.durations)
    counts.held.clear()


def test_every_evaluation_is_counted_under_what_its_caller_was_told(client: Client) -> None:
    asked: list[Callable[[], Any]] = [
        lambda: client.boolean("on", False),
        lambda: client.boolean("half", False, {"plan": "pro"}),
        lambda: client.boolean("half", True, {"plan": "free"}),
        lambda: client.boolean("disabled", False),
        lambda: client.boolean("bare", True),
        lambda: client.boolean("text", True),
        lambda: client.boolean("none", True),
        lambda: client.string("text", "B"),
        lambda: client.integer("text", 1),
        lambda: client.object_details("on", {}),
        lambda: client.boolean_details("on", False),
    ]
    for _ in range(3):
        for ask in asked:
            ask()
    assert drained(client.core.counts) == {
        ("on", "on", "STATIC"): 6,
        ("on", "", "ERROR"): 3,
        ("half", "on", "TARGETING_MATCH"): 3,
        ("half", "off", "DEFAULT"): 3,
        ("disabled", "", "DISABLED"): 3,
        ("bare", "", "DEFAULT"): 3,
        ("text", "", "ERROR"): 6,
        ("text", "a", "STATIC"): 3,
        ("none", "", "ERROR"): 3,
    }
    assert drained(client.core.counts) == {}


def test_what_is_counted_is_still_the_same_answer(client: Client) -> None:
    before = client.boolean_details("on", False)
    client.boolean("on", False)
    assert client.boolean_details("on", False) == before == Resolution(True, "on", metadata=before.metadata)
    assert "tally" not in repr(before)


def test_what_nobody_asked_for_is_not_counted(client: Client) -> None:
    client.explain("on")
    client.core.permits.served("on", None, None, None)
    assert drained(client.core.counts) == {}


def test_without_a_snapshot_the_default_is_counted_too() -> None:
    client = Client(url="http://rescind.invalid", token="none", environment="production")
    client.core.closed = True
    client.boolean("on", False)
    client.string("on", "")
    assert drained(client.core.counts) == {("on", "", "ERROR"): 2}


def test_a_kill_and_a_new_snapshot_go_on_with_their_own_series(client: Client) -> None:
    client.boolean("on", False)
    change = Change(environment="production", previous=Revision(1, 1), revision=Revision(1, 2), flags={"on": defined("off")})
    client.core.current.take_change(change)
    client.boolean("on", False)
    client.boolean("text", False)
    client.core.current.take_snapshot(Snapshot(environment="production", revision=Revision(1, 3), flags=FLAGS))
    client.boolean("on", False)
    assert drained(client.core.counts) == {
        ("on", "on", "STATIC"): 2,
        ("on", "off", "STATIC"): 1,
        ("text", "", "ERROR"): 1,
    }


def test_threads_lose_nothing_and_count_nothing_twice_while_another_drains(client: Client) -> None:
    ready, stop = threading.Barrier(THREADS + 1), threading.Event()
    found: Counter[Any] = Counter()

    def evaluate() -> None:
        ready.wait()
        for number in range(EACH):
            client.boolean("on", False)
            client.boolean("half", False, {"plan": "pro" if number % 2 else "free"})
            client.boolean("none", False)
            client.track("on", ok=number % 4 > 0, duration_ms=1.0)

    def drain() -> None:
        ready.wait()
        while not stop.is_set():
            drain_into(found, client.core.counts)

    threads = [threading.Thread(target=evaluate) for _ in range(THREADS)]
    drainer = threading.Thread(target=drain)
    for thread in (drainer, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    drainer.join()
    drain_into(found, client.core.counts)
    assert found == {
        ("on", "on", "STATIC"): THREADS * EACH,
        ("half", "on", "TARGETING_MATCH"): THREADS * EACH // 2,
        ("half", "off", "DEFAULT"): THREADS * EACH // 2,
        ("none", "", "ERROR"): THREADS * EACH,
        "ok": THREADS * EACH * 3 // 4,
        "failed": THREADS * EACH // 4,
        "durations": THREADS * EACH,
    }


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_series_are_bounded_and_what_finds_no_room_is_summed() -> None:
    counts = Counts(Clock())
    for number in range(SERIES_MAX + 50):
        for _ in range(2):
            counts.attach(f"flag-{number}", Resolution(True, "on"))
    found = drained(counts)
    assert len(found) == SERIES_MAX + 1
    assert found[OTHERS, "", ""] == 100
    counts.attach("flag-new", Resolution(True, "on"))
    assert drained(counts) == {("flag-new", "on", "STATIC"): 1}, "there is room again"


def test_names_of_flags_that_do_not_exist_have_little_room_and_take_none_from_others() -> None:
    counts = Counts(Clock())
    unknown = error(ErrorCode.FLAG_NOT_FOUND, "")
    for number in range(10_000):
        counts.count(f"guess-{number}", unknown)
    for odd in ("", "x" * 256, "\ud800", "a\0b", "\u00e9" * 200):
        counts.count(odd, unknown)
    found = drained(counts)
    assert len(found) == UNKNOWN_MAX + 1
    assert found.total() == 10_005
    counts.count("guess-again", unknown)
    assert drained(counts) == {("guess-again", "", "ERROR"): 1}


def test_outcomes_that_carry_a_tally_are_let_go_of_and_counted_all_the_same() -> None:
    counts = Counts(Clock())
    first = Resolution(True, "on")
    for number in range(ATTACHED_MAX + 10):
        counts.attach("flag", first if number == 0 else Resolution(True, "on"))
    assert drained(counts) == {("flag", "on", "STATIC"): ATTACHED_MAX + 10}
    assert list(first.tally) == []
    counts.attach("flag", first)
    assert drained(counts) == {("flag", "on", "STATIC"): 1}


def test_outcomes_are_bounded_and_keep_whether_they_were_well() -> None:
    counts = Counts(Clock())
    for number in range(OUTCOMES_MAX + 30):
        counts.track(f"flag-{number}", "on", number % 2 == 0, float(number))
    counts.close_window(Clock().monotonic())
    (window,) = counts.held
    others = next(one for one in window.outcomes if one.flag == OTHERS)
    assert len(window.outcomes) == OUTCOMES_MAX + 1
    assert (others.ok, others.failed, others.durations) == (15, 15, [])


def test_windows_that_cannot_go_are_held_within_bounds_and_what_is_dropped_is_counted() -> None:
    clock = Hand()
    counts = Counts(clock)
    for number in range(20):
        for series in range(2_000):
            counts.track(f"flag-{series}", "on", True, None)
        clock.at = number * 10.0
        counts.close_window(clock.at)
    assert sum(window.row_count for window in counts.held) <= HELD_ROWS_MAX
    assert counts.dropped_count == 20_000
    assert counts.age_seconds() == 90.0
    clock.at += HELD_SECONDS_MAX
    counts.track("flag", "on", True, None)
    counts.close_window(clock.at)
    assert [window.sequence for window in counts.held] == [20, 21]
    assert counts.dropped_count == 38_000


def test_a_quiet_window_is_none() -> None:
    counts = Counts(Clock())
    counts.close_window(Clock().monotonic())
    assert (len(counts.held), counts.age_seconds()) == (0, None)


def test_a_key_that_has_left_is_read_once_more() -> None:
    tallies: Tallies[str] = Tallies(2, lambda _: "rest")
    held = tallies.of("a")
    next(held)
    assert tallies.drain() == {"a": 1}
    tallies.forget()
    next(held)
    next(tallies.of("a"))
    assert tallies.drain() == {"a": 2}
    assert tallies.drain() == {}


def test_a_child_counts_from_zero_and_the_parent_keeps_its_own(client: Client) -> None:
    for _ in range(3):
        client.boolean("on", False)
    client.core.counts.close_window(Clock().monotonic())
    client.boolean("on", False)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        client.boolean("on", False)
        counts = client.core.counts
        os.write(writing, f"{len(counts.held)} {counts.run} {drained(counts).total()}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    held, run, total = os.read(reading, 200).decode().split()
    os.close(reading)
    os.close(writing)
    assert (held, total) == ("0", "1")
    assert run != client.core.counts.run
    assert drained(client.core.counts).total() == 4


# --- outcomes ---------------------------------------------------------------------------------------------------------


def outcomes(client: Client) -> dict[tuple[str, str], tuple[int, int, int]]:
    client.core.counts.close_window(Clock().monotonic())
    (window,) = client.core.counts.held
    return {(one.flag, one.variant): (one.ok, one.failed, sum(n for _, n in one.durations)) for one in window.outcomes}


def test_an_outcome_is_of_the_variant_that_this_task_was_served(client: Client) -> None:
    client.boolean("half", False, {"plan": "pro"})
    client.track("half", ok=True, duration_ms=12.3)
    other = threading.Thread(target=lambda: (client.boolean("half", False, {}), client.track("half", ok=False)))
    other.start()
    other.join()
    client.track("half", ok=True)
    client.track("half", ok=True, variant="off")
    client.track("on", ok=True)
    assert outcomes(client) == {("half", "on"): (2, 0, 1), ("half", "off"): (1, 1, 0), ("on", ""): (1, 0, 0)}


def test_a_body_is_timed_and_its_exception_is_a_failure(client: Client) -> None:
    client.boolean("on", False)
    with client.tracked("on"):
        pass
    with pytest.raises(OSError, match="away"), client.tracked("on"):
        raise OSError("away")
    with pytest.raises(KeyboardInterrupt), client.tracked("on"):
        raise KeyboardInterrupt
    assert outcomes(client) == {("on", "on"): (1, 1, 2)}


@pytest.mark.parametrize("duration_ms", [-1.0, float("nan"), float("inf"), "soon", None])
def test_a_duration_that_is_none_is_left_out_and_nothing_raises(client: Client, duration_ms: Any) -> None:
    client.track("on", ok=True, duration_ms=duration_ms)
    client.track(7, ok=True)  # type: ignore[arg-type]
    client.core.counts.close_window(Clock().monotonic())
    assert all(one.durations == [] for window in client.core.counts.held for one in window.outcomes)


@pytest.mark.parametrize("wrong", [7, [], b"on", "half a surrogate \ud800", "x" * 256])
def test_what_is_no_name_takes_no_window_from_the_others(client: Client, wrong: Any) -> None:
    # P6
    assert client.boolean(wrong, True) is True
    client.track(wrong, ok=True)
    client.track("on", ok=True, variant=wrong)
    assert client.boolean("on", False) is True
    client.track("on", ok=True, variant="on")
    client.core.counts.close_window(Clock().monotonic())
    message = client.core.counts.held[-1].message(Clock().monotonic())
    assert msgspec.json.encode(message)
    assert all(isinstance(one.flag, str) for one in message.evaluations)
    assert [(one.flag, one.ok) for one in message.outcomes] == [("", 2), ("on", 1)]
    assert sum(one.count for one in message.evaluations if one.flag == "on") == 1


async def test_the_fixture_of_services_tests_records_outcomes() -> None:
    flags = FlagsFixture({"on": True, "off": False})
    flags.client.boolean("on", False)
    flags.client.track("on", ok=True, duration_ms=2.5)
    flags.async_client.boolean("off", True)
    flags.async_client.track("off", ok=False)
    assert [(one.flag, one.variant, one.ok, one.duration_ms) for one in flags.outcomes] == [
        ("on", "on", True, 2.5),
        ("off", "off", False, None),
    ]
    flags.forget()
    assert flags.outcomes == []

"""What counts as an escape from the fence (P8), and what a rollback has ended."""

from __future__ import annotations

from typing import Any

from demo.promises import ended, past_the_fence

RECORD = {"id": "r1", "fenced_at": "2026-11-23T05:00:00.000000Z", "closed_at": "2026-11-23T05:00:00.100000Z"}


def effect(at: str, *, variant: str | None = "on", rollback_id: str | None = "r1") -> dict[str, Any]:
    return {
        "effect_id": f"e{at}",
        "key": f"k{at}",
        "kind": "payment.capture",
        "variant": variant,
        "admitted_at": f"2026-11-23T05:00:{at}Z",
        "rollback_id": rollback_id,
        "disposition": "compensated" if rollback_id else None,
    }


def test_an_effect_admitted_after_the_barrier_has_escaped() -> None:
    assert past_the_fence(RECORD, [effect("00.200000")]) == (["k00.200000"], 0)
    assert past_the_fence(RECORD, [effect("00.200000", variant=None)]) == (["k00.200000"], 0)


def test_an_effect_that_is_not_in_the_set_has_escaped() -> None:
    assert past_the_fence(RECORD, [effect("00.050000", rollback_id=None)]) == (["k00.050000"], 0)


def test_what_was_under_way_as_the_kill_committed_is_in_the_set_and_no_escape() -> None:
    assert past_the_fence(RECORD, [effect("00.050000"), effect("00.000000")]) == ([], 1)


def test_the_old_path_goes_on_after_the_kill() -> None:
    assert past_the_fence(RECORD, [effect("30.000000", variant="off", rollback_id=None)]) == ([], 0)


def test_ended_are_the_effects_of_this_rollback_with_an_end() -> None:
    waiting = effect("00.030000") | {"disposition": "waiting"}
    other = effect("00.040000", rollback_id="r2")
    assert ended([effect("00.010000"), waiting, other], "r1") == {"payment.capture": frozenset({"e00.010000"})}

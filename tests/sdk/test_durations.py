"""Durations in buckets: merging is adding, and a quantile is at most the stated error off."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rescind.durations import BUCKET_MAX, BUCKET_MIN, ERROR_MAX, bucket_of, merged, middle_ms, quantile_ms

SHORTEST_MS, LONGEST_MS = 2.0**-10, 2.0**22
within = st.floats(SHORTEST_MS, LONGEST_MS)
some = st.lists(within, min_size=1, max_size=200)


def buckets(durations: list[float]) -> Counter[int]:
    return Counter(bucket for one in durations if (bucket := bucket_of(one)) is not None)


@given(within)
def test_a_bucket_stands_for_what_is_in_it_with_the_stated_error(duration_ms: float) -> None:
    bucket = bucket_of(duration_ms)
    assert bucket is not None
    assert abs(middle_ms(bucket) - duration_ms) <= ERROR_MAX * duration_ms * (1 + 1e-9)


@given(some, st.floats(0, 1))
def test_a_quantile_is_the_value_of_its_rank_with_the_stated_error(durations: list[float], share: float) -> None:
    exact = sorted(durations)[max(0, math.ceil(share * len(durations)) - 1)]
    found = quantile_ms(buckets(durations), share)
    assert found == pytest.approx(exact, rel=ERROR_MAX * (1 + 1e-9))


@given(some, some, some)
def test_merged_parts_are_what_one_would_have_been(one: list[float], two: list[float], three: list[float]) -> None:
    together = dict(buckets([*one, *two, *three]))
    parts = [buckets(one), buckets(two), buckets(three)]
    assert merged(parts) == merged(reversed(parts)) == merged([merged(parts[:2]), parts[2]]) == together


@pytest.mark.parametrize(
    ("duration_ms", "bucket"),
    [
        (0.0, BUCKET_MIN),
        (1e-300, BUCKET_MIN),
        (1e300, BUCKET_MAX),
        (-1.0, None),
        (math.inf, None),
        (math.nan, None),
    ],
)
def test_what_is_out_of_range_is_clamped_and_what_is_no_duration_is_left_out(duration_ms: float, bucket: int | None) -> None:
    assert bucket_of(duration_ms) == bucket
    assert quantile_ms({}, 0.5) is None

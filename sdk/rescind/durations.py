"""Durations summed up in buckets that grow by a constant factor: merged by adding, read with a bounded relative error. Pure.

The buckets are those of OpenTelemetry's exponential histogram at scale 3 (data model, "ExponentialHistogram"): bucket i holds
what is above `GROWTH**i` milliseconds and at most `GROWTH**(i+1)`. A quantile is given as the bucket's geometric middle: at
most `ERROR_MAX`, 4.5 %, off the value of that rank, between a microsecond and 70 minutes; beyond these it is clamped.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

SCALE: Final = 3
GROWTH: Final = 2.0 ** (2.0**-SCALE)
ERROR_MAX: Final = math.sqrt(GROWTH) - 1
BUCKET_MIN: Final = -10 * 2**SCALE
"""About a microsecond, and whatever is shorter."""
BUCKET_MAX: Final = 22 * 2**SCALE - 1
"""About 70 minutes, and whatever is longer."""

Buckets = Mapping[int, int]
"""How many durations are in each bucket."""

_STEPS: Final = 2.0**SCALE
_SHORTEST_MS: Final = 2.0**-10


def bucket_of(duration_ms: float) -> int | None:
    """The bucket of a duration in milliseconds; None for what is none: negative, infinite, not a number.

    >>> bucket_of(1.0), bucket_of(1.05), bucket_of(0.0) == BUCKET_MIN, bucket_of(float("nan"))
    (-1, 0, True, None)
    """
    if not 0 <= duration_ms < math.inf:
        return None
    if duration_ms <= _SHORTEST_MS:
        return BUCKET_MIN
    return min(math.ceil(math.log2(duration_ms) * _STEPS) - 1, BUCKET_MAX)


def middle_ms(bucket: int) -> float:
    """The duration that stands for a bucket, in milliseconds: `ERROR_MAX` from either of its ends at most."""
    return float(GROWTH ** (bucket + 0.5))


def merged(parts: Iterable[Buckets]) -> dict[int, int]:
    """All of them as one.

    >>> merged([{1: 2}, {1: 1, 5: 1}])
    {1: 3, 5: 1}
    """
    total: Counter[int] = Counter()
    for part in parts:
        total.update(part)
    return dict(total)


def quantile_ms(buckets: Buckets, share: float) -> float | None:
    """The duration that this share of them, from 0 to 1, does not exceed, in milliseconds; None where there are none.

    >>> round(quantile_ms({0: 99, 80: 1}, 0.5), 2)
    1.04
    """
    rank = share * sum(buckets.values())
    reached = 0
    for bucket in sorted(buckets):
        reached += buckets[bucket]
        if reached >= rank and reached:
            return middle_ms(bucket)
    return None

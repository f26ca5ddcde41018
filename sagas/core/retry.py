"""How long to wait before the next attempt. Pure.

Full jitter (Marc Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015): the wait is drawn from zero up to the
bound, so that a thousand compensations that failed together do not come back together.
"""

from __future__ import annotations

EXPONENT_MAX = 64


def delay_seconds(attempt: int, *, first_seconds: float, factor: float, cap_seconds: float, chance: float) -> float:
    """Seconds to wait after attempt number `attempt` (from 1); `chance` is in [0, 1).

    >>> delay_seconds(3, first_seconds=1, factor=2, cap_seconds=60, chance=0.5)
    2.0
    >>> delay_seconds(1000, first_seconds=1, factor=2, cap_seconds=60, chance=0.5)
    30.0
    """
    assert attempt >= 1
    assert 0 <= chance < 1
    return float(chance * min(cap_seconds, first_seconds * factor ** min(attempt - 1, EXPONENT_MAX)))

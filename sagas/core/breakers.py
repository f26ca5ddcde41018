"""Circuit breakers: a kind whose attempts fail in a row is left alone for a while, then tried by one alone. Pure.

So one bug, or a provider that is away, does not burn the attempts of every instance: what is not begun does not count.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

FAILURES_MAX = 32
"""In a row, whoever failed: it opens."""
COOL_SECONDS = 30.0
PROBE_SECONDS = 60.0
"""One that tries and is not heard of for so long is followed by another."""
AGAIN_SECONDS = 1.0


class Hold(Struct, kw_only=True):
    """An open breaker: how many may begin, 0 or 1, and in how many seconds the others ask again."""

    left: int
    in_seconds: float


class Streak(Struct, kw_only=True):
    """What outcomes of one kind, in their order, come to: whether one went well, and how many failed since."""

    has_success: bool = False
    failures: int = 0
    error: str | None = None


def hold(*, cools_seconds: float, is_probed: bool) -> Hold:
    """What an open breaker lets begin.

    >>> hold(cools_seconds=12, is_probed=False).left, hold(cools_seconds=0, is_probed=False).left
    (0, 1)
    >>> hold(cools_seconds=0, is_probed=True).left
    0
    """
    return Hold(left=int(cools_seconds <= 0 and not is_probed), in_seconds=max(cools_seconds, AGAIN_SECONDS))


def streak(outcomes: Iterable[tuple[bool, str | None]]) -> Streak:
    """Of outcomes in order, each whether it went well, and else the error.

    >>> streak([(False, "a"), (True, None), (False, "b"), (False, "c")])
    Streak(has_success=True, failures=2, error='c')
    """
    found = Streak()
    for is_good, error in outcomes:
        if is_good:
            found = Streak(has_success=True)
        else:
            found.failures += 1
            found.error = error
    return found

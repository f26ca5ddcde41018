"""How many attempts of one kind over one connection may begin now (P17). Pure.

Concurrency is a count of what runs. Rate is a bucket kept as one instant, `next_at`: the moment from which the next attempt may
begin (the generic cell rate algorithm, ITU-T I.371, as a virtual schedule). An idle bucket saves up no more than
`BURST_SECONDS`. Whoever asks holds the pace's row in PostgreSQL, so the limits hold over all coordinators and kills.
"""

from __future__ import annotations

import math

from msgspec import Struct

BURST_SECONDS = 0.1
TRY_SECONDS = 0.05
"""Of what waits for a place among those that run: as many as may run try again in it."""


class Limits(Struct, frozen=True, kw_only=True):
    """Null is no limit of its own."""

    per_second: float | None = None
    concurrency_max: int | None = None


UNLIMITED = Limits()


def allowance(limits: Limits, *, running: int, idle_seconds: float, at_most: int) -> int:
    """How many may begin now, 0 to `at_most`. `idle_seconds` is how long `next_at` has passed, negative while it is ahead.

    >>> allowance(Limits(per_second=100), running=0, idle_seconds=3600, at_most=64)
    11
    >>> allowance(Limits(per_second=100, concurrency_max=4), running=3, idle_seconds=0, at_most=64)
    1
    >>> allowance(Limits(per_second=100), running=0, idle_seconds=-0.001, at_most=64)
    0
    """
    room = at_most
    if limits.concurrency_max is not None:
        room = min(room, limits.concurrency_max - running)
    if limits.per_second is not None:
        room = min(room, 0 if idle_seconds < 0 else 1 + math.floor(min(idle_seconds, BURST_SECONDS) * limits.per_second))
    return max(0, room)


def spacing_seconds(limits: Limits) -> float:
    """How far apart those try again that were held back: at the rate at which they may begin.

    >>> spacing_seconds(Limits(per_second=4)), spacing_seconds(Limits(concurrency_max=5))
    (0.25, 0.01)
    """
    rate = 0.0 if limits.per_second is None else 1 / limits.per_second
    return max(rate, 0.0 if limits.concurrency_max is None else TRY_SECONDS / limits.concurrency_max)


def tighter(one: Limits, other: Limits) -> Limits:
    """What both allow.

    >>> tighter(Limits(per_second=4), Limits(per_second=9, concurrency_max=2))
    Limits(per_second=4, concurrency_max=2)
    """
    rates = [limits.per_second for limits in (one, other) if limits.per_second is not None]
    counts = [limits.concurrency_max for limits in (one, other) if limits.concurrency_max is not None]
    return Limits(per_second=min(rates, default=None), concurrency_max=min(counts, default=None))


def cost_seconds(limits: Limits, begun: int) -> float:
    """How far `next_at` moves when that many begin."""
    return 0.0 if limits.per_second is None else begun / limits.per_second

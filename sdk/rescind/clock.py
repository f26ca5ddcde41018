"""Time and chance as the SDK uses them, in one place that tests replace."""

from __future__ import annotations

import os
import random
import time
from datetime import UTC, datetime

VARIANTS = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


class Clock:
    """The machine's clocks and dice."""

    def now(self) -> datetime:
        """The wall clock, in UTC. Never compared with another machine's."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds on the clock that judges windows, leases and silence."""
        return time.monotonic()

    def random(self) -> float:
        """A number in [0, 1), for jitter."""
        return random.random()  # noqa: S311 - jitter needs no secrecy

    def token(self) -> str:
        """A fresh name that nobody else has or guesses: a UUID of version 4 (RFC 9562, 5.4)."""
        digits = os.urandom(16).hex()
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{VARIANTS[digits[16]]}{digits[17:20]}-{digits[20:]}"


def full_jitter_seconds(clock: Clock, failures: int, *, base: float = 0.25, cap: float = 30.0) -> float:
    """How long to wait after `failures` failures in a row: anywhere up to the doubled base, so that a fleet spreads.

    The scheme is "full jitter" of the AWS Architecture Blog, "Exponential Backoff And Jitter" (2015).
    """
    return clock.random() * min(cap, base * 2.0 ** min(failures, 16))

"""What goes wrong at the payment provider, on purpose: fates that requests meet one by one, and an outage.

A fate is consumed by the next request that creates something under its path. The sabotage of `rescind demo --sabotage` is two
fates of refunds that nobody outside the provider's own ledger can see.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

import msgspec

Fate = Literal[
    "lost_reply",  # done, and the connection closes before the reply
    "delayed",  # the connection closes, and it is done `COMMIT_DELAY_SECONDS` later
    "lost_request",  # the connection closes and nothing is done
    "unavailable",  # 503, nothing is done
    "rate_limited",  # 429, nothing is done
    "acknowledged_only",  # sabotage: a refund is confirmed and not done
    "doubled",  # sabotage: a refund is done twice
]

COMMIT_DELAY_SECONDS = 0.7
FATES_MAX = 1_000


class Faults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /control/faults`."""

    path: str
    fates: list[Fate] = []
    outage_seconds: float = 0.0
    """From now on, when the fates of this path are used up, its requests are lost for so long."""


class Fates:
    """Which fate the next request to a path meets."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Fate]] = {}
        self._outages: dict[str, float] = {}
        self.met: dict[str, int] = {}

    def add(self, faults: Faults, at: float) -> None:
        """Queue fates, and begin an outage at `at` (monotonic seconds)."""
        queue = self._queues.setdefault(faults.path, deque(maxlen=FATES_MAX))
        queue.extend(faults.fates)
        if faults.outage_seconds:
            self._outages[faults.path] = at + faults.outage_seconds

    def next(self, path: str, at: float) -> Fate | None:
        """The fate of a request that arrives at `at`, or None when nothing goes wrong."""
        queue = self._queues.get(path)
        fate: Fate | None = None
        if queue:
            fate = queue.popleft()
        elif self._outages.get(path, 0.0) > at:
            fate = "lost_request"
        if fate is not None:
            self.met[fate] = self.met.get(fate, 0) + 1
        return fate

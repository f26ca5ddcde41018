"""Says in the log what keeps compensations from getting done, without a line per attempt: a rollback of a hundred thousand
effects that all fail alike is one line every few seconds."""

from __future__ import annotations

import logging
from typing import Any

from runtime.clock import Clock
from sagas.claims import Attempt
from sagas.core.compensation import State
from sagas.outcomes import Ended

QUIET_SECONDS = 10.0
"""How long the same failure of the same rollback and kind is counted instead of said again."""
KNOWN_MAX = 1_000
ERROR_MAX = 500

log = logging.getLogger("rescind.compensations")

Key = tuple[str, str, str]


class Failures:
    """One per dispatcher. Forgets everything when it knows too many different ones: then one is said once more."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[Key, tuple[float, int]] = {}

    def tell(self, attempt: Attempt, end: Ended) -> None:
        """Log an attempt that did not get it done, unless the same was said a moment ago."""
        if end.move.state is State.FINAL:
            return
        key = (str(attempt.rollback_id), attempt.kind, error_of(end.detail, str(end.event)))
        said_at, unsaid = self._known.get(key, (None, 0))
        if said_at is not None and self._clock.monotonic() - said_at < QUIET_SECONDS:
            self._known[key] = (said_at, unsaid + 1)
            return
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known[key] = (self._clock.monotonic(), 0)
        log.warning("%s", line(key, end, attempt, unsaid))


def line(key: Key, end: Ended, attempt: Attempt, unsaid: int) -> str:
    """The failure in one line: what, which attempt, why, and what comes next."""
    rollback_id, kind, error = key
    then = f"next try in {end.delay_seconds:.1f} s" if end.move.state is State.DUE else f"waits for a person: {end.move.reason}"
    more = f" ({unsaid} more like it since)" if unsaid else ""
    return f"{attempt.action} of {kind} failed at attempt {attempt.number}: {error}; {then}; rollback {rollback_id}{more}"


def error_of(detail: dict[str, Any], event: str) -> str:
    """What the attempt was told, bounded.

    >>> error_of({"error": "refused"}, "not_yet"), error_of({}, "interrupted")
    ('refused', 'interrupted')
    """
    return str(detail.get("error") or detail.get("reason") or event)[:ERROR_MAX]

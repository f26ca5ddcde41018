"""How long ago this instance last knew that its snapshot was the newest, for flags with a staleness limit (P6).

On the monotonic clock alone: a wall clock that jumps changes nothing. A snapshot from disk, or one that the service brought
along, is in doubt: nobody knows its age, and until the server was heard every limit has run out.
"""

from __future__ import annotations

from rescind.clock import Clock

LIMIT_SECONDS_MIN = 12.0
"""Nobody is cut off before two heartbeats were missed and a poll has failed: shorter limits count as this one."""


class Freshness:
    """Of one client; a child of its process goes on with it."""

    def __init__(self, clock: Clock) -> None:
        self._monotonic = clock.monotonic
        self.current_at: float | None = clock.monotonic()
        """When the snapshot was last known to be the newest; null where that is in doubt."""
        self.has_run_out = False
        """A flag was served as off because of its limit, since the snapshot was last known to be the newest."""

    def doubt(self) -> None:
        """The age of what is held is not known."""
        self.current_at = None

    def confirm(self, at: float) -> None:
        """The snapshot was the newest at that instant."""
        if self.current_at is None or at > self.current_at:
            self.current_at = at
            self.has_run_out = False

    def overdue(self, limit_seconds: float) -> bool:
        """Whether that is longer ago than the limit."""
        limit = max(limit_seconds, LIMIT_SECONDS_MIN)
        is_overdue = self.current_at is None or self._monotonic() - self.current_at > limit
        if is_overdue:
            self.has_run_out = True
        return is_overdue

"""Permissions to begin, and bodies that have begun (P8; hazards: start window).

A permission is good for a window on the monotonic clock, counted from before it was first asked for, and until a kill is
known that covers it. Both are looked at just before the body, under the lock that a kill takes to be applied: after an
acknowledged kill no body of it begins.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from rescind.clock import Clock
from rescind.current import Current
from rescind.wire import EffectRequest, Kill, ProceededEffect


class Begin(Enum):
    """What the check just before the body says."""

    YES = "yes"
    EXPIRED = "expired"
    """The window has run out: give back, ask again."""
    MOVED = "moved"
    """The flag is in a later epoch and open: give back, ask again."""
    KILLED = "killed"


class Permission:
    """One admitted effect of this instance, from its admission to its outcome."""

    __slots__ = (
        "attributes",
        "continues",
        "effect_id",
        "epoch",
        "expires",
        "extend_at",
        "flag",
        "is_off",
        "lease_seconds",
        "record",
        "request",
        "token",
    )

    def __init__(
        self,
        *,
        effect_id: str,
        token: str,
        flag: str,
        epoch: int,
        is_off: bool,
        attributes: dict[str, Any],
        expires: float,
        lease_seconds: float,
        record: ProceededEffect | None = None,
        continues: bool = False,
    ) -> None:
        self.effect_id = effect_id
        self.token = token
        self.flag = flag
        self.epoch = epoch
        self.is_off = is_off
        self.attributes = attributes
        self.expires = expires
        """When the start window ends, on the monotonic clock."""
        self.lease_seconds = lease_seconds
        self.extend_at = 0.0
        self.continues = continues
        """A kill let it go on by name: the flag's kills do not stop it."""
        self.record = record
        """Where it was not the server that gave it: what stands in the journal."""
        self.request: EffectRequest | None = None
        """Whose outcome is to be remembered."""


class Bodies:
    """The bodies that are running now."""

    def __init__(self, current: Current, clock: Clock) -> None:
        self._current = current
        self._clock = clock
        self._running: dict[str, Permission] = {}

    def begin(self, permission: Permission) -> tuple[Begin, Kill | None]:
        """Check and mark as begun, in one step. Call it from the thread that runs the body, right before it."""
        current = self._current
        with current.lock:
            if not (permission.is_off or permission.continues):
                if kill := current.dead(permission.flag, permission.epoch, permission.attributes):
                    return Begin.KILLED, kill
                if current.epoch(permission.flag) > permission.epoch:
                    return Begin.MOVED, None
            now = self._clock.monotonic()
            if now >= permission.expires:
                return Begin.EXPIRED, None
            permission.extend_at = now + permission.lease_seconds / 3
            self._running[permission.effect_id] = permission
        return Begin.YES, None

    def end(self, permission: Permission) -> None:
        """The body has ended, in whatever way."""
        with self._current.lock:
            self._running.pop(permission.effect_id, None)

    def begun(self) -> list[str]:
        """Ids of the effects whose bodies are running."""
        with self._current.lock:
            return list(self._running)

    def due_extensions(self) -> list[Permission]:
        """The bodies whose lease is a third over, each counted from now again."""
        now = self._clock.monotonic()
        with self._current.lock:
            due = [permission for permission in self._running.values() if permission.extend_at <= now]
            for permission in due:
                permission.extend_at = now + permission.lease_seconds / 3
        return due

    def next_extension_seconds(self) -> float | None:
        """How long until the next lease wants extending; None while nothing runs."""
        with self._current.lock:
            due = min((permission.extend_at for permission in self._running.values()), default=None)
        return None if due is None else max(0.0, due - self._clock.monotonic())

"""What `EventStream` sends: that the server is there, what changed, that it is still there.

Clients keep what was STATIC by flag key, and drop it when they are told of the key. A stream therefore begins with all of
them: what changed while a client was away would otherwise be kept for ever, a kill as well (P4).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from rescind import wire

from flagd.broadcast import Event
from flagd.core.changed import How, changed_flags
from flagd.grpc.messages import EVALUATION_V2
from flagd.grpc.values import struct
from flagd.replica import Replica

FLAGS_PER_EVENT_MAX = 5_000


def _event(kind: str, data: Mapping[str, Any] | None = None) -> bytes:
    """An `EventStreamResponse`: the same bytes in v1 and v2."""
    message = EVALUATION_V2["EventStreamResponse"](type=kind, data=None if data is None else struct(data))
    encoded: bytes = message.SerializeToString()
    return encoded


READY: Final = _event("provider_ready")
KEEP_ALIVE: Final = _event("keep_alive")


def changes(told: Mapping[str, How], environment: str) -> list[bytes]:
    """`configuration_change` events that name these flags; none for none."""
    keys = list(told)
    return [
        _event(
            "configuration_change",
            {
                "flags": {
                    key: {"type": told[key], "source": environment, "flagKey": key}
                    for key in keys[at : at + FLAGS_PER_EVENT_MAX]
                }
            },
        )
        for at in range(0, len(keys), FLAGS_PER_EVENT_MAX)
    ]


class News:
    """The events of one step from a snapshot to the next, made once, however many streams take that step."""

    def __init__(self) -> None:
        self._kept: tuple[wire.Snapshot, wire.Snapshot, list[bytes]] | None = None

    def between(self, before: wire.Snapshot, after: wire.Snapshot) -> list[bytes]:
        """What a stream that was at `before` is told of `after`."""
        if self._kept is None or self._kept[0] is not before or self._kept[1] is not after:
            self._kept = (before, after, changes(changed_flags(before, after), after.environment))
        return self._kept[2]


class EventFeed:
    """One stream of events."""

    def __init__(self, replica: Replica, news: News) -> None:
        self._replica = replica
        self._news = news
        self._told = replica.snapshot

    def first(self) -> Iterable[bytes]:
        """That it is there, and every flag as one that may have changed."""
        self._told = self._replica.snapshot
        return [READY, *changes(dict.fromkeys(self._told.flags, "update"), self._told.environment)]

    def following(self, event: Event) -> Iterable[bytes]:
        """What changed since it was told last, at a heartbeat that it is still there."""
        if event.kind == "heartbeat":
            return [KEEP_ALIVE]
        before, self._told = self._told, self._replica.snapshot
        return self._news.between(before, self._told)

"""A replica: one immutable snapshot per environment, and the rule by which it moves (P1, P2).

It moves only forward. A change is laid over the snapshot that it directly follows, a full snapshot replaces an older one,
and each is one assignment: whoever reads sees all of a revision or nothing of it.
"""

from __future__ import annotations

import asyncio

import msgspec
from rescind import wire
from rescind.evaluation import Evaluator

from flagd.broadcast import Broadcast, Event, Subscription, sse
from flagd.core.changes import same
from flagd.loading import Loaded
from runtime.clock import Clock

HEARTBEAT_SECONDS = 5.0
JUST_NOW_SECONDS = 2.5
"""Replicas look at PostgreSQL every second; one that missed two looks says so."""


def snapshot_of(environment: str, loaded: Loaded) -> wire.Snapshot:
    """The snapshot of an environment that was loaded whole."""
    return wire.Snapshot(
        environment=environment,
        revision=loaded.revision,
        flags=loaded.flags,
        evaluators=loaded.evaluators,
        metadata=loaded.metadata,
        bucketing=loaded.bucketing,
    )


class Replica:
    """One environment: `snapshot` and `evaluator` are replaced together, never changed."""

    def __init__(self, snapshot: wire.Snapshot, clock: Clock | None = None) -> None:
        """`clock` is what targeting reads as `$flagd.timestamp`, and what tells how old the snapshot is."""
        self.environment = snapshot.environment
        self.snapshot = snapshot
        self._clock = clock or Clock()
        self.evaluator = self.compiled(snapshot)
        self.is_ahead = False
        """PostgreSQL has come back older than what this replica has seen (P2)."""
        self.lock = asyncio.Lock()
        self.look_count = 0
        """Looks at PostgreSQL that have begun."""
        self.looked = 0
        """The last one that came to its end."""
        self._broadcast = Broadcast()
        self._encoded: bytes | None = None
        self._event: Event | None = None
        self._newest_at = self._clock.monotonic()

    @property
    def revision(self) -> wire.Revision:
        """Of the snapshot."""
        return self.snapshot.revision

    @property
    def encoded(self) -> bytes:
        """The snapshot as JSON, encoded once however many ask."""
        if self._encoded is None:
            self._encoded = wire.encode(self.snapshot)
        return self._encoded

    @property
    def event(self) -> Event:
        """The snapshot as an event."""
        if self._event is None:
            self._event = sse("snapshot", self.revision, self.encoded)
        return self._event

    @property
    def heartbeat(self) -> Event:
        """Says that the peer is alive, at which revision, and how old its knowledge is."""
        beat = wire.Heartbeat(revision=self.revision, interval_seconds=HEARTBEAT_SECONDS, age_seconds=self.age_seconds)
        return sse("heartbeat", self.revision, wire.encode(beat))

    @property
    def age_seconds(self) -> float:
        """How long ago it was last known that there is no later revision than this one; 0 where that was just now."""
        age = self._clock.monotonic() - self._newest_at
        return 0.0 if age < JUST_NOW_SECONDS else age

    def confirm(self, at: float) -> None:
        """There was no later revision at that instant of the monotonic clock."""
        self._newest_at = max(self._newest_at, at)

    @property
    def subscriber_count(self) -> int:
        """How many streams hang on it."""
        return len(self._broadcast)

    def subscribe(self) -> Subscription:
        """Everything after the present snapshot, as events; give it back with `leave`."""
        return self._broadcast.subscribe()

    def leave(self, subscription: Subscription) -> None:
        """The end of a subscription."""
        self._broadcast.leave(subscription)

    def close(self) -> None:
        """End every subscription."""
        self._broadcast.close()

    def beat(self) -> None:
        """A heartbeat to every subscriber."""
        self._broadcast.send(self.heartbeat)

    def take(self, loaded: Loaded) -> wire.Change | None:
        """Move to what was loaded since this replica's own revision. Answers the change, or None if it did not move."""
        before = self.snapshot
        if loaded.revision <= before.revision:
            return None
        change = wire.Change(
            environment=self.environment,
            previous=before.revision,
            revision=loaded.revision,
            flags=loaded.flags,
            removed=loaded.removed,
            kill=loaded.is_kill,
        )
        self.apply(change)
        return change

    def can_take(self, loaded: Loaded) -> bool:
        """Whether a change can carry it: what all flags share (segments, metadata, bucketing) is as it was."""
        before = self.snapshot
        shared = ((loaded.evaluators, before.evaluators), (loaded.metadata, before.metadata))
        return loaded.bucketing == before.bucketing and all(same(now, then) for now, then in shared)

    def apply(self, change: wire.Change) -> bool:
        """Lay a change over the snapshot that it directly follows. Whether it was laid."""
        before = self.snapshot
        if change.previous != before.revision or change.revision <= before.revision:
            return False
        flags = _laid(before.flags, change.flags, change.removed)
        after = msgspec.structs.replace(before, revision=change.revision, flags=flags)
        self._swap(after, self.evaluator.updated(change.flags, change.removed, change.revision))
        self._broadcast.send(sse("change", change.revision, wire.encode(change), change.previous, is_kill=change.kill))
        return True

    def adopt(self, snapshot: wire.Snapshot, evaluator: Evaluator | None = None) -> bool:
        """Replace the snapshot by a newer one. Whether it was newer (P2). `evaluator` is its own, where it is `compiled`."""
        if snapshot.revision <= self.revision:
            return False
        self._swap(snapshot, evaluator or self.compiled(snapshot))
        if self.subscriber_count:
            self._broadcast.send(self.event)
        return True

    def bell(self, *, is_kill: bool = False) -> wire.Change:
        """A change that follows nothing: whoever gets it fetches what it says exists."""
        return wire.Change(environment=self.environment, previous=wire.Revision(), revision=self.revision, kill=is_kill)

    def compiled(self, snapshot: wire.Snapshot) -> Evaluator:
        """An evaluator of this snapshot. Of thousands of flags that takes long: in a thread, it leaves the loop to others."""
        return Evaluator(
            snapshot.flags,
            snapshot.evaluators,
            snapshot.metadata,
            snapshot.bucketing,
            environment=snapshot.environment,
            revision=snapshot.revision,
            now=lambda: int(self._clock.now().timestamp()),
        )

    def _swap(self, snapshot: wire.Snapshot, evaluator: Evaluator) -> None:
        self.snapshot, self.evaluator = snapshot, evaluator
        self._encoded = self._event = None


def _laid(
    before: dict[str, wire.SnapshotFlag], changed: dict[str, wire.SnapshotFlag], removed: list[str]
) -> dict[str, wire.SnapshotFlag]:
    flags = {**before, **changed}
    for key in removed:
        flags.pop(key, None)
    return flags

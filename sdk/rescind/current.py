"""The snapshot an instance is at: replaced whole, and only ever by a later one (P2).

Readers take one reference and need no lock. Writers, and whoever begins an effect's body, hold `lock`: between a kill
that was taken in and a body that begins there is an order (P8).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from rescind.clock import Clock
from rescind.evaluation import KILLED, Evaluator, in_scope
from rescind.freshness import Freshness
from rescind.wire import Change, Kill, Revision, Snapshot, SnapshotFlag

NOTHING = Revision()


class Applied(Struct, frozen=True, kw_only=True):
    """What became of a snapshot or a change that was taken in."""

    revision: Revision
    changed: list[str]
    kill: bool
    """A flag was killed by it: say so to the server at once."""


class DoesNotFollow(Exception):  # noqa: N818 - a condition, answered by fetching a snapshot
    """A change that is later than the snapshot but not the next one."""


class Containment(Struct, frozen=True, kw_only=True):
    """A kill that the fence told of before the stream did: served until a later epoch of the flag is known."""

    epoch: int
    off_variant: str
    rollback_id: str


class Current:
    """Holds the snapshot and the evaluator made from it."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self.freshness = Freshness(self._clock)
        self.lock = threading.Lock()
        self.snapshot: Snapshot | None = None
        self.evaluator: Evaluator | None = None
        self.killed: frozenset[str] = frozenset()
        """Flags with a standing kill."""
        self.unheld: frozenset[str] = frozenset()
        """Flags for which a request's pin may not hold: ask `overrides`."""
        self._overriding: dict[str, Revision] = {}
        """The revision of the last kill that bound a flag, also once it is lifted: a request that began before does not go
        back."""
        self._contained: dict[str, Containment] = {}

    @property
    def revision(self) -> Revision:
        """Of the snapshot; 0.0 where there is none."""
        snapshot = self.snapshot
        return snapshot.revision if snapshot else NOTHING

    def overrides(self, key: str, pinned: Revision) -> bool:
        """Whether a kill came after a request was pinned, of the flag itself or of one that it depends on (P4)."""
        return key in self.killed or pinned < self._overriding.get(key, NOTHING)

    def take_snapshot(self, snapshot: Snapshot) -> Applied | None:
        """Take it in if it is later than what is held, else None."""
        held = self.snapshot
        if held is not None and (snapshot.environment != held.environment or snapshot.revision <= held.revision):
            return None
        evaluator = self._evaluator_of(snapshot)
        with self.lock:
            if self.revision >= snapshot.revision and self.snapshot is not None:
                return None
            changed = sorted(differing(held.flags if held else {}, snapshot.flags))
            bound = bound_by_kills(held.flags if held else {}, snapshot.flags, changed)
            self._install(snapshot, evaluator, bound)
        kill = held is not None and bool(bound)
        return Applied(revision=snapshot.revision, changed=changed, kill=kill)

    def take_change(self, change: Change) -> Applied | None:
        """Apply a change that follows, None for one that is already in. Raises `DoesNotFollow` for a later one."""
        with self.lock:
            held, evaluator = self.snapshot, self.evaluator
            if held is None or evaluator is None or change.environment != held.environment:
                raise DoesNotFollow(change.environment)
            if change.revision <= held.revision:
                return None
            if change.previous != held.revision:
                raise DoesNotFollow(str(change.previous))
            removed = set(change.removed)
            flags = {key: flag for key, flag in held.flags.items() if key not in removed} | change.flags
            bound = bound_by_kills(held.flags, change.flags, change.flags)
            snapshot = msgspec.structs.replace(held, revision=change.revision, flags=flags)
            self._install(snapshot, evaluator.updated(change.flags, change.removed, change.revision), bound)
        return Applied(revision=change.revision, changed=sorted({*change.flags, *removed}), kill=change.kill or bool(bound))

    def contain(self, key: str, off_variant: str | None, rollback_id: str) -> bool:
        """Serve the off variant of `key` from now on, because the fence said that it is killed; whether that is news.

        Cannot tell whether it is in the kill's scope, so it is (P4). Ends when a later epoch of the flag is known.
        """
        with self.lock:
            flag = self.snapshot.flags.get(key) if self.snapshot else None
            if self.snapshot is None or self.evaluator is None or flag is None or flag.kills or key in self._contained:
                return False
            off_variant = off_variant or flag.off_variant
            self._contained[key] = Containment(epoch=flag.epoch, off_variant=off_variant, rollback_id=rollback_id)
            self._install(self.snapshot, self.evaluator)
        return True

    def dead(self, key: str, epoch: int, attributes: dict[str, Any]) -> Kill | None:
        """The standing kill that covers an effect admitted under `epoch`, if any. Call it with `lock` held."""
        flag = self.snapshot.flags.get(key) if self.snapshot else None
        if flag is None:
            return None
        if (contained := self._contained.get(key)) and epoch <= contained.epoch:
            return contained_kill(contained)
        standing = (kill for kill in flag.kills if epoch <= kill.closes_epoch)
        return next((kill for kill in standing if in_scope(attributes, kill.scope.items())), None)

    def belong(self, environment: str) -> None:
        """What is held is for this environment. If it says another, it stays until the server has given the right one."""
        with self.lock:
            if self.snapshot is not None and self.snapshot.environment != environment:
                snapshot = msgspec.structs.replace(self.snapshot, environment=environment, revision=NOTHING)
                self._install(snapshot, self._evaluator_of(snapshot))

    def forked(self) -> None:
        """This is a child: whoever held the lock is not here, and perhaps left its work half done."""
        was_changing, self.lock = self.lock.locked(), threading.Lock()
        if was_changing and self.snapshot is not None:
            self._install(self.snapshot, self._evaluator_of(self.snapshot))

    def epoch(self, key: str) -> int:
        """The flag's epoch in the snapshot; 0 where it is not known."""
        flag = self.snapshot.flags.get(key) if self.snapshot else None
        return flag.epoch if flag else 0

    def _evaluator_of(self, snapshot: Snapshot) -> Evaluator:
        """The evaluator of a snapshot, its flags compiled when they are first asked for."""
        return Evaluator(
            snapshot.flags,
            snapshot.evaluators,
            snapshot.metadata,
            snapshot.bucketing,
            environment=snapshot.environment,
            revision=snapshot.revision,
            now=lambda: int(self._clock.now().timestamp()),
            overdue=self.freshness.overdue,
        )

    def _install(self, snapshot: Snapshot, evaluator: Evaluator, bound: Iterable[str] = ()) -> None:
        self._overriding.update(dict.fromkeys(bound, snapshot.revision))
        for key, contained in list(self._contained.items()):
            flag = snapshot.flags.get(key)
            if flag is None or flag.epoch > contained.epoch:
                del self._contained[key]
                self._overriding[key] = snapshot.revision
        if self._contained:
            overlaid = {key: with_kill(snapshot.flags[key], contained) for key, contained in self._contained.items()}
            evaluator = evaluator.updated(overlaid, [], snapshot.revision)
        self._overriding = {key: revision for key, revision in self._overriding.items() if key in snapshot.flags}
        self.killed = frozenset({key for key, flag in snapshot.flags.items() if flag.kills} | self._contained.keys())
        self.unheld = self.killed | self._overriding.keys()
        self.snapshot = snapshot
        self.evaluator = evaluator


def newly_killed(before: SnapshotFlag | None, after: SnapshotFlag | None) -> bool:
    """Whether a kill stands that did not stand before."""
    if after is None or not after.kills:
        return False
    return before is None or {kill.revision for kill in after.kills} != {kill.revision for kill in before.kills}


def bound_by_kills(
    before: Mapping[str, SnapshotFlag], after: Mapping[str, SnapshotFlag], changed: Iterable[str]
) -> frozenset[str]:
    """Of what changed: flags under a new kill, and if there are any, those with prerequisites, which it may have shut."""
    killed = {key for key in changed if newly_killed(before.get(key), after.get(key))}
    shut = {key for key in changed if (flag := after.get(key)) is not None and flag.laid}
    return frozenset(killed | shut) if killed else frozenset()


def differing(before: dict[str, SnapshotFlag], after: dict[str, SnapshotFlag]) -> set[str]:
    """The keys whose flags are not the same in both."""
    return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}


def contained_kill(contained: Containment) -> Kill:
    """What was learnt from the fence, in the form of a kill."""
    return Kill(
        rollback_id=contained.rollback_id,
        off_variant=contained.off_variant,
        closes_epoch=contained.epoch,
        revision=NOTHING,
    )


def with_kill(flag: SnapshotFlag, contained: Containment) -> SnapshotFlag:
    """The flag as a kill leaves it, in plain flagd terms (P7): ENABLED, the off variant as default, no targeting."""
    definition = {name: value for name, value in flag.definition.items() if name != "targeting"}
    metadata = {**definition.get("metadata", {}), KILLED: True, "rescind.rollback_id": contained.rollback_id}
    return SnapshotFlag(
        definition={**definition, "state": "ENABLED", "defaultVariant": contained.off_variant, "metadata": metadata},
        off_variant=flag.off_variant,
        epoch=flag.epoch,
        kills=[contained_kill(contained)],
        max_staleness_seconds=flag.max_staleness_seconds,
        effect_attributes=flag.effect_attributes,
        on_unreachable=flag.on_unreachable,
        services=flag.services,
    )

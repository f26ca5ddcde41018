"""Which flags are other than they were, for clients that keep answers by flag key until they are told. Pure."""

from __future__ import annotations

from typing import Literal

from rescind import wire

How = Literal["write", "update", "delete"]
"""flagd's words: a new flag, one that is another, one that is gone."""


def changed_flags(before: wire.Snapshot, after: wire.Snapshot) -> dict[str, How]:
    """What became of each flag whose answer may be another. Every flag, where what all of them share has changed.

    >>> changed_flags(wire.Snapshot(environment="e", revision=one, flags={"a": flag}), wire.Snapshot(..., flags={}))
    {'a': 'delete'}
    """
    told: dict[str, How] = {key: "delete" for key in before.flags if key not in after.flags}
    shared = before is not after and _shared(before) != _shared(after)
    for key, flag in after.flags.items():
        held = before.flags.get(key)
        if held is None:
            told[key] = "write"
        elif shared or (held is not flag and _answering(held) != _answering(flag)):
            told[key] = "update"
    return told


def _shared(snapshot: wire.Snapshot) -> bytes:
    return wire.encode([snapshot.evaluators, snapshot.metadata, snapshot.bucketing])


def _answering(flag: wire.SnapshotFlag) -> bytes:
    """What an answer depends on, in a form that tells `true` from 1."""
    return wire.encode([flag.definition, flag.off_variant, flag.kills])

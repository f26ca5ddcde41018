"""The overlay of kills: what a flag is evaluated as while kills stand, in plain flagd terms (P4, P7).

A kill is an overlay, never an edit: the flag's own definition stays stored untouched, so that lifting brings its rules
back, and an edit made while it stands stays under it. A kill of everyone replaces the definition by one that every flagd
client obeys without having heard of us: ENABLED, the off variant as default, no targeting. A narrowed kill travels beside
the definition and is laid by the evaluator, which knows the context.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rescind import wire

KILLED = "rescind.killed"


def unscoped(kills: Sequence[wire.Kill]) -> wire.Kill | None:
    """The standing kill of everyone, the earliest if several stand; None if all are narrowed."""
    return min((kill for kill in kills if not kill.scope), key=lambda kill: kill.revision, default=None)


def killed_definition(definition: dict[str, Any], off_variant: str) -> dict[str, Any]:
    """The definition of a flag that is killed for everyone: plain flagd terms that any client obeys (P7).

    >>> killed_definition({"state": "DISABLED", "variants": {"on": True, "off": False}, "targeting": {}}, "off")
    {'state': 'ENABLED', 'variants': {'on': True, 'off': False}, 'defaultVariant': 'off', 'metadata': {'rescind.killed': True}}
    """
    metadata = definition.get("metadata")
    return {
        "state": "ENABLED",
        "variants": definition.get("variants", {}),
        "defaultVariant": off_variant,
        "metadata": {**(metadata if isinstance(metadata, dict) else {}), KILLED: True},
    }


def effective(
    flag: wire.Flag, epoch: int, kills: Sequence[wire.Kill], definition: dict[str, Any] | None = None, *, laid: int = 0
) -> wire.SnapshotFlag:
    """The flag as it is evaluated, with its standing kills. The kill's own off variant wins over a later edit's (P4).

    `definition` stands for the flag's own, where its prerequisites have been laid: the first `laid` steps of its `if`.
    """
    kill = unscoped(kills)
    return wire.SnapshotFlag(
        definition=(definition or flag.definition) if kill is None else killed_definition(flag.definition, kill.off_variant),
        off_variant=flag.off_variant if kill is None else kill.off_variant,
        epoch=epoch,
        kills=sorted(kills, key=lambda kill: kill.revision),
        max_staleness_seconds=flag.max_staleness_seconds,
        effect_attributes=flag.effect_attributes,
        on_unreachable=flag.on_unreachable,
        services=flag.services,
        laid=laid if kill is None else 0,
    )

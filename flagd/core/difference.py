"""What an import would change: field by field, with the pointers of the document (RFC 6901). Pure.

    >>> fields({"state": "ENABLED", "targeting": {"if": [1, "on"]}}, {"state": "DISABLED", "targeting": {"if": [2, "on"]}}, "")
    [{'pointer': '/state', 'before': 'ENABLED', 'after': 'DISABLED'}, {'pointer': '/targeting/if/0', 'before': 1, 'after': 2}]

A field that is new has no `before`, one that goes has no `after`. Lists of one length are compared item by item, others whole.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from msgspec import UNSET, Struct, UnsetType
from rescind import wire

from flagd.core import documents
from flagd.core.changes import same


class FieldChange(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One value that is another afterwards."""

    pointer: str
    before: Any | UnsetType = UNSET
    after: Any | UnsetType = UNSET


class FlagAdded(Struct, frozen=True, kw_only=True):
    """A flag that is new. Its off variant is what the variants suggest: flagd's format has no field for it."""

    key: str
    off_variant: str


class FlagChanged(Struct, frozen=True, kw_only=True):
    """A flag that is held, and is another afterwards."""

    key: str
    changes: list[FieldChange]


class Difference(Struct, frozen=True, kw_only=True):
    """Everything that an import changes, and what it leaves. `staying`: flags in service that the document does not name."""

    revision: str
    """The environment's revision for which this is true."""
    added: list[FlagAdded]
    changed: list[FlagChanged]
    unchanged: list[str]
    staying: list[str]
    evaluators: list[FieldChange]
    metadata: list[FieldChange]


def difference(
    puts: Collection[wire.Flag],
    held: Mapping[str, wire.Flag],
    keys: Collection[str],
    *,
    revision: str,
    evaluators: tuple[dict[str, Any], dict[str, Any]],
    metadata: tuple[dict[str, Any], dict[str, Any]],
) -> Difference:
    """From the flags as they would be written, those `held` under these keys, and all keys in service.

    `evaluators` and `metadata` are what stands beside the flags, before and after.
    """
    changed = [
        FlagChanged(key=flag.key, changes=found)
        for flag in puts
        if flag.key in held and (found := flag_fields(held[flag.key], flag))
    ]
    moved = {flag.key for flag in changed}
    named = {flag.key for flag in puts}
    return Difference(
        revision=revision,
        added=[FlagAdded(key=flag.key, off_variant=flag.off_variant) for flag in puts if flag.key not in held],
        changed=changed,
        unchanged=[flag.key for flag in puts if flag.key in held and flag.key not in moved],
        staying=[key for key in keys if key not in named],
        evaluators=fields(*evaluators, "/$evaluators"),
        metadata=fields(*metadata, "/metadata"),
    )


def flag_fields(before: wire.Flag, after: wire.Flag) -> list[FieldChange]:
    """What a put of a definition changes of a flag, its off variant included."""
    at = documents.pointer("flags", after.key)
    found = fields(before.definition, after.definition, at)
    if before.off_variant != after.off_variant:
        found.append(FieldChange(pointer=f"{at}/off_variant", before=before.off_variant, after=after.off_variant))
    return found


def fields(before: Any, after: Any, at: str) -> list[FieldChange]:
    """The values in which two JSON documents differ, in the order of the first."""
    if isinstance(before, dict) and isinstance(after, dict):
        found = []
        for name in [*before, *(name for name in after if name not in before)]:
            found.extend(_member(before.get(name, UNSET), after.get(name, UNSET), at + documents.pointer(name)))
        return found
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [one for index, pair in enumerate(zip(before, after, strict=True)) for one in fields(*pair, f"{at}/{index}")]
    return [] if same(before, after) else [FieldChange(pointer=at, before=before, after=after)]


def _member(before: Any, after: Any, at: str) -> list[FieldChange]:
    if before is UNSET or after is UNSET:
        return [FieldChange(pointer=at, before=before, after=after)]
    return fields(before, after, at)

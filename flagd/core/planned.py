"""Changes that are applied later: what is scheduled, and whether it may still be applied by then. Pure.

A scheduled put overwrites a flag. What it may overwrite is what its author had seen: the flag as it stood then, or as a change
that was scheduled before makes it. Edited by hand since, it is refused: an emergency edit is not undone by a clock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from rescind import wire

from flagd.core import changes

AHEAD_SECONDS_MAX: Final = 366 * 86400.0
BEHIND_SECONDS_MAX: Final = 60.0
"""An instant that has just passed is now."""
WAITING_MAX: Final = 1000
"""Changes that wait in one environment."""

Bases = dict[str, list[str]]
"""What is overwritten, a flag's key or a segment's name behind `$`, to digests of what may stand there."""


def documents_of(operations: Sequence[changes.Operation]) -> list[dict[str, Any]]:
    """The operations as a change list, to be read again when they are due."""
    done: list[dict[str, Any]] = []
    for operation in operations:
        match operation:
            case changes.Put(flag=flag):
                done.append({"op": "put", "flag": msgspec.to_builtins(flag)})
            case changes.Archive(key=key):
                done.append({"op": "archive", "key": key})
            case changes.PutSegment(name=name, rule=rule):
                done.append({"op": "put_segment", "name": name, "segment": {"rule": rule}})
            case changes.DeleteSegment(name=name):
                done.append({"op": "delete_segment", "name": name})
            case _:
                raise AssertionError(f"not scheduled: {operation}")
    return done


def written(operations: Sequence[changes.Operation]) -> dict[str, str]:
    """What the operations leave where they overwrite something: its digest."""
    left: dict[str, str] = {}
    for operation in operations:
        match operation:
            case changes.Put(flag=flag):
                left[flag.key] = digest(flag)
            case changes.PutSegment(name=name, rule=rule):
                left[f"${name}"] = digest(rule)
    return left


def bases_of(
    operations: Sequence[changes.Operation],
    flags: Mapping[str, wire.Flag],
    evaluators: Mapping[str, Any],
    earlier: Iterable[Mapping[str, str]],
) -> Bases:
    """What may stand there by then: what stands there now, and what those scheduled `earlier` leave."""
    left = list(earlier)
    return {
        name: list(dict.fromkeys([_held(name, flags, evaluators), *(one[name] for one in left if name in one)]))
        for name in written(operations)
    }


def objections(
    bases: Bases, places: Mapping[str, str], held: Mapping[str, changes.HeldFlag], evaluators: Mapping[str, Any]
) -> list[wire.Fault]:
    """`edited`, for whatever is not as its author had seen it; nothing for what is gone, of which the change itself tells."""
    flags = {key: one.flag for key, one in held.items() if not one.is_archived}
    return [
        wire.Fault(pointer=places.get(name, ""), code="edited", detail=_edited(name, held))
        for name, known in bases.items()
        if not (name in held and held[name].is_archived) and _held(name, flags, evaluators) not in known
    ]


def digest(document: object) -> str:
    """Of a JSON document, whatever the order of its fields."""
    return hashlib.sha256(msgspec.json.encode(document, order="deterministic")).hexdigest()


def at_faults(seconds: float) -> list[wire.Fault]:
    """What is wrong with an instant that is so many seconds away."""
    if -BEHIND_SECONDS_MAX <= seconds <= AHEAD_SECONDS_MAX:
        return []
    days = AHEAD_SECONDS_MAX / 86400
    detail = "that is in the past: make the change now" if seconds < 0 else f"that is more than {days:g} days away"
    return [wire.Fault(pointer="/at", code="out_of_range", detail=detail)]


def _held(name: str, flags: Mapping[str, wire.Flag], evaluators: Mapping[str, Any]) -> str:
    if name.startswith("$"):
        return digest(evaluators[name[1:]]) if name[1:] in evaluators else ""
    return digest(flags[name]) if name in flags else ""


def _edited(name: str, held: Mapping[str, changes.HeldFlag]) -> str:
    if name.startswith("$"):
        return f"segment `{name[1:]}` was edited since the change was scheduled"
    since = f", at revision {held[name].changed}" if name in held else ""
    return f"flag `{name}` was edited since the change was scheduled{since}"

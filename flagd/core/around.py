"""What stands around a change: flags that it does not name, and would break (P1, P7). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct
from rescind import wire
from rescind.evaluation import check

from flagd.core import changes, graph, segments


class Around(Struct, frozen=True, kw_only=True):
    """Flags that have to hear of a change, as they are after it."""

    referring: Mapping[str, wire.Flag]
    """Those that refer to segments and that the change does not name; none where no segment changes."""
    related: Mapping[str, wire.Flag]
    """Those that have to do with its flags by prerequisites, its own among them."""
    requiring: Mapping[str, wire.Flag] = {}
    """Those that require declarations; none where the bucketing stays."""

    def flags(self) -> dict[str, wire.Flag]:
        """All of them."""
        return {**self.requiring, **self.referring, **self.related}


def faults(
    around: Around,
    plan: changes.Plan,
    places: Mapping[str, str],
    *,
    before: Mapping[str, Any],
    after: dict[str, Any],
    checked: dict[str, Any] | None,
    bucketing: str,
) -> list[wire.Fault]:
    """Everything that the change would break around it.

    `places` says where each flag and, as `$<name>`, each segment of it was written; `before` and `after` are the shared rules,
    `checked` those that its flags were checked with.
    """
    found = [] if checked == after else _rechecked(plan.puts, after, places)
    if after != before:
        definitions = {key: flag.definition for key, flag in around.referring.items()}
        segment_places = {name[1:]: place for name, place in places.items() if name.startswith("$")}
        found += segments.broken(definitions, dict(before), after, segment_places)
    changed = {key: place for key, place in places.items() if not key.startswith("$")}
    elsewhere = next((place for name, place in places.items() if name.startswith("$")), "")
    return [*found, *graph.faults(around.related, changed, after, bucketing, elsewhere)]


def places_of(operations: Sequence[changes.Operation], pointers: Sequence[str]) -> dict[str, str]:
    """Where each flag, and as `$<name>` each segment, was written."""
    places: dict[str, str] = {}
    for operation, at in zip(operations, pointers, strict=True):
        match operation:
            case changes.PutSegment(name=name) | changes.DeleteSegment(name=name):
                places[f"${name}"] = at
            case changes.SetBucketing():
                places["$"] = at
            case _:
                places[changes.key_of(operation) or ""] = at
    return places


def _rechecked(puts: Sequence[wire.Flag], evaluators: dict[str, Any], places: Mapping[str, str]) -> list[wire.Fault]:
    """The flags of the change that refer to segments, against the segments as they are now: they were checked before."""
    return [
        wire.Fault(pointer=f"{places[flag.key]}/definition{one.pointer}", code=str(one.code), detail=one.detail)
        for flag in {flag.key: flag for flag in puts}.values()
        if segments.references(flag.definition.get("targeting"))
        for one in check(flag.definition, evaluators=evaluators)
    ]

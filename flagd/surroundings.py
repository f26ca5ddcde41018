"""What a change means for flags that it does not name: those that depend on its flags, or refer to its segments (P1, P7).

Looked at inside the change's own transaction, with the environment locked, so that nothing moves meanwhile; bounded by the
limits of `core.graph` and `core.segments`, for a kill waits as long.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from rescind import wire
from rescind.evaluation import check

from flagd import store
from flagd.core import changes, graph, segments
from runtime.postgres import Connection
from runtime.queries import Queries

_SURROUNDINGS = Queries.load("flagd", "surroundings")
_flag = msgspec.json.Decoder(wire.Flag)


async def faults(
    connection: Connection,
    environment: str,
    locked: store.Locked,
    plan: changes.Plan,
    places: Mapping[str, str],
    evaluators: dict[str, Any],
    checked: dict[str, Any] | None,
) -> list[wire.Fault]:
    """Everything that the change would break around it. `checked` are the shared rules that its flags were checked with.

    `places` says where each flag and, as `$<name>`, each segment of the change was written; `evaluators` are the shared rules
    after it.
    """
    puts = {flag.key: flag for flag in plan.puts}
    is_moved = evaluators != locked.evaluators
    referring = await _referring(connection, environment, {*puts, *plan.archives}) if is_moved else {}
    found = [] if checked == evaluators else _rechecked(puts, evaluators, places)
    if is_moved:
        definitions = {key: flag.definition for key, flag in referring.items()}
        segment_places = {name[1:]: place for name, place in places.items() if name.startswith("$")}
        found += segments.broken(definitions, locked.evaluators, evaluators, segment_places)
    bucketing = plan.bucketing or locked.bucketing
    start = [*puts, *plan.archives, *referring, *(one.flag for flag in puts.values() for one in flag.prerequisites)]
    if bucketing != locked.bucketing:
        start += [row["flag"] for row in await connection.fetch(_SURROUNDINGS.dependent_flags, environment)]
    flags = await _around(connection, environment, start, puts, plan.archives)
    changed = {key: place for key, place in places.items() if not key.startswith("$")}
    elsewhere = next((place for name, place in places.items() if name.startswith("$")), "")
    return [*found, *graph.faults(flags, changed, evaluators, bucketing, elsewhere)]


async def index(connection: Connection, environment: str, plan: changes.Plan) -> None:
    """Write the way back from each flag to those that have to hear of its changes."""
    named = [(flag.key, one.flag) for flag in plan.puts for one in flag.prerequisites]
    await connection.execute(_SURROUNDINGS.forget_prerequisites, environment, plan.keys())
    if named:
        await connection.execute(
            _SURROUNDINGS.put_prerequisites, environment, [one for one, _ in named], [one for _, one in named]
        )


async def in_service(connection: Connection, environment: str, keys: Sequence[str]) -> dict[str, wire.Flag]:
    """The flags of these keys as they are written; archived ones are not among them."""
    rows = await connection.fetch(_SURROUNDINGS.in_service, environment, list(keys))
    return {flag.key: flag for flag in (_flag.decode(row["document"]) for row in rows)}


async def referring_keys(connection: Connection, environment: str) -> dict[str, list[str]]:
    """For each segment, the flags that refer to it."""
    found: dict[str, list[str]] = {}
    for key, flag in (await _referring(connection, environment, ())).items():
        for name in sorted(segments.references(flag.definition.get("targeting"))):
            found.setdefault(name, []).append(key)
    return found


async def _referring(connection: Connection, environment: str, without: Iterable[str]) -> dict[str, wire.Flag]:
    rows = await connection.fetch(_SURROUNDINGS.referring, environment)
    flags = {flag.key: flag for flag in (_flag.decode(row["document"]) for row in rows)}
    return {key: flag for key, flag in flags.items() if key not in without}


def _rechecked(puts: Mapping[str, wire.Flag], evaluators: dict[str, Any], places: Mapping[str, str]) -> list[wire.Fault]:
    """The flags of the change that refer to segments, against the segments as they are now: they were checked before."""
    return [
        wire.Fault(pointer=f"{places[key]}/definition{one.pointer}", code=str(one.code), detail=one.detail)
        for key, flag in puts.items()
        if segments.references(flag.definition.get("targeting"))
        for one in check(flag.definition, evaluators=evaluators)
    ]


async def _around(
    connection: Connection,
    environment: str,
    start: Sequence[str],
    puts: Mapping[str, wire.Flag],
    archives: Sequence[str],
) -> dict[str, wire.Flag]:
    """Every flag that has to do with these, by its prerequisites or theirs, as it is after the change."""
    edges = [(row["flag"], row["prerequisite"]) for row in await connection.fetch(_SURROUNDINGS.related, environment, start)]
    if not edges and not any(flag.prerequisites for flag in puts.values()):
        return {}
    keys = {key for edge in edges for key in edge} | {one.flag for flag in puts.values() for one in flag.prerequisites}
    held = await in_service(connection, environment, sorted(keys - puts.keys() - set(archives)))
    return {**held, **{key: flag for key, flag in puts.items() if flag.prerequisites or key in keys}}


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

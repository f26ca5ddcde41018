"""What stands around a change, read from PostgreSQL: who depends on its flags, or refers to its segments (P1, P7).

Read without a lock, before the change takes the environment's row; `judging` sees to it that nothing moved meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from asyncpg import Record
from rescind import wire

from flagd import store
from flagd.core import changes, segments
from flagd.core.around import Around
from runtime.postgres import Connection
from runtime.queries import Queries

_SURROUNDINGS = Queries.load("flagd", "surroundings")
_flag = msgspec.json.Decoder(wire.Flag)


async def look(
    connection: Connection, environment: str, head: store.Head, plan: changes.Plan, *, is_shared_moved: bool
) -> Around:
    """Every flag that has to hear of the change. `is_shared_moved`: what flags share is not the same after it."""
    puts = {flag.key: flag for flag in plan.puts}
    referring = await _referring(connection, environment, {*puts, *plan.archives}) if is_shared_moved else {}
    start = [*puts, *plan.archives, *referring, *(one.flag for flag in puts.values() for one in flag.prerequisites)]
    requiring: dict[str, wire.Flag] = {}
    if plan.bucketing not in (None, head.bucketing):
        start += [row["flag"] for row in await connection.fetch(_SURROUNDINGS.dependent_flags, environment)]
        requiring = await _flags(await connection.fetch(_SURROUNDINGS.requiring, environment))
    related = await _related(connection, environment, start, puts, plan.archives)
    return Around(referring=referring, related=related, requiring=requiring)


async def beside(connection: Connection, environment: str, key: str) -> dict[str, wire.Flag]:
    """The flag, and every flag that has to do with it by prerequisites; nothing where there is no such flag."""
    edges = await connection.fetch(_SURROUNDINGS.related, environment, [key])
    return await in_service(connection, environment, sorted({key, *(one for edge in edges for one in edge)}))


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
    return await _flags(await connection.fetch(_SURROUNDINGS.in_service, environment, list(keys)))


async def referring_keys(connection: Connection, environment: str) -> dict[str, list[str]]:
    """For each segment, the flags that refer to it."""
    return await asyncio.to_thread(_by_segment, await _referring(connection, environment, ()))


def _by_segment(flags: Mapping[str, wire.Flag]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, flag in flags.items():
        for name in sorted(segments.references(flag.definition.get("targeting"))):
            found.setdefault(name, []).append(key)
    return found


async def _referring(connection: Connection, environment: str, without: Iterable[str]) -> dict[str, wire.Flag]:
    flags = await _flags(await connection.fetch(_SURROUNDINGS.referring, environment))
    return {key: flag for key, flag in flags.items() if key not in without}


async def _flags(rows: Sequence[Record]) -> dict[str, wire.Flag]:
    """Read in a thread: there may be thousands, and the loop has others to serve."""
    return await asyncio.to_thread(lambda: {flag.key: flag for flag in (_flag.decode(row["document"]) for row in rows)})


async def _related(
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

"""Instances that begin: their rows, inserted under the flags' locks, and what those are told that do not (P8, P9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec
from rescind.wire import InstanceStarted

from runtime.clock import Entropy
from runtime.postgres import Connection
from runtime.sealing import Ring
from sagas import lines, sealing
from sagas.core import admission
from sagas.core.admission import Fence
from sagas.instances import rows
from sagas.instances.plans import Plans
from sagas.instances.rows import QUERIES, columns
from sagas.instances.turns import Answer, Start, Turn
from sagas.store import FlagName

Named = tuple[str, str, str]
"""Environment, saga, and the caller's id."""


async def begin(
    connection: Connection,
    turns: Sequence[Turn],
    answers: Sequence[Answer],
    *,
    fences: Mapping[FlagName, Fence],
    plans: Plans,
    entropy: Entropy,
) -> dict[UUID, dict[str, Any]]:
    """Insert what may begin; the others are told why not. Returns the new rows."""
    starts = [start for turn in turns for start in turn.starts]
    if not starts:
        return {}
    rows_: dict[Named, dict[str, Any]] = {}
    refusals: dict[Named, InstanceStarted] = {}
    for start in starts:
        name = (start.environment, start.saga, start.id)
        planned = await plans.get(connection, (start.environment, start.saga, start.version))
        fence = None if planned is None else fences.get((start.environment, planned.definition.flag))
        if planned is None or fence is None:
            refusals[name] = _no_flag() if planned is not None else no_version(start)
            continue
        is_off = start.variant is not None and start.variant == fence.off_variant
        if not is_off and admission.killer(fence, start.attributes)[0]:
            refusals[name] = InstanceStarted(outcome="killed")
        elif name not in rows_:
            rows_[name] = {
                **_row(start, planned.definition.flag, is_off=is_off, uid=entropy.uuid7()),
                "place": await place_of(connection, plans, msgspec.structs.asdict(start)),
            }
    inserted = await _insert(connection, list(rows_.values()))
    await _enter(connection, [row for name, row in rows_.items() if name in inserted])
    others = [start for start in starts if (start.environment, start.saga, start.id) not in inserted]
    known = await _known(connection, others) if others else {}
    for turn, answer in zip(turns, answers, strict=True):
        for start in turn.starts:
            name = (start.environment, start.saga, start.id)
            answer.started.append(_started(start, name, inserted, known, refusals))
    return {row["uid"]: row for name, row in rows_.items() if name in inserted}


async def _insert(connection: Connection, wanted: Sequence[dict[str, Any]]) -> set[Named]:
    if not wanted:
        return set()
    values = [
        (
            row["uid"], row["environment"], row["saga"], row["id"], row["version"], row["flag"], row["variant"],
            row["is_off"], row["revision_generation"], row["revision"], row["subject"], row["attributes_json"],
            _sealed(connection, row), row["input_hash"], row["run_by"], row["lease_seconds"], row["traceparent"],
            row["started_by"],
        )
        for row in wanted
    ]  # fmt: skip
    won = {row["uid"] for row in await connection.fetch(QUERIES.insert, *columns(values, 18))}
    return {(row["environment"], row["saga"], row["id"]) for row in wanted if row["uid"] in won}


def _sealed(connection: Connection, row: Mapping[str, Any]) -> str | None:
    ring: Ring = connection.ring
    return ring.seal(row["input_json"], sealing.instance_name(row["environment"], row["saga"], row["id"]))


async def place_of(connection: Connection, plans: Plans, row: Mapping[str, Any]) -> lines.Place | None:
    """The line in which an instance is to stand; null where its version names none."""
    planned = await plans.get(connection, (row["environment"], row["saga"], row["version"]))
    line = None if planned is None else planned.definition.line
    if line is None or row["subject"] is None:
        return None
    return lines.Place(environment=row["environment"], line=line, subject=row["subject"])


async def _enter(connection: Connection, begun: Sequence[dict[str, Any]]) -> None:
    """Have those that stand in a line stand there; what `known` would read of it goes into their rows."""
    entering = [(row["uid"], row["place"]) for row in begun if row["place"] is not None]
    found = await lines.enter(connection, entering) if entering else {}
    for row in begun:
        row["leads"] = found.get(row["uid"])


async def _known(connection: Connection, starts: Sequence[Start]) -> dict[Named, Any]:
    names = [(start.environment, start.saga, start.id) for start in starts]
    found = await connection.fetch(QUERIES.standing_ids, *columns(names, 3))
    return {(row["environment"], row["saga"], row["id"]): row for row in found}


def _row(start: Start, flag: str, *, is_off: bool, uid: UUID) -> dict[str, Any]:
    """The row of a new instance, as `lock` would read it."""
    return {
        "uid": uid, "environment": start.environment, "saga": start.saga, "id": start.id, "version": start.version,
        "flag": flag, "variant": start.variant, "is_off": is_off, "revision_generation": start.revision[0],
        "revision": start.revision[1], "subject": start.subject, "attributes": start.attributes,
        "attributes_json": start.attributes_json, "input": rows.value(start.input_json), "input_json": start.input_json,
        "input_hash": start.input_hash, "run_by": start.run_by, "lease_seconds": start.lease_seconds,
        "traceparent": start.traceparent, "started_by": start.started_by, "state": "running", "paused": False,
        "turned_back": False, "laid": False, "reason": None, "error": None,
    }  # fmt: skip


def _started(
    start: Start, name: Named, inserted: set[Named], known: dict[Named, Any], refusals: dict[Named, InstanceStarted]
) -> InstanceStarted:
    if name in inserted:
        return InstanceStarted(outcome="started", state="running")
    there = known.get(name)
    if there is not None:
        same = there["input_hash"] == start.input_hash
        return InstanceStarted(outcome="exists" if same else "conflict", state=there["state"])
    return refusals[name]


def no_version(start: Start) -> InstanceStarted:
    detail = f"{start.environment!r} has no version {start.version!r} of saga {start.saga!r}"
    return InstanceStarted(
        outcome="invalid",
        error={
            "code": "unknown_version",
            "detail": detail,
            "pointer": "/version",
            "next_step": "register it: `rescind sagas register FILE`, or start a client with `sagas=[...]`",
        },
    )


def _no_flag() -> InstanceStarted:
    detail = "the flag of this saga is not known here: create it first"
    return InstanceStarted(outcome="invalid", error={"code": "unknown_flag", "detail": detail, "pointer": "/version"})

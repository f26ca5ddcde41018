"""One instance as people see it, whole: with its steps and its history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from asyncpg import Record

from runtime.postgres import Connection
from runtime.sealing import Ring
from sagas import lines, sealing
from sagas.instances.rows import QUERIES

HISTORY_MAX = 1_000
EFFECTS_MAX = 1_000


async def whole(connection: Connection, row: Record) -> dict[str, Any]:
    """One instance with everything that is known of it."""
    done = await connection.fetch(QUERIES.done_under, row["environment"], row["saga"], row["id"], EFFECTS_MAX)
    effects = [sealing.opened(connection.ring, {**one, "environment": row["environment"]}) for one in done]
    ready = {one["step"]: one["due_at"] for one in await connection.fetch(QUERIES.ready_steps, row["uid"])}
    waits = await connection.fetch(QUERIES.waiting_for, row["uid"])
    ahead = await lines.ahead(connection, row["uid"])
    history = await connection.fetch(QUERIES.history, row["uid"], HISTORY_MAX)
    ring: Ring = connection.ring
    shown = {
        name: value
        for name, value in sealing.instance(ring, row).items()
        if name not in ("revision_generation", "laid", "turned_back")
    }
    return {
        **shown,
        "revision": f"{row['revision_generation']}.{row['revision']}",
        "steps": _steps(effects, ready),
        "waits": [dict(one) for one in waits],
        "after": [{name: value for name, value in one.items() if name != "number"} for one in ahead],
        "after_count": ahead[0]["number"] if ahead else 0,
        "history": [_fact(ring, row, one) for one in history],
    }


def _fact(ring: Ring, row: Record, fact: Record) -> dict[str, Any]:
    values, detail = dict(fact), fact["detail"]
    if isinstance(detail, dict) and "payload" in detail:
        name = sealing.instance_name(row["environment"], row["saga"], row["id"])
        values["detail"] = {**detail, "payload": ring.open(detail["payload"], name)}
    return values


def _steps(effects: Sequence[Mapping[str, Any]], ready: Mapping[str, datetime]) -> list[dict[str, Any]]:
    """What was done under the instance in the order in which it was begun, then what lies ready and was not."""
    steps = [_step(effect, ready.get(effect["step"])) for effect in effects]
    known = {step["step"] for step in steps}
    return steps + [{"step": step, "status": "ready", "due_at": at} for step, at in ready.items() if step not in known]


def _step(effect: Mapping[str, Any], due_at: datetime | None) -> dict[str, Any]:
    attempts = [one for one in effect["evidence"] if one.get("what") == "attempt"]
    values = {name: value for name, value in effect.items() if name not in ("id", "instance_id", "evidence", "environment")}
    return {
        "effect_id": effect["id"],
        **values,
        "worker": effect["instance_id"].removeprefix("worker:"),
        "due_at": due_at,
        "attempts": [{name: one.get(name) for name in ("attempt", "status", "error", "at")} for one in attempts],
    }

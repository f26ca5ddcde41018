"""What people and services say to an instance, under its lock: verbs, events, approvals (P20).

Honest and idempotent: what stands already changes nothing, and what cannot be is answered with where the instance stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec

from runtime import audit
from runtime.postgres import Connection
from runtime.sealing import Ring
from sagas import lines, sealing
from sagas.instances import facts
from sagas.instances.plans import Plans
from sagas.instances.rows import QUERIES
from sagas.instances.turns import Answer, Heard, Turn, Word
from sagas.instances.writes import Writes

VERBS = ("cancel", "pause", "resume", "retry", "skip", "overtake")
FACTS_MAX = 10_000
FORWARD = ("running", "waiting")
KEPT = ("cancel", "pause", "resume", "event", "approved", "refused")
"""What is said to one that a kill stopped is kept for when it is lifted."""


class Words:
    """Hears the words of a flush."""

    def __init__(self, plans: Plans) -> None:
        self._plans = plans

    async def hear(
        self,
        connection: Connection,
        turns: Sequence[Turn],
        answers: Sequence[Answer],
        held: Mapping[UUID, dict[str, Any]],
        writes: Writes,
    ) -> set[tuple[UUID, str]]:
        """Write down what is said. Returns the steps that lay ready and are to begin at once."""
        hurried: set[tuple[UUID, str]] = set()
        for turn, answer in zip(turns, answers, strict=True):
            for word in turn.words:
                row = held.get(word.uid)
                if row is None:
                    answer.heard.append(Heard(changed=False, state="", paused=False))
                    continue
                why = "past_pivot" if word.fact == "cancel" and await self._is_past(connection, row) else None
                changed = why is None and await self._hear(connection, word, row, writes, hurried)
                if changed:
                    await self._audit(connection, word, row)
                if changed and word.fact in ("pause", "resume"):
                    row["paused"] = word.fact == "pause"
                answer.heard.append(Heard(changed=changed, state=row["state"], paused=row["paused"], why=why))
        await writes.said(connection)
        return hurried

    async def _is_past(self, connection: Connection, row: Any) -> bool:
        """Whether its pivot was done: there is no turning back."""
        planned = await self._plans.get(connection, (row["environment"], row["saga"], row["version"]))
        assert planned is not None, "definitions are never deleted"
        pivots = {step.name for step in planned.definition.steps if step.step_class == "pivot"}
        if not pivots or row["state"] not in (*FORWARD, "killed"):
            return False
        [known] = await facts.load(connection, [dict(row)], frozenset())
        done = {name for name, fact in known.facts.steps.items() if fact.status == "succeeded"} | known.facts.skipped
        return not pivots.isdisjoint(done)

    async def _hear(self, connection: Connection, word: Word, row: Any, writes: Writes, hurried: set[tuple[UUID, str]]) -> bool:
        may_hear = row["state"] in FORWARD or (row["state"] == "killed" and word.fact in KEPT)
        if row["turned_back"] or not may_hear:
            return False
        if await connection.fetchval(QUERIES.facts_count, word.uid) >= FACTS_MAX:
            return False
        [known] = await facts.load(connection, [dict(row)], frozenset())
        match word.fact:
            case "pause" | "resume":
                changed = await connection.fetchval(QUERIES.pause, word.uid, word.fact == "pause") is not None
            case "cancel":
                changed = not known.facts.cancelled
            case "retry":
                return await self._retry(connection, word, known, writes, hurried)
            case "overtake":
                changed = await lines.overtake(connection, word.uid)
            case "skip":
                changed = await self._skips(connection, word, known)
            case "event" if word.event_id is not None:
                changed = not await connection.fetchval(QUERIES.event_is_known, word.uid, word.name, word.event_id)
            case _:
                changed = word.name not in known.facts.waits_ended
        if changed:
            writes.say(word.uid, word.fact, word.name, _sealed(connection, word, row), word.by_whom, word.reason)
            if word.fact in ("event", "approved", "refused", "skip"):
                await connection.execute(QUERIES.close_wait, word.uid, word.name)
        return changed

    async def _retry(
        self, connection: Connection, word: Word, known: facts.Known, writes: Writes, hurried: set[tuple[UUID, str]]
    ) -> bool:
        """Steps that failed or are in doubt, and in nobody's hands: their attempts count anew, and no delay is waited for."""
        tried = [
            (name, fact)
            for name, fact in known.facts.steps.items()
            if fact.status != "succeeded"
            and not (fact.status == "admitted" and fact.is_leased)
            and word.name in ("", name)
            and name not in known.facts.skipped
            and fact.attempt > known.facts.retry_base.get(name, 0)
        ]
        if tried:
            hurried |= {(row["uid"], row["step"]) for row in await connection.fetch(QUERIES.hurry, word.uid)}
        for name, fact in tried:
            hurried.add((word.uid, name))
            writes.say(word.uid, "retry", name, _detail(word, {"attempts": fact.attempt}), word.by_whom, word.reason)
        never_begun = (
            not tried and known.row["state"] == "waiting" and word.name in ("", (known.row["error"] or {}).get("step"))
        )
        if never_begun:
            writes.say(word.uid, "retry", word.name, _detail(word, None), word.by_whom, word.reason)
        return bool(tried) or never_begun

    async def _skips(self, connection: Connection, word: Word, known: facts.Known) -> bool:
        """A step in nobody's hands that has not succeeded, or a wait that has not ended."""
        row, step = known.row, known.facts.steps.get(word.name)
        planned = await self._plans.get(connection, (row["environment"], row["saga"], row["version"]))
        assert planned is not None, "definitions are never deleted"
        if word.name in known.facts.skipped or word.name in known.facts.waits_ended:
            return False
        if planned.wait(word.name) is not None:
            return True
        is_out = step is not None and (step.status == "succeeded" or (step.status == "admitted" and step.is_leased))
        return planned.definition.step(word.name) is not None and not is_out

    async def _audit(self, connection: Connection, word: Word, row: Any) -> None:
        if word.fact == "event" or word.operation is not None:
            return
        await audit.append(
            connection,
            actor=word.by_whom,
            action=f"instance.{word.fact}",
            environment=row["environment"],
            object=f"{row['saga']}/{row['id']}",
            reason=word.reason,
            detail={"name": word.name} if word.name else {},
        )


def _sealed(connection: Connection, word: Word, row: Any) -> dict[str, Any] | None:
    """What is kept of a word; what an event brings is sealed."""
    ring: Ring = connection.ring
    detail = _detail(word, word.detail)
    if detail is None or detail.get("payload") is None:
        return detail
    name = sealing.instance_name(row["environment"], row["saga"], row["id"])
    sealed = ring.seal(msgspec.json.encode(detail["payload"]).decode(), name)
    return {**detail, "payload": msgspec.Raw(str(sealed).encode())}


def _detail(word: Word, detail: dict[str, Any] | None) -> dict[str, Any] | None:
    return detail if word.operation is None else {**(detail or {}), "operation": str(word.operation)}

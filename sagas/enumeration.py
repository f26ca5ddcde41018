"""Finds the effects of a rollback's set, in chunks by keyset, and judges them (P11, P12, P16, hazards 3 and 13).

Every chunk is one short transaction that begins with the lease's fence. The same judgement serves effects met by the
enumeration, effects with late news (`sagas.late`), and undetermined effects whose time has come.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from uuid import UUID

import msgspec
from msgspec import Struct

from runtime.clock import Entropy
from runtime.postgres import Connection
from runtime.queries import Queries
from runtime.sealing import Ring
from sagas import look_ups, sealing
from sagas.catalogue import Catalogue, Effect, Reference, Rules, effect_of, is_looked_up_by_worker, terms_of
from sagas.core.compensation import Reason
from sagas.core.retry import delay_seconds
from sagas.core.verdicts import Fate, Verdict, judge
from sagas.dispositions import Dispositions, Judged, Written
from sagas.executors.outcomes import Absent, Found, Sighting, plain

QUERIES = Queries.load("sagas", "enumeration")
COORDINATOR = Queries.load("sagas", "coordinator")
CHUNK = 1_000
CHUNK_FIRST = 100
LATE_MAX = 500
JUDGE_MAX = 500
NO_WORKER_SECONDS = 60.0
ASK_SECONDS = 5.0
"""How often it is looked at whether any worker can say; its answer is told at once."""
CONTINUES_SECONDS = 3_600.0
"""How often one that goes on first is looked at again, should its end not have been told."""


class Rollback(Struct, frozen=True, kw_only=True):
    """What the work on a rollback's effects needs to know of it."""

    id: UUID
    environment: str
    reason: str
    incident: str | None


class LookUp(Struct, frozen=True, kw_only=True):
    """An effect in doubt, to be looked up at its provider by our key."""

    effect: Effect
    reference: Reference
    rules: Rules

    @property
    def settles_in_seconds(self) -> float:
        """Until "unknown to the provider" proves that it never happened."""
        return self.effect.lease_left_seconds + self.rules.settle_seconds


class Enumeration:
    """Each method works inside the caller's fenced transaction."""

    def __init__(self, catalogue: Catalogue, entropy: Entropy, *, no_worker_seconds: float = NO_WORKER_SECONDS) -> None:
        self._catalogue = catalogue
        self._no_worker_seconds = no_worker_seconds
        self._dispositions = Dispositions(entropy)

    async def chunk(self, connection: Connection, rollback: Rollback, limit: int | None = None) -> bool:
        """Take the next chunk of the set. Returns whether there may be more."""
        await connection.execute(COORDINATOR.at_work, rollback.id)
        place = await connection.fetchrow(QUERIES.next_flag, rollback.id)
        if place is None:
            return False
        size = limit or (CHUNK_FIRST if place["cursor"] is None else CHUNK)
        rows = await connection.fetch(QUERIES.chunk, rollback.id, place["flag"], place["scope_key"], size)
        await self._take(connection, rollback, [effect_of(connection, row) for row in rows if row["in_set"]])
        cursor = rows[-1]["id"] if rows else None
        await connection.execute(
            QUERIES.advance, rollback.id, place["flag"], place["scope_key"], cursor, len(rows) < size, place["sweep"]
        )
        return True

    async def late(self, connection: Connection, rollback: Rollback) -> bool:
        """Look again at effects with late news. Returns whether there may be more."""
        await connection.execute(COORDINATOR.at_work, rollback.id)
        news = await connection.fetch(QUERIES.late, rollback.id, LATE_MAX)
        if not news:
            return False
        ids = [row["effect_id"] for row in news]
        rows = await connection.fetch(QUERIES.news, rollback.id, ids)
        await self._take(connection, rollback, [effect_of(connection, row) for row in rows if row["in_set"]])
        await connection.execute(QUERIES.dealt_with, rollback.id, ids, [row["at"] for row in news])
        return len(news) == LATE_MAX

    async def undetermined(
        self, connection: Connection, rollback: Rollback, busy: Collection[UUID], look_ups_max: int
    ) -> tuple[list[LookUp], int]:
        """Judge the effects whose time has come. Returns what is to be looked up, at most `look_ups_max`, and how many were
        judged."""
        ids = [row["effect_id"] for row in await connection.fetch(QUERIES.to_judge, rollback.id, list(busy), JUDGE_MAX)]
        judged = await self._judge(connection, ids)
        asked = [each for each in judged if each.verdict.fate is Fate.LOOK_UP]
        await self._write(connection, rollback, [each for each in judged if each.verdict.fate is not Fate.LOOK_UP])
        ours = [each for each in asked if each.rules is not None and not is_looked_up_by_worker(each.rules)]
        await self._ask_workers(connection, [each for each in asked if each not in ours])
        by_us = [
            LookUp(effect=each.effect, reference=each.reference, rules=each.rules)
            for each in ours[:look_ups_max]
            if each.reference is not None and each.rules is not None
        ]
        return by_us, len(judged) - len(asked)

    async def _ask_workers(self, connection: Connection, asked: Sequence[Judged]) -> None:
        """Put the question to the team's workers, once; a person decides where it was given up or where there is none."""
        if not asked:
            return
        ids = [each.effect.id for each in asked]
        await look_ups.lay(
            connection, [(each.effect.id, each.rules.settle_seconds) for each in asked if each.rules is not None]
        )
        stands = await look_ups.stands(connection, ids, unserved_seconds=self._no_worker_seconds)
        given_up = [one for one in ids if one not in stands or stands[one]["given_up"]]
        unserved = [one for one in ids if one not in given_up and not stands[one]["is_served"]]
        counts = {each.effect.id: each.effect.judge_count for each in asked}
        left = [one for one in ids if one not in given_up and one not in unserved]
        if given_up:
            await connection.execute(QUERIES.give_up, given_up, Reason.LOOK_UP_EXHAUSTED)
        if unserved:
            await connection.execute(QUERIES.give_up, unserved, Reason.NO_WORKER)
        if left:
            seconds = min(ASK_SECONDS, self._no_worker_seconds / 2)
            await connection.execute(QUERIES.ask_again, left, [seconds] * len(left), [counts[one] for one in left])

    async def again(self, connection: Connection, rollback: Rollback, ids: Sequence[UUID]) -> None:
        """Judge these effects anew, as they are recorded now."""
        await self._write(connection, rollback, await self._judge(connection, ids))

    async def lay(self, connection: Connection, effects: Sequence[tuple[UUID, Effect]]) -> Written:
        """Take effects of instances that turned back, each under the standing rollback that is named with it."""
        taken = [(rollback_id, effect) for rollback_id, effect in effects if not _is_elsewhere(effect, rollback_id)]
        if taken:
            await _join(connection, taken)
        judged = [(rollback_id, await self._judged(connection, effect)) for rollback_id, effect in taken]
        return await self._dispositions.write(
            connection, [(rollback_id, each) for rollback_id, each in judged if _may_change(each, rollback_id)]
        )

    async def sighted(
        self, connection: Connection, rollback: Rollback, actor: str, seen: Sequence[tuple[LookUp, Sighting]], chance: float
    ) -> None:
        """Write down what look-ups said, and judge again what they decided. `chance` in [0, 1) spreads the repeats."""
        seen = sorted(seen, key=lambda each: each[0].effect.id)
        await connection.execute(QUERIES.lock_undetermined, [look_up.effect.id for look_up, _ in seen])
        found = [(look_up.effect.id, sighting.result) for look_up, sighting in seen if isinstance(sighting, Found)]
        absent = [u.effect.id for u, sighting in seen if isinstance(sighting, Absent) and u.settles_in_seconds <= 0]
        decided = [identity for identity, _ in found] + absent
        if found:
            ring: Ring = connection.ring
            named = [(result, sealing.effect_name(rollback.environment, identity)) for identity, result in found]
            results = [ring.seal(plain(result), name) for result, name in named]
            await connection.execute(QUERIES.found, [identity for identity, _ in found], results)
        if absent:
            await connection.execute(QUERIES.absent, absent)
        await self._ask_again(connection, [each for each in seen if each[0].effect.id not in decided], chance)
        await connection.execute(
            QUERIES.note_look_ups,
            actor,
            [look_up.effect.id for look_up, _ in seen],
            [look_up.effect.judge_count + 1 for look_up, _ in seen],
            [type(sighting).__name__.lower() for _, sighting in seen],
            [None if isinstance(sighting, Found) else plain(sighting) for _, sighting in seen],
        )
        await self.again(connection, rollback, decided)

    async def _ask_again(self, connection: Connection, seen: Sequence[tuple[LookUp, Sighting]], chance: float) -> None:
        """Later, with back-off; after the last time a person decides. "Absent" counts only once the settle delay is over."""
        waits: list[tuple[UUID, float, int]] = []
        given_up: list[UUID] = []
        for look_up, sighting in seen:
            retry, count = look_up.rules.retry, look_up.effect.judge_count + 1
            if isinstance(sighting, Absent):
                waits.append((look_up.effect.id, look_up.settles_in_seconds, look_up.effect.judge_count))
            elif count >= retry.attempts_max:
                given_up.append(look_up.effect.id)
            else:
                delay = delay_seconds(
                    count, first_seconds=retry.first_seconds, factor=retry.factor, cap_seconds=retry.cap_seconds, chance=chance
                )
                waits.append((look_up.effect.id, delay, count))
        if waits:
            await connection.execute(QUERIES.ask_again, *(list(column) for column in zip(*waits, strict=True)))
        if given_up:
            await connection.execute(QUERIES.give_up, given_up, Reason.LOOK_UP_EXHAUSTED)

    async def _judge(self, connection: Connection, ids: Sequence[UUID]) -> list[Judged]:
        rows = await connection.fetch(QUERIES.by_id, list(ids)) if ids else []
        return [await self._judged(connection, effect_of(connection, row)) for row in rows]

    async def _take(self, connection: Connection, rollback: Rollback, effects: Sequence[Effect]) -> None:
        """Join these effects of the set, unless another rollback has ended with them, and write down what becomes of them."""
        taken = [effect for effect in effects if not _is_elsewhere(effect, rollback.id)]
        if taken:
            await _join(connection, [(rollback.id, effect) for effect in taken])
            await self._write(connection, rollback, [await self._judged(connection, effect) for effect in taken])

    async def _write(self, connection: Connection, rollback: Rollback, judged: Sequence[Judged]) -> None:
        """Write the verdicts down, and take what was completed after these effects in their saga instances (hazard 13)."""
        await self._dispose(connection, rollback, judged)
        succeeded = [each.effect.id for each in judged if each.effect.status == "succeeded" and each.effect.saga_instance]
        rows = await connection.fetch(QUERIES.extension, rollback.id, succeeded) if succeeded else []
        later = [effect for row in rows if not _is_elsewhere(effect := effect_of(connection, row), rollback.id)]
        if later:
            await _join(connection, [(rollback.id, effect) for effect in later])
            await self._dispose(connection, rollback, [await self._judged(connection, effect) for effect in later])

    async def _dispose(self, connection: Connection, rollback: Rollback, judged: Sequence[Judged]) -> None:
        ours = [each for each in judged if _may_change(each, rollback.id)]
        if ours:
            skipped_by = await connection.fetchval(QUERIES.canceller, rollback.id)
            await self._dispositions.write(connection, [(rollback.id, each) for each in ours], skipped_by=skipped_by)

    async def _judged(self, connection: Connection, effect: Effect) -> Judged:
        found = await self._catalogue.rules_of(connection, effect)
        if effect.continues:
            reference, rules = found or (None, None)
            verdict = Verdict(Fate.CONTINUES, in_seconds=CONTINUES_SECONDS)
            return Judged(effect=effect, verdict=verdict, reference=reference, rules=rules)
        if found is None:
            return Judged(effect=effect, verdict=judge(effect.status, None, settles_in_seconds=effect.lease_left_seconds))
        reference, rules = found
        if effect.decided_by is not None and effect.disposition == "waiting":
            rules = msgspec.structs.replace(rules, notice_approved=True)
        is_approved = effect.decided_by is not None and effect.reason == Reason.APPROVAL
        needs_approval = not is_approved and await self._catalogue.needs_approval(connection, effect, reference, rules)
        terms = terms_of(rules, needs_approval=needs_approval)
        verdict = judge(effect.status, terms, settles_in_seconds=effect.lease_left_seconds + rules.settle_seconds)
        return Judged(effect=effect, verdict=verdict, reference=reference, rules=rules)


async def _join(connection: Connection, effects: Sequence[tuple[UUID, Effect]]) -> None:
    """Name each effect in its rollback's set."""
    await connection.execute(
        QUERIES.join,
        [rollback_id for rollback_id, _ in effects],
        [effect.id for _, effect in effects],
        [effect.status in ("admitted", "in_doubt") for _, effect in effects],
    )


def _is_elsewhere(effect: Effect, rollback_id: UUID) -> bool:
    """Whether another rollback has ended with it: such an effect is in nobody else's set."""
    return effect.owner not in (None, rollback_id) and effect.disposition not in ("pending", "waiting")


def _may_change(judged: Judged, rollback_id: UUID) -> bool:
    """Whether the verdict says something new of an effect that is ours, or nobody's."""
    effect = judged.effect
    if effect.owner is None:
        return True
    if effect.owner != rollback_id or effect.compensation_id is not None:
        return False
    if effect.disposition == "never_happened":
        return judged.verdict.fate is not Fate.NEVER_HAPPENED
    return effect.disposition in ("pending", "waiting")

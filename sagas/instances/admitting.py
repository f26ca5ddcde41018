"""Admission of steps, under the locks that the turn holds: the fence's word first, then the effect and its key (P8, P9, P10).

A step that is tried again stays the same effect, under the same key, whatever epoch it is tried under: then it is of that
one. Where its key was closed, for it was given back under a kill, a generation of its own follows (hazard 4). A key that is
something else's is never acted under.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct

from runtime.clock import Entropy
from runtime.postgres import Connection
from sagas import store
from sagas.core import admission
from sagas.core.admission import START_WINDOW_MS, Fence, Sibling
from sagas.core.asks import Ask
from sagas.definitions import StepDefinition
from sagas.instances.facts import Known
from sagas.instances.rows import QUERIES, columns
from sagas.instances.turns import Hands
from sagas.store import FlagName, NewEffect, NextAttempt
from sagas.store_reports import arm


class Wish(Struct, frozen=True, kw_only=True):
    """A step that is to begin now, in these hands, with what it is given."""

    known: Known
    step: StepDefinition
    hands: Hands
    payload: dict[str, Any]
    payload_json: str
    payload_hash: bytes
    key: str
    fault: str | None = None
    """Why it cannot begin, whoever would act it."""


class Admitted(Struct, frozen=True, kw_only=True):
    """The permission to begin."""

    effect_id: UUID
    token: UUID
    epoch: int
    attempt: int


class Killed(Struct, frozen=True):
    """The fence does not let it in."""

    rollback_id: UUID | None = None


class InUse(Struct, frozen=True, kw_only=True):
    """Its key is another effect's."""

    effect_id: UUID | None = None


class Later(Struct, frozen=True):
    """Somebody else changed its effect in this moment."""


Admission = Admitted | Killed | InUse | Later


async def admit(
    connection: Connection, wishes: Sequence[Wish], fences: Mapping[FlagName, Fence], entropy: Entropy
) -> list[Admission]:
    """One answer per wish. Nothing is admitted before the transaction's COMMIT stands."""
    new: dict[int, NewEffect] = {}
    again: dict[int, NextAttempt] = {}
    answers: list[Admission] = [Killed()] * len(wishes)
    for index, wish in enumerate(wishes):
        ask = _ask(wish)
        fence = _fence(wish, fences.get((ask.environment, ask.flag)))
        verdict = None if fence is None else _verdict(wish, ask, fence, fences)
        if fence is None or verdict is None or verdict.is_dead:
            answers[index] = Killed(None if verdict is None else verdict.rollback_id)
            continue
        before = wish.known.by_step.get(wish.step.name)
        if before is None:
            new[index] = _new(ask, fence, verdict.is_off, 1, entropy)
        elif before["status"] == "failed" and before["tombstoned"]:
            new[index] = _new(ask, fence, verdict.is_off, before["generation"] + 1, entropy)
        elif before["tombstoned"]:
            continue
        else:
            again[index] = _again(ask, before, fence, entropy)
    won = await store.admit(connection, list(new.values()), START_WINDOW_MS, follows_reports=True) if new else set()
    if again:
        won |= await store.admit_again(connection, list(again.values()), START_WINDOW_MS, follows_reports=True)
    lost = [index for index, effect in new.items() if effect.id not in won]
    owners = await _owners(connection, [new[index].ask for index in lost]) if lost else {}
    for index, effect in new.items():
        if effect.id in won:
            attempt = 1 + _earlier(wishes[index])
            answers[index] = Admitted(effect_id=effect.id, token=effect.token, epoch=effect.epoch, attempt=attempt)
        else:
            answers[index] = InUse(effect_id=owners.get((effect.ask.environment, effect.ask.kind, effect.ask.key)))
    for index, one in again.items():
        if one.effect_id in won:
            attempt = wishes[index].known.facts.steps[wishes[index].step.name].attempt + 1
            answers[index] = Admitted(effect_id=one.effect_id, token=one.token, epoch=one.epoch, attempt=attempt)
        else:
            answers[index] = Later()
    await _join(connection, [(wish, answer) for wish, answer in zip(wishes, answers, strict=True) if wish.known.grant])
    return answers


async def _join(connection: Connection, granted: Sequence[tuple[Wish, Admission]]) -> None:
    """What is admitted under a grant is counted as continued, and joins the set of its rollback (P8)."""
    rows = [
        (wish.known.grant.rollback_id, answer.effect_id, wish.step.kind)
        for wish, answer in granted
        if wish.known.grant is not None and isinstance(answer, Admitted)
    ]
    if rows:
        await connection.execute(QUERIES["continue"], *columns(rows, 3))
        await arm(connection, [effect_id for _, effect_id, _ in rows])


def _fence(wish: Wish, fence: Fence | None) -> Fence | None:
    """The fence that judges the step: under a grant, as it was before the kill."""
    grant = wish.known.grant
    if fence is None or grant is None:
        return fence
    return msgspec.structs.replace(fence, closed=False, scopes=(), epoch=grant.closes_epoch)


def _earlier(wish: Wish) -> int:
    fact = wish.known.facts.steps.get(wish.step.name)
    return 0 if fact is None else fact.attempt


async def _owners(connection: Connection, asks: Sequence[Ask]) -> dict[tuple[str, str, str], UUID]:
    recorded = await store.keys(connection, {(ask.environment, ask.kind, ask.key) for ask in asks})
    return {name: one.effect_id for name, one in recorded.items()}


def _verdict(wish: Wish, ask: Ask, fence: Fence, fences: Mapping[FlagName, Fence]) -> admission.Verdict:
    siblings = [
        Sibling(flag=effect["flag"], epoch=effect["epoch"], attributes=effect["attributes"])
        for effect in wish.known.effects
        if not effect["is_off"] and effect["status"] != "failed"
    ]
    theirs = (
        {name[1]: one for name, one in fences.items() if name[0] == ask.environment} | {ask.flag: fence} if siblings else None
    )
    verdict = admission.judge(fence, ask, siblings, theirs)
    return admission.judge(fence, ask) if verdict.by_sibling and wish.step.independent else verdict


def _ask(wish: Wish) -> Ask:
    row, claim = wish.known.row, wish.hands.claim
    return Ask(
        environment=row["environment"],
        kind=wish.step.kind,
        key=wish.key,
        flag=row["flag"],
        variant=row["variant"],
        revision=(row["revision_generation"], row["revision"]),
        attributes=row["attributes"],
        attributes_json=row["attributes_json"],
        payload_json=wish.payload_json,
        payload_hash=wish.payload_hash,
        saga=row["saga"],
        saga_version=row["version"],
        saga_instance=row["id"],
        step=wish.step.name,
        kind_version=None,
        subject=row["subject"],
        lease_seconds=claim.lease_seconds,
        token=None,
        instance=f"worker:{claim.worker}",
    )


def _new(ask: Ask, fence: Fence, is_off: bool, generation: int, entropy: Entropy) -> NewEffect:
    return NewEffect(
        id=entropy.uuid7(), token=entropy.uuid7(), ask=ask, is_off=is_off, epoch=fence.epoch, generation=generation
    )


def _again(ask: Ask, before: Mapping[str, Any], fence: Fence, entropy: Entropy) -> NextAttempt:
    return NextAttempt(
        effect_id=before["id"],
        token=entropy.uuid7(),
        attempt=before["attempt"] + 1,
        epoch=fence.epoch,
        instance=ask.instance,
        lease_seconds=ask.lease_seconds,
        variant=ask.variant,
        revision=ask.revision,
    )

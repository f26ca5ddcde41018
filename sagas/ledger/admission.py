"""Admission in groups, under the fence (P8, P9, P10): look, lock, read again with a fresh snapshot, decide, write.

The decisions are the core's; what is here loads, asks it, writes down and answers. A group takes its flags' locks shared, in
ascending order and in a statement of its own, so that a kill that has committed is seen by whoever is granted them after it,
and a kill's drain barrier waits for whoever was granted them before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from uuid import UUID

from asyncpg import Connection
from msgspec import Struct
from rescind.wire import AdmitResult, effect_name

from runtime.clock import Entropy
from runtime.postgres import transaction_on
from runtime.telemetry import counter
from sagas import definitions, store
from sagas.core import admission
from sagas.core.admission import START_WINDOW_MS, Decision, Fence, Sibling, Standing
from sagas.core.asks import Ask
from sagas.core.keys import WRITES, Recorded, Verb
from sagas.definitions.store import Catalogue
from sagas.ledger.answers import admitted, refused, unknown_flag
from sagas.ledger.groups import DEFERRED, Deferred
from sagas.store import FlagName, KeyName, NewEffect, NextAttempt

FLAGS_MAX = 64
SUGGESTIONS_MAX = 1_000
FENCES_MAX = 50_000
HINTS_MAX = 100_000

admissions = counter("rescind.effect_admissions")

Answer = AdmitResult | Deferred


class Seen(Struct, frozen=True, kw_only=True):
    """What one read of the database showed for a group of asks."""

    fences: dict[FlagName, Fence]
    recorded: dict[KeyName, Recorded] = {}
    siblings: dict[KeyName, list[Sibling]] = {}
    rollbacks: dict[FlagName, list[Standing]] = {}


class Hint(Struct, frozen=True, kw_only=True):
    """What an earlier group learned about an ask that it had to leave: its key exists, and which locks it needs."""

    is_known: bool = False
    flags: frozenset[FlagName] = frozenset()


NO_HINT = Hint()


def key_of(ask: Ask) -> KeyName:
    """The key's name."""
    return ask.environment, ask.kind, ask.key


def _flag_of(ask: Ask) -> FlagName:
    return ask.environment, ask.flag


def _instance_of(ask: Ask) -> KeyName | None:
    return (ask.environment, ask.saga, ask.saga_instance) if ask.saga and ask.saga_instance else None


class Admission:
    """Decides and writes groups of asks on a connection.

    Fences are remembered for two things only: their lock keys, and to look without locks first where a flag was last seen
    closed. Nobody is let in by what is remembered.
    """

    def __init__(self, entropy: Entropy, catalogue: Catalogue) -> None:
        self._entropy = entropy
        self._catalogue = catalogue
        self._fences: dict[FlagName, Fence] = {}
        self._hints: dict[KeyName, Hint] = {}

    async def flush(self, connection: Connection, asks: Sequence[Ask]) -> list[Answer]:
        """One answer per ask, keys pairwise different. Nothing is answered as admitted before its COMMIT stands."""
        answers: dict[int, Answer] = {}
        await self._meet(connection, {_flag_of(ask) for ask in asks})
        suspects: list[int] = []
        for index, ask in enumerate(asks):
            fence = self._fences.get(_flag_of(ask))
            if fence is None or admission.judge(fence, ask).is_dead:
                suspects.append(index)
        if suspects:
            answers.update(await self._refuse(connection, asks, suspects))
        chosen, flags = self._within_limit(asks, [index for index in range(len(asks)) if index not in answers])
        if chosen:
            async with self.transaction(connection, [self._fences[flag].lock_key for flag in flags if flag in self._fences]):
                written = await self._write(connection, [asks[index] for index in chosen], flags)
            answers.update(zip(chosen, written, strict=True))
        _count(answers.values())
        return [answers.get(index, DEFERRED) for index in range(len(asks))]

    def transaction(self, connection: Connection, lock_keys: Iterable[int]) -> AbstractAsyncContextManager[None]:
        """A transaction that holds the flags' locks, shared, from its beginning.

        Explicitly READ COMMITTED: under another isolation the re-read would see what was before the lock (hazard 10).
        """
        return transaction_on(connection, store.locking(lock_keys))

    async def _meet(self, connection: Connection, flags: set[FlagName]) -> None:
        unmet = flags - self._fences.keys()
        if unmet:
            self._remember(await store.fences(connection, unmet))

    def _remember(self, fences: dict[FlagName, Fence]) -> None:
        if len(self._fences) > FENCES_MAX:
            self._fences.clear()
        self._fences.update(fences)

    async def _refuse(self, connection: Connection, asks: Sequence[Ask], suspects: Sequence[int]) -> dict[int, Answer]:
        """The unlocked look: answers whoever would not be let in, with all that is known of the key, at no cost to a kill."""
        asked = [asks[index] for index in suspects]
        recorded = await store.keys(connection, {key_of(ask) for ask in asked})
        seen = await self._see(connection, asked, recorded)
        answers: dict[int, Answer] = {}
        unknown: dict[FlagName, AdmitResult] = {}
        for index, ask in zip(suspects, asked, strict=True):
            name = _flag_of(ask)
            fence = seen.fences.get(name)
            if fence is None:
                answers[index] = unknown[name] = unknown.get(name) or await self._unknown(connection, ask)
                continue
            decision = await self._decide(connection, ask, fence, seen)
            if decision.verb not in WRITES:
                answers[index] = refused(decision, fence)
            elif decision.recorded is not None:
                self._hint(ask, Hint(is_known=True, flags=frozenset(_flags_of(ask, seen))))
        return answers

    async def _unknown(self, connection: Connection, ask: Ask) -> AdmitResult:
        return unknown_flag(ask, await store.flags_of(connection, ask.environment, SUGGESTIONS_MAX))

    async def _see(self, connection: Connection, asks: Sequence[Ask], recorded: dict[KeyName, Recorded]) -> Seen:
        """What else is known about these asks and records. The fences come last: they are the newest of all that is read."""
        instances = {instance for ask in asks if (instance := _instance_of(ask))}
        siblings = await store.siblings(connection, instances) if instances else {}
        flags = {_flag_of(ask) for ask in asks}
        flags |= {(name[0], one.flag) for name, ones in siblings.items() for one in ones}
        claimed = {(name[0], one.flag) for name, one in recorded.items() if not one.is_off}
        rollbacks = await store.rollbacks(connection, claimed) if claimed else {}
        fences = await store.fences(connection, flags | claimed)
        self._remember(fences)
        return Seen(fences=fences, recorded=recorded, siblings=siblings, rollbacks=rollbacks)

    async def _decide(self, connection: Connection, ask: Ask, fence: Fence, seen: Seen) -> Decision:
        instance = _instance_of(ask)
        siblings = seen.siblings.get(instance, ()) if instance else ()
        theirs = {name[1]: one for name, one in seen.fences.items() if name[0] == ask.environment} if siblings else None
        verdict = admission.judge(fence, ask, siblings, theirs)
        if verdict.by_sibling and await self._is_independent(connection, ask):
            verdict = admission.judge(fence, ask)
        recorded = seen.recorded.get(key_of(ask))
        if recorded is not None:
            recorded = admission.with_compensation(recorded, seen.rollbacks.get((ask.environment, recorded.flag), []))
        return admission.decide(ask, fence, verdict, recorded)

    async def _is_independent(self, connection: Connection, ask: Ask) -> bool:
        definition = await self._catalogue.saga(connection, ask.environment, ask.saga or "", ask.saga_version or "")
        step = definition.step(ask.step) if isinstance(definition, definitions.SagaDefinition) else None
        return step is not None and step.independent

    async def _write(self, connection: Connection, asks: Sequence[Ask], locked: frozenset[FlagName]) -> list[Answer]:
        """Under the locks: read, decide, write. A key that turns out to exist, or a flag not locked, is left for later."""
        known = {key_of(ask) for ask in asks if self._hints.pop(key_of(ask), NO_HINT).is_known} if self._hints else set()
        if known:
            await store.lock_keys(connection, known)
        seen = await self._see(connection, asks, await store.keys(connection, known) if known else {})
        answers: list[Answer] = [DEFERRED] * len(asks)
        new: dict[int, NewEffect] = {}
        again: dict[int, NextAttempt] = {}
        closing: list[UUID] = []
        unmet: list[int] = []
        for index, ask in enumerate(asks):
            needed = _flags_of(ask, seen)
            if not needed <= locked:
                self._hint(ask, Hint(is_known=key_of(ask) in known, flags=frozenset(needed)))
                continue
            fence = seen.fences[_flag_of(ask)]
            decision = await self._decide(connection, ask, fence, seen)
            match decision.verb:
                case Verb.ADMIT | Verb.NEXT:
                    new[index] = self._new(ask, fence, decision)
                    closing += _closed_by(decision)
                case Verb.AGAIN | Verb.RENEW:
                    again[index] = self._again(ask, decision)
                case Verb.KILLED if decision.recorded is None:
                    unmet.append(index)
                case _:
                    answers[index] = refused(decision, fence)
        if closing:
            await store.tombstone(connection, closing)
        won = await store.admit(connection, list(new.values()), START_WINDOW_MS) if new else set()
        if again:
            won |= await store.admit_again(connection, list(again.values()), START_WINDOW_MS)
        for index, effect in new.items():
            if effect.id in won:
                answers[index] = admitted(effect.id, effect.token, effect.epoch, 1)
        for index, attempt in again.items():
            if attempt.effect_id in won:
                answers[index] = admitted(attempt.effect_id, attempt.token, attempt.epoch, attempt.attempt)
        unmet += [index for index, effect in new.items() if effect.id not in won]
        if unmet:  # their keys may exist; no row is locked after rows were inserted, or two groups would wait for each other
            for index, answer in (await self._refuse(connection, asks, unmet)).items():
                answers[index] = answer
        return answers

    def _hint(self, ask: Ask, hint: Hint) -> None:
        if len(self._hints) > HINTS_MAX:
            self._hints.clear()
        self._hints[key_of(ask)] = hint

    def _within_limit(self, asks: Sequence[Ask], open_: Sequence[int]) -> tuple[list[int], frozenset[FlagName]]:
        """As many of the open asks as share at most `FLAGS_MAX` flags (hazard 10), and those flags."""
        chosen: list[int] = []
        flags: set[FlagName] = set()
        for index in open_:
            wanted = {_flag_of(asks[index])}
            if self._hints:
                wanted |= self._hints.get(key_of(asks[index]), NO_HINT).flags
            if wanted <= flags or len(flags | wanted) <= FLAGS_MAX or not chosen:
                flags |= wanted
                chosen.append(index)
        return chosen, frozenset(flags)

    def _new(self, ask: Ask, fence: Fence, decision: Decision) -> NewEffect:
        generation = 1 if decision.recorded is None else decision.recorded.generation + 1
        by_key = ask.by_key and generation == 1
        return NewEffect(
            id=effect_name(ask.environment, ask.kind, ask.key) if by_key else self._entropy.uuid7(),
            token=self._token(ask, decision.recorded),
            ask=ask,
            is_off=decision.verdict.is_off,
            epoch=fence.epoch,
            generation=generation,
        )

    def _again(self, ask: Ask, decision: Decision) -> NextAttempt:
        recorded = decision.recorded
        assert recorded is not None
        renews = decision.verb is Verb.RENEW
        return NextAttempt(
            effect_id=recorded.effect_id,
            token=recorded.token if renews else self._token(ask, recorded),
            attempt=recorded.attempt if renews else recorded.attempt + 1,
            epoch=recorded.epoch,
            instance=ask.instance,
            lease_seconds=ask.lease_seconds,
            variant=ask.variant,
            revision=ask.revision,
        )

    def _token(self, ask: Ask, recorded: Recorded | None) -> UUID:
        """The asker's own token, so that a repeat after a lost reply is known; never that of an attempt that is over."""
        if ask.token is not None and (recorded is None or ask.token != recorded.token):
            return ask.token
        return self._entropy.uuid7()


def _flags_of(ask: Ask, seen: Seen) -> set[FlagName]:
    """The flags whose locks an ask needs: its own, the stored row's, its saga instance's (hazard 3)."""
    flags = {_flag_of(ask)}
    recorded = seen.recorded.get(key_of(ask))
    if recorded is not None:
        flags.add((ask.environment, recorded.flag))
    instance = _instance_of(ask)
    if instance:
        flags |= {(ask.environment, sibling.flag) for sibling in seen.siblings.get(instance, ())}
    return flags


def _count(answers: Iterable[Answer]) -> None:
    """Once per group and outcome, not once per effect."""
    for outcome, count in Counter(answer.outcome for answer in answers if isinstance(answer, AdmitResult)).items():
        admissions.add(count, {"outcome": outcome})


def _closed_by(decision: Decision) -> list[UUID]:
    """The generation of the key that a next one leaves behind, if nothing has closed it yet."""
    recorded = decision.recorded
    return [] if recorded is None or recorded.tombstoned or recorded.undone else [recorded.effect_id]

"""The engine: every turn of every instance goes through one flush, in groups like every other write of the ledger (P8, P10).

A flush looks without locks for what it concerns, takes the flags' locks (hazards 3 and 10) and those of the lines in which
instances stand, then the instances' rows by uid, records what is reported, and takes the instances on, in one transaction.
Whatever is cut off leaves all of it or nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import nullcontext, suppress
from typing import Any
from uuid import UUID

import msgspec
from rescind.wire import InstanceStarted

from runtime.clock import Clock, Entropy
from runtime.errors import OutcomeUnknown, Unavailable
from runtime.postgres import Connection, Postgres, transaction_on
from sagas import lines, sealing, store
from sagas.breakers import ERROR_LENGTH_MAX, Breakers, Told
from sagas.core.effects import News
from sagas.core.reports import Report
from sagas.instances import facts, rows
from sagas.instances.advance import Advance
from sagas.instances.beginning import begin, no_version, place_of
from sagas.instances.facts import Known
from sagas.instances.laying import Laying, Ranges
from sagas.instances.plans import Plans
from sagas.instances.rows import QUERIES, Step, columns
from sagas.instances.sighting import sight
from sagas.instances.turns import Answer, Hands, Heard, Turn
from sagas.instances.words import Words
from sagas.instances.writes import Writes
from sagas.ledger.admission import FLAGS_MAX
from sagas.ledger.groups import DEFERRED, Deferred, Groups, Moved
from sagas.ledger.reports import Reports
from sagas.store import FlagName

WRITERS = 2
TURNS_MAX = 128
LOOK_SECONDS = 0.05
LOOKED_MAX = 4_096
FLAGS_KEPT_MAX = 50_000
OUTCOMES = (News.SUCCEEDED, News.FAILED, News.UNKNOWN)
COUNTED = ("recorded", "killed")
Version = tuple[str, str, str]
"""Environment, saga, version."""

Lock = Callable[[Connection], Awaitable[None]]
Seal = Callable[[Connection, Sequence[Heard]], Awaitable[None]]


class _Group:
    """The turns that go together in one transaction, and what they concern."""

    def __init__(self) -> None:
        self.turns: list[int] = []
        self.flags: dict[FlagName, int] = {}
        self.steps: dict[UUID, Step] = {}
        self.stripes: set[int] = set()
        self.seen: set[Any] = set()
        self.due: dict[UUID, set[str]] = {}
        self.must: set[UUID] = set()

    def joins(self, index: int, marks: set[Any], flags: dict[FlagName, int], stripes: set[int]) -> bool:
        """Whether a turn goes with the others: nothing of it is theirs as well, and the locks are not too many."""
        many = len(self.flags.keys() | flags.keys()) > FLAGS_MAX
        if self.turns and (many or not self.seen.isdisjoint(marks)):
            return False
        self.turns.append(index)
        self.seen |= marks
        self.flags.update(flags)
        self.stripes |= stripes
        return True


class Engine:
    """One per process. `on_news` is called after a commit: with whether something lies ready, and whether something ended."""

    def __init__(
        self,
        pg: Postgres,
        clock: Clock,
        entropy: Entropy,
        *,
        writers: int = WRITERS,
        on_news: Callable[[bool, bool], None],
        ranges: Ranges = lambda: (),
    ) -> None:
        """`ranges`: those that this process's coordinator leases."""
        self._pg = pg
        self._entropy = entropy
        self._writers_count = writers
        self._on_news = on_news
        self._clock = clock
        self._looked: dict[tuple[str, str], float] = {}
        self._lock_keys: dict[FlagName, int] = {}
        self._following: set[asyncio.Task[None]] = set()
        self.plans = Plans(clock)
        self.breakers = Breakers(clock, "act")
        self._reports = Reports()
        self._words = Words(self.plans)
        self._laying = Laying(clock, entropy, ranges)
        self._groups: Groups[Turn, Answer] = Groups("instances", self._open, self.flush, id, size_max=TURNS_MAX)

    async def start(self) -> None:
        """Begin to take turns."""
        self._groups.start(self._writers_count)

    async def stop(self) -> None:
        """Finish what is queued, within moments."""
        await self._groups.stop()
        await asyncio.gather(*self._following, return_exceptions=True)

    async def _open(self) -> Connection:
        connection = await self._pg.dedicated()
        await store.prefer_indexes(connection)
        return connection

    async def turn(self, turn: Turn) -> Answer:
        """Take one turn. Raises `Unavailable` (nothing was done) or `OutcomeUnknown`; every turn may be repeated."""
        [answer] = await self._groups.submit([turn])
        return answer

    async def flush(
        self, connection: Connection, turns: Sequence[Turn], *, lock: Lock | None = None, seal: Seal | None = None
    ) -> list[Answer | Deferred]:
        """One answer per turn. `lock`: what comes first in the transaction, of a coordinator its lease's fence; `seal`: what
        comes last in it, and is told what became of the words."""
        group = await self._look(connection, turns)
        answers: list[Answer | Deferred] = [DEFERRED] * len(turns)
        chosen = [turns[index] for index in group.turns]
        if not group.flags:
            for index in group.turns:
                answers[index] = _nothing(turns[index])
            return answers
        writes = Writes(self._laying)
        locking = [store.locking(set(group.flags.values())), lines.locking(group.stripes)]
        async with transaction_on(connection, "; ".join(filter(None, locking))):
            if lock is not None:
                await lock(connection)
            written = await self._write(connection, chosen, group, writes)
            if seal is not None:
                await seal(connection, [heard for answer in written for heard in answer.heard])
        for index, answer in zip(group.turns, written, strict=True):
            answer.laid = writes.laid
            answers[index] = answer
        await self.breakers.tell(lambda: nullcontext(connection), _told(chosen, group))
        if writes.rings or writes.ended:
            self._on_news(writes.rings, writes.ended)
        self.follow(writes.freed)
        return answers

    def follow(self, uids: Sequence[UUID]) -> None:
        """Take on those who lead their line now. Where this fails, a coordinator finds them by their rows."""
        if uids:
            following = asyncio.create_task(self._take_on(uids))
            self._following.add(following)
            following.add_done_callback(self._following.discard)

    async def _take_on(self, uids: Sequence[UUID]) -> None:
        with suppress(Unavailable, OutcomeUnknown):
            await self.turn(Turn(uids=list(uids)))

    async def _look(self, connection: Connection, turns: Sequence[Turn]) -> _Group:
        """Without locks: what the turns concern, and under which flags."""
        group = _Group()
        reported = [effect for turn in turns for effect in turn.effects()]
        group.steps = await rows.steps(connection, reported) if reported else {}
        due = [await self._due(connection, turn) for turn in turns]
        named = {uid for turn in turns for uid in turn.instances()} | {uid for one in due for uid in one}
        locks = await rows.locks(connection, named) if named else {}
        fences = await self._fences_of_starts(connection, turns)
        for index, turn in enumerate(turns):
            of_turn: dict[FlagName, int] = {}
            marks: set[Any] = set()
            stripes = await self._stripes_of_starts(connection, turn)
            for start in turn.starts:
                marks.add((start.environment, start.saga, start.id))
                of_turn.update(fences.get((start.environment, start.saga, start.version), {}))
            for effect in turn.effects():
                step = group.steps.get(effect)
                if step is not None:
                    marks.add(effect)
                    of_turn.update({flag: _key(step, flag) for flag in step.place.flags})
                    stripes |= step.stripes
            for uid in {*turn.instances(), *due[index]} & locks.keys():
                of_turn.update(locks[uid].flags)
                stripes |= locks[uid].stripes | await self._stripe_of_stopped(connection, locks[uid])
            marks |= {word.uid for word in turn.words}
            if group.joins(index, marks, of_turn, stripes):
                group.must |= turn.instances()
                for uid, steps in due[index].items():
                    group.due.setdefault(uid, set()).update(steps)
        group.must |= {step.uid for step in group.steps.values() if step.uid is not None}
        return group

    async def _due(self, connection: Connection, turn: Turn) -> dict[UUID, set[str]]:
        """What lies ready for the turn's hands. Who brings news of its own, and so work, is let look only now and then."""
        hands, found = turn.hands, dict[UUID, set[str]]()
        if hands is None:
            return found
        claim, now = hands.claim, self._clock.monotonic()
        place = (hands.environment, claim.saga)
        is_early = bool(turn.reports or turn.starts) and now - self._looked.get(place, -LOOK_SECONDS) < LOOK_SECONDS
        if claim.acts and claim.limit > 0 and not is_early:
            if len(self._looked) >= LOOKED_MAX:
                self._looked.clear()
            self._looked[place] = now
            for row in await connection.fetch(
                QUERIES.due,
                hands.environment,
                claim.saga,
                claim.versions,
                claim.acts,
                claim.worker,
                claim.instance,
                claim.limit,
            ):
                found.setdefault(row["uid"], set()).add(row["step"])
        return found

    async def _fences_of_starts(self, connection: Connection, turns: Sequence[Turn]) -> dict[Version, dict[FlagName, int]]:
        """The flag of each version that is to be begun, with its lock's key."""
        flags: dict[Version, FlagName] = {}
        for name in {(start.environment, start.saga, start.version) for turn in turns for start in turn.starts}:
            planned = await self.plans.get(connection, name)
            if planned is not None:
                flags[name] = (name[0], planned.definition.flag)
        unmet = set(flags.values()) - self._lock_keys.keys()
        if unmet:
            if len(self._lock_keys) >= FLAGS_KEPT_MAX:
                self._lock_keys.clear()
            self._lock_keys |= {flag: fence.lock_key for flag, fence in (await store.fences(connection, unmet)).items()}
        return {name: {flag: self._lock_keys[flag]} for name, flag in flags.items() if flag in self._lock_keys}

    async def _stripes_of_starts(self, connection: Connection, turn: Turn) -> set[int]:
        """Of the lines in which what is to begin will stand."""
        places = [await place_of(connection, self.plans, msgspec.structs.asdict(start)) for start in turn.starts]
        return {place.stripe for place in places if place is not None}

    async def _stripe_of_stopped(self, connection: Connection, locks: rows.Locks) -> set[int]:
        """Of the line in which one that a kill had stopped stands again once it goes on."""
        place = None if locks.stopped is None else await place_of(connection, self.plans, locks.stopped)
        return set() if place is None else {place.stripe}

    async def _write(self, connection: Connection, turns: Sequence[Turn], group: _Group, writes: Writes) -> list[Answer]:
        """Under the flags' locks: begin, lock, record, hear, and take on."""
        fences = await store.fences(connection, group.flags)
        answers = [Answer() for _ in turns]
        new = await begin(connection, turns, answers, fences=fences, plans=self.plans, entropy=self._entropy)
        locked = list(await connection.fetch(QUERIES.lock, sorted(group.must))) if group.must else []
        free = sorted(group.due.keys() - group.must)
        locked += await connection.fetch(QUERIES.lock_free, free) if free else []
        held = {row["uid"]: sealing.instance(connection.ring, row) for row in locked}
        await self._record(connection, turns, answers, group)
        await self._sight(connection, turns, answers, group)
        taken = await self._take(connection, group, held, turns, writes)
        silent = await self._abandon(connection, turns, held, taken)
        taken |= await self._words.hear(connection, turns, answers, held, writes)
        every = [_ready(row) for row in held.values()] + [_ready(row) for row in new.values()]
        knowns = await facts.load(connection, every, frozenset(new))
        if not all(_is_locked(known, group.flags) for known in knowns):
            raise Moved
        advance = Advance(
            connection,
            self.plans,
            self._entropy,
            fences,
            writes,
            self.breakers,
            taken=taken,
            silent=silent,
            stripes=group.stripes,
        )
        hands = [turn.hands for turn in turns if turn.hands is not None]
        await advance.go(knowns, _spoke(turns, group, new), hands)
        await writes.write(connection, hands)
        states = {known.row["uid"]: (advance.state(known), known.row["paused"]) for known in knowns}
        for turn, answer in zip(turns, answers, strict=True):
            answer.tasks = turn.hands.tasks if turn.hands is not None else []
            answer.heard = [
                msgspec.structs.replace(heard, state=states.get(word.uid, (heard.state, heard.paused))[0])
                for word, heard in zip(turn.words, answer.heard, strict=True)
            ]
        _tell_states(turns, answers, new, states)
        return answers

    async def _record(self, connection: Connection, turns: Sequence[Turn], answers: Sequence[Answer], group: _Group) -> None:
        """The reports, as the ledger records them: same fence, same rows, same arming."""
        places = {identity: step.place for identity, step in group.steps.items()}
        told: dict[UUID, Report] = {}
        for turn in turns:
            for report in turn.reports:
                step = group.steps.get(report.effect_id)
                may = step is not None and (turn.sagas is None or step.saga in turn.sagas)
                if step is not None and may and step.place.environment == report.environment:
                    told.setdefault(report.effect_id, report)
        recorded = await self._reports.record(connection, list(told.values()), places) if told else []
        outcomes = {
            identity: one.outcome for identity, one in zip(told, recorded, strict=True) if not isinstance(one, Deferred)
        }
        for turn, answer in zip(turns, answers, strict=True):
            answer.reported = [
                "recorded" if told.get(one.effect_id) is one and outcomes[one.effect_id] in COUNTED else "lost"
                for one in turn.reports
            ]

    async def _sight(self, connection: Connection, turns: Sequence[Turn], answers: Sequence[Answer], group: _Group) -> None:
        """What look-ups said, of the sagas that their workers may speak of."""
        told = [
            one
            for turn in turns
            for one in turn.sightings
            if (step := group.steps.get(one.effect_id)) is not None and (turn.sagas is None or step.saga in turn.sagas)
        ]
        counted = await sight(connection, told, group.steps, self.plans, self._entropy) if told else set()
        for turn, answer in zip(turns, answers, strict=True):
            answer.sighted = ["recorded" if one.effect_id in counted else "lost" for one in turn.sightings]

    async def _take(
        self, connection: Connection, group: _Group, held: dict[UUID, Any], turns: Sequence[Turn], writes: Writes
    ) -> set[tuple[UUID, str]]:
        """Take out of `ready` what is claimed, and end the waits whose time has come."""
        wanted = [(uid, step) for uid, steps in sorted(group.due.items()) if uid in held for step in sorted(steps)]
        taken = {
            (row["uid"], row["step"]) for row in (await connection.fetch(QUERIES.take, *columns(wanted, 2)) if wanted else ())
        }
        passed = sorted({one for turn in turns for one in turn.passed if one[0] in held})
        for row in await connection.fetch(QUERIES.end_waits, *columns(passed, 2)) if passed else ():
            instance = held[row["uid"]]
            planned = await self.plans.get(connection, (instance["environment"], instance["saga"], instance["version"]))
            wait = None if planned is None else planned.wait(row["name"])
            writes.say(row["uid"], "ended" if wait is not None and wait.what == "delay" else "deadline", row["name"])
        await writes.said(connection)
        return taken

    async def _abandon(
        self, connection: Connection, turns: Sequence[Turn], held: dict[UUID, Any], taken: set[tuple[UUID, str]]
    ) -> set[UUID]:
        """What a silent process has not come for is anybody's."""
        silent = sorted({uid for turn in turns for uid in turn.silent if uid in held})
        if not silent:
            return set()
        rows_ = await connection.fetch(QUERIES.abandon, silent)
        taken |= {(row["uid"], row["step"]) for row in rows_}
        return {row["uid"] for row in [*rows_, *await connection.fetch(QUERIES.unanswered, silent)]}


def _told(turns: Sequence[Turn], group: _Group) -> list[Told]:
    """What the breakers count of the reports. A failure that trying again does not help is its order's own: it says nothing."""
    told: list[Told] = []
    for report in (report for turn in turns for report in turn.reports):
        step = group.steps.get(report.effect_id)
        if step is not None and report.news in OUTCOMES and not _is_final(report):
            error = (report.error_json or "")[:ERROR_LENGTH_MAX]
            place = (step.place.environment, step.kind)
            told.append(Told(place=place, is_good=report.news is News.SUCCEEDED, error=error))
    return told


def _is_final(report: Report) -> bool:
    if report.news is not News.FAILED or report.error_json is None:
        return False
    error = rows.value(report.error_json)
    return isinstance(error, dict) and error.get("final") is True


def _ready(row: Any) -> dict[str, Any]:
    """A row as the advance reads it."""
    return {**row, "attributes_json": row["attributes_json"] if "attributes_json" in row else _json(row["attributes"])}


def _json(value: Any) -> str:
    return rows.text(value)


def _key(step: Step, flag: FlagName) -> int:
    return step.locks[flag]


def _nothing(turn: Turn) -> Answer:
    """What is answered where there is nothing that the turn concerns."""
    return Answer(
        started=[no_version(start) for start in turn.starts],
        reported=["lost" for _ in turn.reports],
        sighted=["lost" for _ in turn.sightings],
        heard=[Heard(changed=False, state="", paused=False) for _ in turn.words],
    )


def _is_locked(known: Known, flags: Iterable[FlagName]) -> bool:
    """Whether every flag under which something was done in the instance is locked: one may have come since the look."""
    held = set(flags)
    return all((known.row["environment"], effect["flag"]) in held for effect in known.effects)


def _spoke(turns: Sequence[Turn], group: _Group, new: dict[UUID, dict[str, Any]]) -> dict[UUID, list[Hands]]:
    """Whose hands are preferred for which instance: who reported of it, or began it."""
    spoke: dict[UUID, list[Hands]] = {}
    by_name = {(row["environment"], row["saga"], row["id"]): uid for uid, row in new.items()}
    for turn in turns:
        if turn.hands is None:
            continue
        uids = [step.uid for report in turn.reports if (step := group.steps.get(report.effect_id)) is not None]
        uids += [by_name.get((start.environment, start.saga, start.id)) for start in turn.starts]
        for uid in uids:
            if uid is not None:
                spoke.setdefault(uid, []).append(turn.hands)
    return spoke


def _tell_states(
    turns: Sequence[Turn], answers: Sequence[Answer], new: dict[UUID, dict[str, Any]], states: dict[UUID, tuple[str, bool]]
) -> None:
    """What was begun may stand elsewhere already."""
    by_name = {(row["environment"], row["saga"], row["id"]): states[uid][0] for uid, row in new.items() if uid in states}
    for turn, answer in zip(turns, answers, strict=True):
        answer.started = [
            InstanceStarted(outcome="started", state=by_name.get((start.environment, start.saga, start.id), one.state))
            if one.outcome == "started"
            else one
            for start, one in zip(turn.starts, answer.started, strict=True)
        ]

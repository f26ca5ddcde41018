"""Takes instances on: asks the core what comes next, and carries it out under the locks that the turn holds (P8, P14, P16).

What the core answers for the facts is what the rows say afterwards; asked again it answers the same. Steps go first to who
reported, then to whoever else of this turn can act them, and lie ready for the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec
from rescind.wire import Task

from runtime.clock import Entropy
from runtime.postgres import Connection
from sagas import lines
from sagas.breakers import Breakers
from sagas.core import keys
from sagas.core.admission import START_WINDOW_MS, Fence
from sagas.core.asks import PAYLOAD_BYTES_MAX
from sagas.core.breakers import Hold
from sagas.core.instances import Decision, Facts, State, Why, decide
from sagas.core.stops import Stop
from sagas.instances.admitting import Admitted, InUse, Killed, Later, Wish, admit
from sagas.instances.beginning import place_of
from sagas.instances.facts import Known
from sagas.instances.giving import Missing, given, key_of
from sagas.instances.pacing import Paces
from sagas.instances.plans import Planned, Plans
from sagas.instances.stopping import Stops
from sagas.instances.turns import Hands
from sagas.instances.writes import Writes
from sagas.lines import Place
from sagas.store import FlagName
from sagas.store_reports import arm

ENDED = ("done", "undone", "killed")
LEAVING = ("done", "undone")
"""Of a killed one its effects have to be decided first, which a coordinator sees."""
AGAIN_SECONDS = 0.05
IN_LINE = Why.IN_LINE.value


class Advance:
    """One flush's advance of its instances."""

    def __init__(
        self,
        connection: Connection,
        plans: Plans,
        entropy: Entropy,
        fences: Mapping[FlagName, Fence],
        writes: Writes,
        breakers: Breakers,
        *,
        taken: set[tuple[UUID, str]],
        silent: set[UUID],
        stripes: set[int],
    ) -> None:
        """`stripes`: of the lines whose locks are held."""
        self._connection = connection
        self._plans = plans
        self._entropy = entropy
        self._fences = fences
        self._writes = writes
        self._breakers = breakers
        self._taken = taken
        self._silent = silent
        self._stripes = stripes
        self._wishes: list[Wish] = []
        self._paces = Paces(connection)
        self._holds: dict[tuple[str, str], Hold] = {}
        self._states: dict[UUID, str] = {}
        self._kills = Stops(connection, fences, writes)
        self._stopped: dict[UUID, Stop] = {}
        self._lifted: list[Known] = []
        self._ended: list[UUID] = []

    async def go(self, knowns: Sequence[Known], hands: Mapping[UUID, Sequence[Hands]], all_hands: Sequence[Hands]) -> None:
        """Take all of them on. `hands` prefers, for each instance, who spoke of it."""
        open_: list[tuple[Known, Planned, Decision]] = []
        await self._kills.look(knowns)
        for known in await self._in_line_again([await self._after_kill(known) for known in knowns]):
            if known.row["laid"] or (known.row["state"] in ENDED and not known.is_lifted):
                self._rest(known)
                continue
            name = (known.row["environment"], known.row["saga"], known.row["version"])
            planned = await self._plans.get(self._connection, name)
            assert planned is not None, "definitions are never deleted"
            known = self._told(known)
            decision = decide(planned.plan, known.facts, chance=self._entropy.random())
            open_.append((known, planned, decision))
            for begin in decision.begin:
                self._wish(known, planned, begin.step, begin.in_seconds, [*hands.get(known.row["uid"], ()), *all_hands])
        refused, troubled, begun = await self._admit()
        for known, planned, decision in open_:
            self._settle(known, planned, decision, refused, troubled, begun)
        await self._kills.tell(self._lifted)
        if self._ended:  # what waited for them to end is undone
            await arm(self._connection, self._ended)

    def state(self, known: Known) -> str:
        """Where the instance stands after this turn."""
        stands: str = known.row["state"]
        return self._states.get(known.row["uid"], stands)

    async def _after_kill(self, known: Known) -> Known:
        """One that a kill had stopped goes on once nothing keeps it any more, else it is found again by the next lift."""
        if known.row["laid"] or known.row["state"] != "killed":
            return known
        stop = self._kills.keeps(known)
        if stop is not None:
            self._kills.note(known, stop)
            return known
        place = await place_of(self._connection, self._plans, known.row)
        is_held = place is None or place.stripe in self._stripes  # else a coordinator comes to it, with its line's lock
        return msgspec.structs.replace(known, is_lifted=is_held)

    async def _in_line_again(self, knowns: Sequence[Known]) -> list[Known]:
        """Lifted ones that had left their lines stand at the ends of them, in the order in which they were started."""
        entering: list[tuple[UUID, Place]] = []
        for known in sorted(knowns, key=lambda one: one.row["uid"]):
            if known.is_lifted and not known.has_line:
                place = await place_of(self._connection, self._plans, known.row)
                entering += [] if place is None else [(known.row["uid"], place)]
        leads = await lines.enter(self._connection, entering) if entering else {}
        return [_standing(known, leads[known.row["uid"]]) if known.row["uid"] in leads else known for known in knowns]

    def _told(self, known: Known) -> Known:
        """The facts with what the fence and the leases say. The process that ran one which a kill stopped was told so."""
        row, facts = known.row, known.facts
        found = self._kills.of(known)
        stop, grant = (found, None) if isinstance(found, Stop) else (None, found)
        if stop is not None:
            self._stopped[row["uid"]] = stop
        is_out = row["run_by"] is not None and any(
            fact.status == "admitted" and not fact.is_leased for fact in facts.steps.values()
        )
        is_gone = known.is_lifted and row["run_by"] is not None
        if is_out or is_gone or row["uid"] in self._silent:
            self._writes.say(row["uid"], "taken_over", detail={"from": row["run_by"]})
            row = {**row, "run_by": None, "taken_over": True}
            facts = msgspec.structs.replace(facts, taken_over=True)
        facts = msgspec.structs.replace(facts, killed=stop is not None)
        return msgspec.structs.replace(known, row=row, facts=facts, grant=grant)

    def _wish(self, known: Known, planned: Planned, step: str, in_seconds: float, hands: Sequence[Hands]) -> None:
        uid = known.row["uid"]
        if (uid, step) in self._taken:
            in_seconds = 0.0
        able = (one for one in hands if one.claim.continues or known.grant is None)
        taker = next((one for one in able if one.takes(known.row, step)), None) if in_seconds <= 0 else None
        if taker is None:
            self._writes.queue(known.row, step, in_seconds)
            return
        definition = planned.definition.step(step)
        assert definition is not None, "the plan has the definition's steps"
        try:
            payload = given(planned.definition, definition, known.row["input"], known.results, known.events)
            key = key_of(definition, known.row["input"], payload)
        except Missing as error:
            self._wishes.append(_unfit(known, definition, taker, str(error)))
            return
        text = keys.canonical(payload)
        if len(text) > PAYLOAD_BYTES_MAX:
            self._wishes.append(_unfit(known, definition, taker, f"its arguments are larger than {PAYLOAD_BYTES_MAX} bytes"))
            return
        taker.reserve()
        self._wishes.append(
            Wish(
                known=known,
                step=definition,
                hands=taker,
                payload=payload,
                payload_json=text.decode(),
                payload_hash=keys.payload_hash(text),
                key=key,
            )
        )

    async def _admit(self) -> tuple[dict[UUID, Stop], dict[UUID, tuple[str, str, Any]], set[UUID]]:
        """Who is refused by the fence, who has trouble with a step (step, reason, error), and of whom a step has begun."""
        refused: dict[UUID, Stop] = {}
        troubled: dict[UUID, tuple[str, str, Any]] = {}
        begun: set[UUID] = set()
        fit = [wish for wish in self._wishes if wish.fault is None]
        for wish in self._wishes:
            if wish.fault is not None:
                troubled[wish.known.row["uid"]] = (wish.step.name, "arguments", {"detail": wish.fault})
        fit = await self._paced(fit)
        answers = await admit(self._connection, fit, self._fences, self._entropy) if fit else []
        await self._paces.spend(fit, answers)
        tried = {_place(wish) for wish, answer in zip(fit, answers, strict=True) if isinstance(answer, Admitted)}
        await self._breakers.probe(self._connection, tried & self._holds.keys())
        for wish, answer in zip(fit, answers, strict=True):
            uid = wish.known.row["uid"]
            wish.hands.release()
            match answer:
                case Admitted():
                    wish.hands.tasks.append(_task(wish, answer))
                    begun.add(uid)
                case Killed(rollback_id=rollback_id):
                    refused[uid] = Stop(rollback_ids=() if rollback_id is None else (rollback_id,))
                case InUse(effect_id=owner):
                    troubled[uid] = (wish.step.name, "key_in_use", {"effect_id": owner and str(owner), "key": wish.key})
                case Later():
                    self._writes.queue(wish.known.row, wish.step.name, AGAIN_SECONDS)
        return refused, troubled, begun

    async def _paced(self, wishes: Sequence[Wish]) -> list[Wish]:
        """Those that may begin now; the others lie ready for later."""
        self._holds = await self._breakers.holds(self._connection, {_place(wish) for wish in wishes}) if wishes else {}
        await self._paces.hold(wishes)
        fit: list[Wish] = []
        for wish in wishes:
            hold = self._holds.get(_place(wish))
            in_seconds = hold.in_seconds if hold is not None and not hold.left else self._paces.defers(wish)
            if in_seconds is None:
                fit.append(wish)
                if hold is not None:
                    hold.left = 0
            else:
                wish.hands.release()
                self._writes.queue(wish.known.row, wish.step.name, in_seconds)
        return fit

    def _settle(
        self,
        known: Known,
        planned: Planned,
        decision: Decision,
        refused: Mapping[UUID, Stop],
        troubled: Mapping[UUID, tuple[str, str, Any]],
        begun: set[UUID],
    ) -> None:
        """Write down where it stands."""
        row, uid = known.row, known.row["uid"]
        if uid in refused:
            facts = msgspec.structs.replace(known.facts, killed=True)
            decision = decide(planned.plan, facts, chance=0.0)
        for name in decision.waits:
            wait = planned.wait(name)
            assert wait is not None, "the plan has it"
            self._writes.stand(uid, name, wait.seconds if wait.what == "delay" else wait.deadline_seconds)
        for name in decision.look_up:
            doubted = planned.definition.step(name)
            assert doubted is not None, "the plan has the definition's steps"
            self._writes.look_up(known.by_step[name]["id"], doubted.settle_seconds)
        reason: str | None = decision.reason
        turned_back, laid = row["turned_back"], False
        error: Any = None
        is_out = uid in begun or any(fact.status == "admitted" and fact.is_leased for fact in known.facts.steps.values())
        state = decision.state.value
        result: Any = None
        match decision.state:
            case State.RUNNING:
                reason = IN_LINE if reason == IN_LINE else None
                if uid in troubled:
                    step, reason, detail = troubled[uid]
                    state, error = "waiting", {"step": step, "reason": reason, "error": detail}
            case State.WAITING:
                error = _error(known, decision.cause, reason)
            case State.UNDOING:
                reason, error = self._why(known, planned, decision)
                turned_back, laid = True, decision.reason != "draining"
                if known.facts.in_line and not known.effects:
                    state, laid = "undone", False
            case State.DONE:
                result = known.results
            case State.KILLED:
                self._kills.note(known, refused.get(uid) or self._stopped[uid])
        if known.is_lifted and decision.state is not State.KILLED:
            self._lifted.append(known)
        if laid or state in ENDED:
            self._ended += self._kills.wait_for_end(known, is_killed=state == "killed")
        runs_alone = row["run_by"] is not None and state == "running"
        self._states[uid] = state
        if known.has_line and state in LEAVING:
            self._writes.leave(uid)
        self._writes.change(
            row,
            is_watched=known.is_watched,
            watch=laid or runs_alone or (is_out and state not in ENDED) or (known.has_line and state == "killed"),
            clear=(state != "running") and bool(known.facts.queued or known.facts.waits_standing),
            keep=_delays(known, planned) if state == "killed" else (),
            state=state,
            reason=reason,
            error=error,
            result=result,
            turned_back=turned_back,
            laid=laid,
            taken_over=row.get("taken_over", False),
        )

    def _why(self, known: Known, planned: Planned, decision: Decision) -> tuple[str | None, Any]:
        """Why it turned back: said once, and kept. While steps drain, what they may still say is left out."""
        row, facts = known.row, known.facts
        if row["turned_back"]:
            return row["reason"], row["error"]
        if decision.reason == "draining":
            still: Mapping[str, Any] = {
                name: fact for name, fact in facts.steps.items() if not (fact.status == "admitted" and fact.is_leased)
            }
            settled: Facts = msgspec.structs.replace(facts, steps=still)
            decision = decide(planned.plan, settled, chance=0.0)
        return decision.reason, _error(known, decision.cause, decision.reason)

    def _rest(self, known: Known) -> None:
        """Ended, or in the hands of its undoing: late news that asks for more undoing opens it again (P11)."""
        row = known.row
        if not row["laid"] and known.is_watched and not known.has_line:
            self._writes.unwatch(row["uid"])
        if not row["laid"] or row["state"] != "undone":
            return
        late = [
            effect for effect in known.effects if effect["disposition"] == "never_happened" and effect["status"] == "succeeded"
        ]
        if late:
            self._states[row["uid"]] = "undoing"
            self._writes.change(
                row,
                is_watched=known.is_watched,
                watch=True,
                clear=False,
                state="undoing",
                reason=row["reason"],
                error=row["error"],
                turned_back=True,
                laid=True,
            )


def _delays(known: Known, planned: Planned) -> tuple[str, ...]:
    """The delays that stand: time goes on for one that a kill stopped."""
    waits = (planned.wait(name) for name in known.facts.waits_standing)
    return tuple(wait.name for wait in waits if wait is not None and wait.what == "delay")


def _standing(known: Known, leads: bool) -> Known:
    """One that has entered its line in this turn."""
    facts = msgspec.structs.replace(known.facts, in_line=not leads)
    return msgspec.structs.replace(known, has_line=True, facts=facts)


def _place(wish: Wish) -> tuple[str, str]:
    return wish.known.row["environment"], wish.step.kind


def _unfit(known: Known, definition: Any, hands: Hands, fault: str) -> Wish:
    return Wish(known=known, step=definition, hands=hands, payload={}, payload_json="", payload_hash=b"", key="", fault=fault)


def _error(known: Known, cause: str | None, reason: str | None) -> dict[str, Any]:
    effect = known.by_step.get(cause) if cause is not None else None
    return {"step": cause, "reason": reason, "error": None if effect is None else effect["error"]}


def _task(wish: Wish, admitted: Admitted) -> Task:
    row = wish.known.row
    effect = {
        "id": str(admitted.effect_id),
        "kind": wish.step.kind,
        "key": wish.key,
        "flag": row["flag"],
        "variant": row["variant"],
        "epoch": admitted.epoch,
        "attributes": row["attributes"],
        "subject": row["subject"],
        "payload": wish.payload,
        "saga": row["saga"],
        "saga_instance": row["id"],
        "step": wish.step.name,
        "attempt": admitted.attempt,
    }
    return Task(
        id=str(admitted.effect_id),
        token=str(admitted.token),
        saga=row["saga"],
        version=row["version"],
        step=wish.step.name,
        attempt=admitted.attempt,
        action_key=str(admitted.effect_id),
        effects=[effect],
        lease_seconds=wish.hands.claim.lease_seconds,
        verb="act",
        instance=row["id"],
        start_within_ms=START_WINDOW_MS,
        timeout_seconds=wish.step.act.timeout_seconds,
        heartbeat_timeout_seconds=wish.step.act.heartbeat_timeout_seconds,
        traceparent=row["traceparent"],
        continued=wish.known.grant is not None,
    )

"""Checks over a recorded history, one for each promise; pure. Each yields what broke it, in sentences, else nothing."""

from __future__ import annotations

import itertools
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator

from load.chaos.history import Effect, Entry, History, Instance, Name, Write

ENDED = ("done", "undone", "killed", "waiting")
FINAL = ("compensated", "never_happened", "irreversible", "skipped", "waiting")
Check = Callable[[History], Iterator[str]]


class Looked:
    """A history by what the checks look it up by."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.instances: dict[Name, Instance] = {(one.saga, one.id): one for one in history.instances}
        self.effects: dict[str, Effect] = {one.id: one for one in history.effects}
        self.asked = {(one.saga, one.order) for one in history.effects if one.disposition == "waiting" and one.reason}
        self.acts: dict[str, list[Entry]] = defaultdict(list)
        self.undos: dict[str, list[Entry]] = defaultdict(list)
        for entry in history.entries:
            if entry.verb != "void":
                (self.acts if entry.verb == "act" else self.undos)[entry.effect_id].append(entry)

    def asked_at(self, verb: str, effect_id: str) -> int:
        """When the provider was first asked to do it, else when it did."""
        entries = (self.acts if verb == "act" else self.undos)[effect_id]
        return min((entry.asked or entry.number for entry in entries), default=sys.maxsize)

    def of_instances(self) -> dict[Name, list[Effect]]:
        """The effects of each instance."""
        found: dict[Name, list[Effect]] = defaultdict(list)
        for effect in self.history.effects:
            found[effect.saga, effect.order].append(effect)
        return found

    def waits(self, effect: Effect) -> bool:
        """Whether a person has been asked about it, by name."""
        instance = self.instances.get((effect.saga, effect.order))
        waiting = instance is not None and instance.state == "waiting" and bool(instance.reason)
        return waiting or (effect.disposition == "waiting" and bool(effect.reason)) or self.is_behind(effect)

    def is_behind(self, effect: Effect) -> bool:
        """Whether it is due once a person has decided about what was completed after it in its instance (P14)."""
        return effect.disposition == "pending" and (effect.saga, effect.order) in self.asked


def acted_once(history: History) -> Iterator[str]:
    """P9: no step acts twice, and each of a done instance acted once, under the key of its effect."""
    looked = Looked(history)
    by_step: dict[tuple[str, str, str], list[Entry]] = defaultdict(list)
    for entries in looked.acts.values():
        for entry in entries:
            by_step[entry.saga, entry.order, entry.step].append(entry)
    for step, entries in by_step.items():
        if len(entries) > 1:
            yield f"{step} acted {len(entries)} times: {[entry.number for entry in entries]}"
    for entry in history.entries:
        if entry.verb == "act" and entry.effect_id not in looked.effects:
            yield f"{entry} was done under a key that the ledger does not have"
    for name, instance in looked.instances.items():
        for terms in history.sagas[name[0]] if instance.state == "done" else ():
            if not by_step[*name, terms.name] and terms.name not in instance.skipped:
                yield f"{name} is done, and {terms.name} never acted"


def known_for_sure(history: History) -> Iterator[str]:
    """P10: what is recorded as succeeded was done; what is recorded as failed was not, or is undone."""
    looked = Looked(history)
    for effect in history.effects:
        acts, undos = len(looked.acts[effect.id]), len(looked.undos[effect.id])
        if effect.status == "succeeded" and not acts:
            yield f"{effect} succeeded, and the provider knows nothing of it"
        if effect.status == "failed" and acts > undos:
            yield f"{effect} failed for sure, and the provider did it"


def undone_once(history: History) -> Iterator[str]:
    """P13: a compensated effect is undone exactly once if it was done, one that never happened does not stand, none twice."""
    looked = Looked(history)
    for effect in history.effects:
        acts, undos = looked.acts[effect.id], looked.undos[effect.id]
        if len(undos) > 1:
            yield f"{effect} was undone {len(undos)} times"
        if any(undo.number < act.number for act in acts for undo in undos):
            yield f"{effect} was undone before it was done"
        stands = len(acts) - len(undos)
        if effect.disposition in ("compensated", "never_happened") and stands:
            yield f"{effect} is {effect.disposition}, and {stands:+d} of it stand"
        if effect.disposition in (None, "irreversible") and undos:
            yield f"{effect} was undone, and the ledger does not say so"


def money_adds_up(history: History) -> Iterator[str]:
    """P12: captured = kept + refunded + what waits for a person by name; every refund gives back what was captured."""
    looked = Looked(history)
    moves = {(saga, terms.name) for saga, steps in history.sagas.items() for terms in steps if terms.moves_money}
    sums = {"captured": 0, "kept": 0, "refunded": 0, "waiting": 0, "lost": 0}
    for identity, acts in looked.acts.items():
        for act in acts:
            if (act.saga, act.step) in moves:
                sums["captured"] += act.amount
                sums[_account(looked, identity)] += act.amount
    for undos in looked.undos.values():
        for undo in undos:
            acts = looked.acts[undo.effect_id]
            if not acts or undo.amount != acts[0].amount:
                yield f"{undo} gave back what was not captured"
    accounted = sums["kept"] + sums["refunded"] + sums["waiting"]
    if accounted != sums["captured"]:
        yield f"{sums['captured']} was captured, and {accounted} is accounted for: {sums}"


def _account(looked: Looked, identity: str) -> str:
    if looked.undos[identity]:
        return "refunded"
    effect = looked.effects.get(identity)
    if effect is None:
        return "lost"
    instance = looked.instances.get((effect.saga, effect.order))
    if effect.disposition is None and instance is not None and instance.state == "done":
        return "kept"
    return "waiting" if looked.waits(effect) or effect.disposition == "skipped" else "lost"


def fenced(history: History) -> Iterator[str]:
    """P8, P12: nothing of a killed epoch is begun once its flag is closed, and every effect that was is in the set."""
    begun = _begun(history)
    closings = [(rollback, closed) for rollback in history.rollbacks for closed in rollback.closed]
    for effect in history.effects:
        for rollback, closed in closings:
            if effect.is_off or effect.flag != closed.flag:
                continue
            if effect.epoch == closed.epoch + 1:
                yield f"{effect} was admitted by a fence that {closed} had closed, and that no lift had opened"
            if effect.epoch > closed.epoch:
                continue
            if any(at > closed.at for at in [effect.admitted, *begun[effect.id]]):
                yield f"{effect} was begun after {closed}"
            if effect.disposition is None and rollback.outcome is None:
                yield f"{effect} is of an epoch that {rollback} closed, and it is not in its set"


def _begun(history: History) -> dict[str, list[float]]:
    """When each attempt of each effect began."""
    begun: dict[str, list[float]] = defaultdict(list)
    seen: set[tuple[str, int]] = set()
    for write in history.attempts:
        if (write.row, write.fence) not in seen:
            seen.add((write.row, write.fence))
            begun[write.row].append(write.at)
    return begun


def in_order(history: History) -> Iterator[str]:
    """P14: a step is asked for after all before it acted; an undoing after all that was completed later is undone."""
    looked = Looked(history)
    for name, effects in looked.of_instances().items():
        yield from _forward(looked, name, effects)
        yield from _backward(looked, name, effects)


def _forward(looked: Looked, name: Name, effects: list[Effect]) -> Iterator[str]:
    terms = looked.history.sagas[name[0]]
    latest = {effect.step: effect for effect in sorted(effects, key=lambda effect: effect.admitted)}
    instance = looked.instances.get(name)
    skipped = instance.skipped if instance is not None else []
    for before, after in itertools.combinations([one for one in terms if one.name in latest], 2):
        if before.name in skipped or (before.group is not None and before.group == after.group):
            continue
        first, second = latest[before.name], latest[after.name]
        if first.completed is None or first.completed > second.admitted:
            yield f"{second} was admitted before {before.name} was completed"
        acts = [act for act in looked.acts[first.id] if act.number > looked.asked_at("act", second.id)]
        if acts:
            yield f"{name}: {after.name} was asked for before {before.name} acted"


def _backward(looked: Looked, name: Name, effects: list[Effect]) -> Iterator[str]:
    groups = {terms.name: terms.group for terms in looked.history.sagas[name[0]]}
    undone = [one for one in effects if one.disposition == "compensated" and looked.undos[one.id]]
    for earlier, later in itertools.permutations(undone, 2):
        are_neighbours = groups[earlier.step] is not None and groups[earlier.step] == groups[later.step]
        if not (_completed_before(earlier, later) if are_neighbours else earlier.admitted < later.admitted):
            continue
        if looked.asked_at("undo", earlier.id) < looked.undos[later.id][0].number:
            yield f"{name}: the undoing of {earlier.step} was begun before {later.step} was undone"


def _completed_before(one: Effect, other: Effect) -> bool:
    """Of two that ran beside each other; not where it came out only after they were to be undone: they stand by admission."""
    if one.was_open or other.was_open or one.completed is None or other.completed is None:
        return False
    return one.completed < other.completed


def one_writer(history: History) -> Iterator[str]:
    """P18, P9: the fence of a lease, and of an attempt, only rises, and each of its values has one holder for ever."""
    for writes in (history.leases, history.attempts):
        last: dict[str, Write] = {}
        holders: dict[tuple[str, int], str] = {}
        for write in writes:
            before = last.get(write.row)
            if before is not None and write.fence < before.fence:
                yield f"{write} after {before}"
            holder = holders.setdefault((write.row, write.fence), write.holder)
            if holder != write.holder:
                yield f"{write}, which was held by {holder}"
            last[write.row] = write


def nothing_lost(history: History) -> Iterator[str]:
    """P10: whatever was acknowledged is there after every crash."""
    looked = Looked(history)
    for started in history.started:
        if (started.saga, started.id) not in looked.instances:
            yield f"{started} is not in the ledger"
    compensations = {effect.compensation_id: effect for effect in history.effects if effect.compensation_id}
    begun = _begun(history)
    for reported in history.reported:
        effect = looked.effects.get(reported.id) if reported.verb == "act" else compensations.get(reported.id)
        if effect is None:
            yield f"{reported} is not in the ledger"
        elif reported.outcome != "succeeded":
            continue
        elif reported.verb == "act" and effect.status != "succeeded":
            yield f"{reported} was recorded, and the ledger says {effect.status}"
        elif reported.verb != "act" and effect.compensation != "final":
            yield f"{reported} was recorded, and the ledger says {effect.compensation}"
        elif (reported.verb == "act" and reported.at and any(at > reported.at for at in begun[effect.id])) or (
            reported.verb != "act" and reported.token and effect.compensation_token != reported.token
        ):
            yield f"{reported} was recorded, and it was begun again"
    for told in history.told:
        instance = looked.instances.get((told.saga, told.id))
        if told.state == "done" and (instance is None or instance.state != "done"):
            yield f"{told} was told, and in the end it is {instance}"


def ends(history: History) -> Iterator[str]:
    """Once the faults have healed: done, undone, killed with all of it decided, or waiting for a person with a reason."""
    looked = Looked(history)
    for instance in history.instances:
        if instance.state not in ENDED:
            yield f"{instance} has not ended"
        if instance.state == "waiting" and not instance.reason:
            yield f"{instance} waits and does not say why"
    for effect in history.effects:
        instance = looked.instances[effect.saga, effect.order]
        is_undone = instance.state in ("undone", "killed") and not effect.is_off
        goes_on = effect.reason == "continues" and instance.state == "waiting"
        is_decided = effect.disposition in FINAL or looked.is_behind(effect) or goes_on
        if not is_decided and (is_undone or effect.disposition is not None):
            yield f"{effect} of an instance that is {instance.state} is not decided"
        if effect.disposition == "waiting" and not effect.reason:
            yield f"{effect} waits and does not say why"
    for rollback in history.rollbacks:
        if rollback.state not in ("settled", "waiting"):
            yield f"{rollback} has not settled"
        if rollback.state == "waiting" and not looked.asked:
            yield f"{rollback} waits, and nobody is asked anything"
    for table, count in history.left.items():
        if count:
            yield f"{count} rows are left in {table}"


CHECKS: dict[str, Check] = {
    "every step acts once (P9)": acted_once,
    "what is recorded is so (P10)": known_for_sure,
    "undone exactly once (P13)": undone_once,
    "money adds up (P12)": money_adds_up,
    "fenced for good (P8, P12)": fenced,
    "order (P14)": in_order,
    "one writer per fence (P18)": one_writer,
    "nothing acknowledged is lost (P10)": nothing_lost,
    "everything ends": ends,
}


def violations(history: History) -> dict[str, list[str]]:
    """What broke each promise, by its name; promises that held have an empty list."""
    return {name: list(check(history)) for name, check in CHECKS.items()}

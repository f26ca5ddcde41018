"""What the simulated sagas reach: a provider whose ledger is the judge, and workers who ask it and report (P8, P9, P13).

The provider recognises keys for ever; a confirmation has none, and is begun at most once. A worker keeps what it was given,
acts within the permission's window or says that it did not start, and reports until it is answered. One that ends loses it all.
"""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
from msgspec import Struct
from rescind.wire import Task

from load.chaos.history import Entry, Terms
from runtime.clock import Clock
from sagas.core.admission import START_WINDOW_MS
from tests.sagas.instances.world import step
from tests.sagas.simulation.cutting import Fate, Process

LATER: Any = {"first_seconds": 60.0, "cap_seconds": 60.0, "attempts_max": 50}
"""Nothing that was put off comes due by itself while a run lasts: the scheduler says when time passes."""
UNDOING: Any = {"in_doubt": "assume_done", "retry": LATER}
STEPS: tuple[dict[str, Any], ...] = (
    step("reserve", act={"retry": LATER}, **UNDOING),
    step("capture", act={"retry": LATER}, **UNDOING),
    step("confirm", act={"retry": LATER, "guarantee": "at_most_once"}, **UNDOING),
)
KEYLESS = "confirm"
TERMS = [Terms(name=each["name"], moves_money=each["name"] == "capture") for each in STEPS]
AMOUNT = 500


class Hand(Clock):
    """A clock that stands still but where somebody sleeps, or the scheduler moves it."""

    def __init__(self) -> None:
        self.at = 1_000.0

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds
        await super().sleep(0)


class Provider:
    """`entries`: its own ledger, with the moments at which it was asked for first."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._moments = itertools.count(1)
        self._asked: dict[tuple[str, str], int] = {}

    def ask(self, task: Task) -> bool:
        """Do it, unless it is known. Returns whether it stands; false where its key was closed by an undoing before it."""
        effect, verb = task.effects[0], "act" if task.verb == "act" else "undo"
        self._asked.setdefault((verb, effect["id"]), next(self._moments))
        known = {entry.verb for entry in self.entries if entry.effect_id == effect["id"]}
        if verb == "act" and known & {"undo", "void"}:
            return False
        if verb not in known or (verb, task.step) == ("act", KEYLESS):
            self._write(task, "void" if (verb, "act" in known) == ("undo", False) else verb)
        return True

    def _write(self, task: Task, verb: str) -> None:
        effect = task.effects[0]
        values = {
            "number": next(self._moments),
            "asked": self._asked["act" if verb == "act" else "undo", effect["id"]],
            "verb": verb,
            "effect_id": effect["id"],
            "saga": task.saga,
            "order": str(effect["saga_instance"]),
            "step": task.step,
            "amount": AMOUNT if task.step == "capture" else 0,
        }
        self.entries.append(msgspec.convert(values, Entry))


class Held(Struct, kw_only=True):
    """A task in a worker's hands. `outcome`: how it ended, once it has."""

    task: Task
    since: float
    outcome: str | None = None
    is_final: bool = False
    """it failed, and trying again will not help"""


class Worker(Process):
    """One worker. Its life ends with its hands empty."""

    def __init__(self, name: str, fate: Fate, provider: Provider, clock: Hand) -> None:
        super().__init__(name, fate)
        self.hands: list[Held] = []
        self._provider = provider
        self._clock = clock

    def take(self, tasks: list[Task]) -> None:
        """Hold what was handed out."""
        self.hands += [Held(task=task, since=self._clock.at) for task in tasks]

    def act(self, held: Held, doubts: bool, declines: bool = False) -> None:
        """Carry it out, and end where fate says so. `doubts`: it is done, and the worker does not hear of it; `declines`: the
        provider says no to a step."""
        if held.task.verb == "act" and (self._clock.at - held.since) * 1000 >= START_WINDOW_MS:
            held.outcome = "not_started"
            return
        if declines and held.task.verb == "act":
            held.outcome, held.is_final = "failed", True
            return
        met = self.fate.write(self.name)
        stands = met != "before" and self._provider.ask(held.task)
        if met is not None:
            self.end()
        elif doubts:
            held.outcome = "unknown"
        else:
            held.outcome = "succeeded" if stands else "failed"

    def end(self) -> None:
        """Another one takes its place, and knows of nothing."""
        self.hands = []

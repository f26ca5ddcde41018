"""The checks find what is planted in a history that is sound, each its own promise."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from load.chaos.checks import CHECKS, violations
from load.chaos.history import (
    Closed,
    Effect,
    Entry,
    History,
    Instance,
    Reported,
    Rollback,
    Started,
    Terms,
    Told,
    Write,
)

STEPS = ("reserve", "capture", "ship")
AMOUNT = 500


def entry(number: int, verb: str, name: str, step: str, effect: str = "") -> Entry:
    values = {
        "number": number,
        "verb": verb,
        "effect_id": effect or f"{name}/{step}",
        "saga": "order",
        "order": name,
        "step": step,
    }
    return msgspec.convert({**values, "amount": AMOUNT if step == "capture" else 0}, Entry)


def effect(name: str, step: str, **fields: Any) -> Effect:
    at = STEPS.index(step)
    values = {"id": f"{name}/{step}", "saga": "order", "order": name, "step": step, "status": "succeeded"}
    return Effect(**{**values, "admitted": at + 0.1, "completed": at + 0.9, **fields})


def undone(name: str, step: str, **fields: Any) -> Effect:
    values = {"disposition": "compensated", "compensation_id": f"c/{name}/{step}", "compensation": "final"}
    return effect(name, step, **{**values, **fields})


SOUND = History(
    sagas={"order": [Terms(name=step, moves_money=step == "capture") for step in STEPS]},
    instances=[
        Instance(saga="order", id="kept", state="done"),
        Instance(saga="order", id="back", state="undone"),
        Instance(saga="order", id="asked", state="waiting", reason="in_doubt"),
    ],
    effects=[
        *(effect("kept", step) for step in STEPS),
        undone("back", "reserve"),
        undone("back", "capture"),
        effect("back", "ship", status="failed", completed=None, disposition="never_happened"),
        effect("asked", "reserve"),
        effect("asked", "capture", status="in_doubt", completed=None),
    ],
    entries=[
        *(entry(number, "act", "kept", step) for number, step in enumerate(STEPS, 1)),
        entry(4, "act", "back", "reserve"),
        entry(5, "act", "back", "capture"),
        entry(6, "undo", "back", "capture"),
        entry(7, "undo", "back", "reserve"),
        entry(8, "act", "asked", "reserve"),
        entry(9, "act", "asked", "capture"),
    ],
    leases=[Write(row="3", fence=1, holder="a"), Write(row="3", fence=1, holder="a"), Write(row="3", fence=2, holder="b")],
    attempts=[Write(row="kept/ship", fence=1, holder="t1"), Write(row="kept/ship", fence=2, holder="t2")],
    started=[Started(saga="order", id="kept")],
    reported=[
        Reported(id="kept/ship", verb="act", outcome="succeeded"),
        Reported(id="c/back/capture", verb="undo", outcome="succeeded"),
        Reported(id="asked/capture", verb="act", outcome="unknown"),
    ],
    told=[Told(saga="order", id="kept", state="done")],
    rollbacks=[Rollback(id="r", state="settled")],
    left={"ready": 0},
)


def with_effect(identity: str, **fields: Any) -> list[Effect]:
    """The effects, one of them changed."""
    return [msgspec.structs.replace(one, **fields) if one.id == identity else one for one in SOUND.effects]


def without(*numbers: int) -> list[Entry]:
    return [one for one in SOUND.entries if one.number not in numbers]


def with_state(name: str, state: str, reason: str | None = None) -> list[Instance]:
    return [msgspec.structs.replace(one, state=state, reason=reason) if one.id == name else one for one in SOUND.instances]


ONCE, SURE, UNDONE, MONEY, FENCE, ORDER, WRITER, LOST, ENDS = CHECKS
CLOSED = Rollback(id="r", state="settled", closed=[Closed(flag="f", epoch=1, at=5.0)])
PLANTED: dict[str, tuple[str, dict[str, Any]]] = {
    "a step acts twice": (ONCE, {"entries": [*SOUND.entries, entry(10, "act", "kept", "ship")]}),
    "a step acts twice under two keys": (ONCE, {"entries": [*SOUND.entries, entry(10, "act", "kept", "ship", "other")]}),
    "a done instance left a step out": (ONCE, {"entries": without(3)}),
    "a success that never was": (SURE, {"entries": without(9, 8)}),
    "a failure that was done": (SURE, {"entries": [*SOUND.entries, entry(10, "act", "back", "ship")]}),
    "undone twice": (UNDONE, {"entries": [*SOUND.entries, entry(10, "undo", "back", "capture")]}),
    "compensated and not undone": (UNDONE, {"entries": without(7)}),
    "undone before it was done": (
        UNDONE,
        {"entries": [*without(4, 7), entry(3, "undo", "back", "reserve"), entry(10, "act", "back", "reserve")]},
    ),
    "undone and not on record": (UNDONE, {"entries": [*SOUND.entries, entry(10, "undo", "kept", "ship")]}),
    "never happened, and stands": (
        UNDONE,
        {"effects": with_effect("back/capture", disposition="never_happened"), "entries": without(6)},
    ),
    "money that nobody has": (MONEY, {"entries": without(6)}),
    "money under a key that nobody knows": (MONEY, {"entries": [*SOUND.entries, entry(10, "act", "new", "capture")]}),
    "money that waits for nobody": (MONEY, {"instances": with_state("asked", "undone")}),
    "a refund of something else": (
        MONEY,
        {"entries": [*without(6), msgspec.structs.replace(entry(6, "undo", "back", "capture"), amount=1)]},
    ),
    "a step before the one before it": (ORDER, {"effects": with_effect("kept/ship", admitted=1.5)}),
    "undone in the order of doing": (
        ORDER,
        {"entries": [*without(6, 7), entry(6, "undo", "back", "reserve"), entry(7, "undo", "back", "capture")]},
    ),
    "undone in order, and begun beside each other": (
        ORDER,
        {
            "entries": [
                *without(6, 7),
                entry(6, "undo", "back", "capture"),
                msgspec.structs.replace(entry(7, "undo", "back", "reserve"), asked=5),
            ]
        },
    ),
    "steps beside each other, undone in the order of completion": (
        ORDER,
        {
            "sagas": {
                "order": [
                    msgspec.structs.replace(one, group="g" if one.name != "ship" else None) for one in SOUND.sagas["order"]
                ]
            },
            "effects": with_effect("back/reserve", completed=9.0),
        },
    ),
    "a step that was begun beside the one before it": (
        ORDER,
        {"entries": [*without(2), msgspec.structs.replace(entry(4, "act", "kept", "capture"), asked=0)]},
    ),
    "an effect that was admitted after the kill": (
        FENCE,
        {"rollbacks": [CLOSED], "effects": with_effect("back/capture", flag="f", epoch=1, admitted=5.5)},
    ),
    "an effect that was admitted before the lift": (
        FENCE,
        {"rollbacks": [CLOSED], "effects": with_effect("back/capture", flag="f", epoch=2)},
    ),
    "an attempt that was begun after the kill": (
        FENCE,
        {
            "rollbacks": [CLOSED],
            "effects": with_effect("back/capture", flag="f", epoch=1),
            "attempts": [Write(row="back/capture", fence=2, holder="t", at=5.5)],
        },
    ),
    "an effect that the set lacks": (
        FENCE,
        {"rollbacks": [CLOSED], "effects": with_effect("kept/ship", flag="f", epoch=1)},
    ),
    "a rollback that waits for nobody": (ENDS, {"rollbacks": [Rollback(id="r", state="waiting")]}),
    "a lease that went back": (WRITER, {"leases": [*SOUND.leases, Write(row="3", fence=1, holder="a")]}),
    "two holders of one lease": (WRITER, {"leases": [*SOUND.leases, Write(row="3", fence=2, holder="c")]}),
    "two tokens of one attempt": (WRITER, {"attempts": [*SOUND.attempts, Write(row="kept/ship", fence=2, holder="t3")]}),
    "a start that was forgotten": (LOST, {"started": [Started(saga="order", id="gone")]}),
    "a report that was forgotten": (LOST, {"reported": [Reported(id="gone", verb="act", outcome="failed")]}),
    "a success that was taken back": (LOST, {"effects": with_effect("kept/ship", status="in_doubt")}),
    "an undoing that was taken back": (LOST, {"effects": with_effect("back/capture", compensation="due")}),
    "a success that was begun again": (
        LOST,
        {
            "reported": [Reported(id="kept/ship", verb="act", outcome="succeeded", at=3.0)],
            "attempts": [Write(row="kept/ship", fence=2, holder="t2", at=3.5)],
        },
    ),
    "an undoing that was begun again": (
        LOST,
        {
            "reported": [Reported(id="c/back/capture", verb="undo", outcome="succeeded", token="t1")],
            "effects": with_effect("back/capture", compensation_token="t2"),
        },
    ),
    "an end that was none": (LOST, {"told": [Told(saga="order", id="back", state="done")]}),
    "an instance that never ends": (ENDS, {"instances": with_state("kept", "running")}),
    "one that waits without a reason": (ENDS, {"instances": with_state("kept", "waiting")}),
    "an effect that nobody decides": (ENDS, {"effects": with_effect("back/reserve", disposition="pending")}),
    "an effect that was left out": (ENDS, {"effects": with_effect("back/reserve", disposition=None)}),
    "a rollback that never settles": (ENDS, {"rollbacks": [Rollback(id="r", state="compensating")]}),
    "work that nobody takes": (ENDS, {"left": {"ready": 1}}),
}


def test_a_sound_history_breaks_nothing() -> None:
    assert violations(SOUND) == {name: [] for name in CHECKS}


@pytest.mark.parametrize("planted", PLANTED)
def test_what_is_planted_is_found(planted: str) -> None:
    promise, changed = PLANTED[planted]
    assert violations(msgspec.structs.replace(SOUND, **changed))[promise]


def test_what_is_behind_a_question_waits_with_it() -> None:  # P14
    asked = {"back/reserve": {"disposition": "pending"}, "back/capture": {"disposition": "waiting", "reason": "in_doubt"}}
    effects = [msgspec.structs.replace(one, **asked.get(one.id, {})) for one in SOUND.effects]
    history = msgspec.structs.replace(SOUND, effects=effects, entries=without(6, 7), reported=[])
    assert violations(history) == {name: [] for name in CHECKS}


def test_a_history_can_be_saved_and_judged_again() -> None:
    assert msgspec.json.decode(msgspec.json.encode(SOUND), type=History) == SOUND

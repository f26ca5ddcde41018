"""Prerequisites as plain flagd: "serve only where that flag serves X" becomes the first rules of the flag's targeting (P4, P7).

Derived whenever an environment is loaded and never stored: what a prerequisite serves now, its kills included, stands in the
definitions of all that depend on it from the very revision that changed it. Who fails one gets the flag's off variant. A
prerequisite that is disabled serves nothing, so nobody passes it; one that is missing or cannot be repeated counts the same.
Where nobody passes, the rule is a constant, its name, so that an explanation can tell which flag is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct
from rescind import wire
from rescind.evaluation.limits import DEPTH_MAX, FLAG_NODES_MAX, FLAG_SIZE_MAX
from rescind.evaluation.measure import measure

from flagd.core.overlay import effective
from flagd.core.plain import plain_definition
from flagd.core.repeat import Repeat, Unrepeatable
from flagd.core.ruleform import NAME_LENGTH_MAX

CHAIN_MAX: Final = 4
"""Links of a chain of prerequisites."""
NODES_MAX: Final = FLAG_NODES_MAX // 2
"""JSON values of a definition with its prerequisites: kills laid over those still have room."""


class Written(Struct, frozen=True, kw_only=True):
    """A flag as it was written, with what stands over it."""

    flag: wire.Flag
    epoch: int = 1
    kills: Sequence[wire.Kill] = ()


class Derivation:
    """The flags of one environment at one revision, each as it is evaluated."""

    def __init__(self, flags: Mapping[str, Written], evaluators: Mapping[str, Any], generation: str) -> None:
        """`flags` has those that are asked for, and all that they depend on."""
        self._flags = flags
        self._evaluators = evaluators
        self._generation = generation
        self._made: dict[str, wire.SnapshotFlag] = {}
        self._conditions: dict[tuple[str, str], Any] = {}
        self._chain: list[str] = []

    def flag(self, key: str) -> wire.SnapshotFlag:
        """The flag as it is evaluated: prerequisites in its definition, kills over it."""
        made = self._made.get(key)
        if made is None:
            written = self._flags[key]
            steps = self._steps(written.flag)
            made = effective(written.flag, written.epoch, written.kills, behind(written.flag, steps), laid=len(steps))
            self._made[key] = made
        return made

    def serves(self, key: str, variant: str) -> Any:
        """A rule that is true where the flag serves the variant, for any other flag's targeting. Raises `Unrepeatable`."""
        if (key, variant) not in self._conditions:
            self._conditions[key, variant] = self._serves(key, variant)
        return self._conditions[key, variant]

    def _serves(self, key: str, variant: str) -> Any:
        if key not in self._flags:
            raise Unrepeatable("it does not exist")
        if key in self._chain or len(self._chain) > CHAIN_MAX:
            raise Unrepeatable("it depends on itself, or on too long a chain")
        definition = plain_definition(self.flag(key))
        if definition.get("state") != "ENABLED":
            return False
        excess = measure(definition, DEPTH_MAX, NODES_MAX, FLAG_SIZE_MAX).excess
        if excess is not None:
            raise Unrepeatable(f"it is too large: {excess[1]}")
        repeat = Repeat(key, self._evaluators, self._generation)
        return repeat.decides(definition.get("targeting") or None, variant, definition.get("defaultVariant"))

    def _steps(self, flag: wire.Flag) -> list[Any]:
        if not flag.prerequisites or flag.definition.get("state") != "ENABLED":
            return []
        self._chain.append(flag.key)
        try:
            return steps_of(flag, [(one, self._or_nobody(one)) for one in flag.prerequisites])
        finally:
            self._chain.pop()

    def _or_nobody(self, prerequisite: wire.Prerequisite) -> Any:
        try:
            return self.serves(prerequisite.flag, prerequisite.variant)
        except Unrepeatable:
            return False


def steps_of(flag: wire.Flag, conditions: Sequence[tuple[wire.Prerequisite, Any]]) -> list[Any]:
    """What prerequisites lay before the flag's own rules, each with the rule that is true where it holds: tests and values."""
    shut = next((prerequisite for prerequisite, condition in conditions if condition is False), None)
    if shut is not None:
        return [_name(shut), flag.off_variant]
    steps: list[Any] = []
    for prerequisite, condition in conditions:
        if condition is not True:
            steps += [{"and": [_name(prerequisite), {"!": [condition]}]}, flag.off_variant]
    return steps


def behind(flag: wire.Flag, steps: Sequence[Any]) -> dict[str, Any]:
    """The flag's definition behind these steps. Whatever was written can be told from them: see `as_written`."""
    if not steps:
        return flag.definition
    match flag.definition.get("targeting"):
        case {"if": [_, _, *_] as own, **others} if not others:
            return {**flag.definition, "targeting": {"if": [*steps, *own]}}
        case targeting:
            return {**flag.definition, "targeting": {"if": [*steps, *([targeting] if targeting else [])]}}


def as_written(flag: wire.Flag, definition: dict[str, Any]) -> dict[str, Any]:
    """A definition from a document without the steps that the flag's own prerequisites lay in it: an export, coming back."""
    match definition.get("targeting"):
        case {"if": [*steps], **others} if not others:
            count = 2 * _laid_in(flag, steps)
        case _:
            return definition
    if not count:
        return definition
    bare = {name: value for name, value in definition.items() if name != "targeting"}
    if len(steps) > count:
        return {**bare, "targeting": steps[count] if len(steps) == count + 1 else {"if": steps[count:]}}
    held = flag.definition.get("targeting", True)
    return bare if held else {**bare, "targeting": held}


def _laid_in(flag: wire.Flag, steps: Sequence[Any]) -> int:
    """How many of the flag's prerequisites, in their order, have a rule at the beginning of these."""
    count = 0
    for name in map(_name, flag.prerequisites):
        match steps[2 * count : 2 * count + 2]:
            case [str(test) | {"and": [str(test), {"!": [_]}]}, flag.off_variant] if test == name:
                count += 1
    return count


def _name(prerequisite: wire.Prerequisite) -> str:
    """The rule's name, which stands in it as a constant that is true (docs/decisions/0008)."""
    name = f"needs {prerequisite.flag} to serve {prerequisite.variant}"
    return name if len(name) <= NAME_LENGTH_MAX else name[: NAME_LENGTH_MAX - 1] + "…"

"""Which flags depend on which, judged whole: everything that is wrong with prerequisites after a change, at once.

A change may break a flag that it does not name: the fault then points at what the change writes, and names the flag.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rescind import wire
from rescind.evaluation import check
from rescind.evaluation.limits import DEPTH_MAX, FLAG_SIZE_MAX
from rescind.evaluation.measure import measure

from flagd.core import documents
from flagd.core.prerequisites import CHAIN_MAX, NODES_MAX, Derivation, Written
from flagd.core.repeat import Unrepeatable

DEPENDENTS_MAX: Final = 200
"""Flags that depend on one, through others too: so many definitions a kill of it changes."""


def faults(
    flags: Mapping[str, wire.Flag],
    changed: Mapping[str, str],
    evaluators: Mapping[str, Any],
    generation: str,
    elsewhere: str = "",
) -> list[wire.Fault]:
    """What is wrong with the prerequisites of `flags`, which are as they are after the change, with all that they depend on.

    `changed` says where the change wrote which flag (its archived ones too), `elsewhere` where it wrote what flags share.
    Codes: `unknown_flag`, `unknown_variant`, `cycle`, `too_deep`, `unrepeatable`, `too_large`, `too_many`, and `in_use` where a
    flag that the change does not name needs what it takes away.
    """
    judge = _Judge(flags, changed, evaluators, generation, elsewhere)
    found = [fault for flag in flags.values() if flag.prerequisites for fault in judge.flag(flag)]
    return list(dict.fromkeys([*found, *judge.crowded()]))


def beneath(flags: Mapping[str, wire.Flag], key: str) -> list[str]:
    """Every flag that this one depends on, through others too, the nearest first; itself among them where it is a circle."""
    found: dict[str, None] = {}
    level = [key]
    while level:
        level = [one for above in level for one in needs(flags, above) if one not in found]
        found.update(dict.fromkeys(level))
    return list(found)


def needs(flags: Mapping[str, wire.Flag], key: str) -> list[str]:
    """The flags that it names as its prerequisites."""
    return [one.flag for one in flags[key].prerequisites] if key in flags else []


def circle_of(flags: Mapping[str, wire.Flag], key: str) -> list[str] | None:
    """A way from the flag back to itself, or None."""
    came: dict[str, str] = {}
    level = [key]
    while level:
        following = []
        for above in level:
            for one in needs(flags, above):
                if one == key:
                    way = [key, above]
                    while way[-1] != key:
                        way.append(came[way[-1]])
                    return way[::-1] if above != key else [key, key]
                if one not in came:
                    came[one] = above
                    following.append(one)
        level = following
    return None


def depth_of(flags: Mapping[str, wire.Flag], key: str) -> int:
    """Links of the longest chain beneath a flag, `CHAIN_MAX + 1` for all that are longer."""
    level, depth = {key}, 0
    while depth <= CHAIN_MAX:
        level = {one for above in level for one in needs(flags, above)}
        if not level:
            break
        depth += 1
    return depth


class _Judge:
    def __init__(
        self,
        flags: Mapping[str, wire.Flag],
        changed: Mapping[str, str],
        evaluators: Mapping[str, Any],
        generation: str,
        elsewhere: str,
    ) -> None:
        self._flags = flags
        self._changed = changed
        self._evaluators = evaluators
        self._elsewhere = elsewhere
        self._derivation = Derivation({key: Written(flag=flag) for key, flag in flags.items()}, evaluators, generation)

    def flag(self, flag: wire.Flag) -> list[wire.Fault]:
        """The faults of one flag's prerequisites."""
        circle = circle_of(self._flags, flag.key)
        if circle is None and depth_of(self._flags, flag.key) > CHAIN_MAX:
            detail = f"prerequisites of prerequisites are at most {CHAIN_MAX} deep"
            return [self._fault(flag, flag.prerequisites[0].flag, "too_deep", detail)]
        others = [one for one in flag.prerequisites if circle is None or one.flag != circle[1]]
        wrong = [fault for one in others for fault in self._prerequisite(flag, one)]
        if circle is not None:
            wrong.append(self._fault(flag, circle[1], "cycle", f"prerequisites run in a circle: {' → '.join(circle)}"))
        return wrong or self._size(flag)

    def _prerequisite(self, flag: wire.Flag, needed: wire.Prerequisite) -> list[wire.Fault]:
        held = self._flags.get(needed.flag)
        asks = f"flag `{flag.key}` is served only where `{needed.flag}` serves `{needed.variant}`"
        if held is None:
            return [self._gone(flag, needed, "unknown_flag", "/flag", f"there is no flag `{needed.flag}`", asks)]
        variants = held.definition.get("variants", {})
        if needed.variant not in variants:
            names = ", ".join(f"`{name}`" for name in list(variants)[:20])
            detail = f"`{needed.flag}` has no variant `{needed.variant}`: it has {names}"
            return [self._gone(flag, needed, "unknown_variant", "/variant", detail, asks)]
        try:
            self._derivation.serves(needed.flag, needed.variant)
        except Unrepeatable as error:
            return [self._fault(flag, needed.flag, "unrepeatable", f"{asks}, but that cannot be written as a rule: {error}")]
        return []

    def _size(self, flag: wire.Flag) -> list[wire.Fault]:
        definition = self._derivation.flag(flag.key).definition
        needed = flag.prerequisites[0].flag
        excess = measure(definition, DEPTH_MAX, NODES_MAX, FLAG_SIZE_MAX).excess
        wrong = (
            [excess[1]] if excess is not None else [fault.detail for fault in check(definition, evaluators=self._evaluators)]
        )
        detail = f"flag `{flag.key}` with its prerequisites: "
        return [self._fault(flag, needed, "too_large", detail + wrong[0])] if wrong else []

    def crowded(self) -> list[wire.Fault]:
        """Where too many depend on one flag."""
        dependents: dict[str, set[str]] = {}
        for key, flag in self._flags.items():
            for one in beneath(self._flags, key) if flag.prerequisites else ():
                dependents.setdefault(one, set()).add(key)
        detail = f"at most {DEPENDENTS_MAX} flags depend on one, through others too"
        return [
            wire.Fault(
                pointer=f"{self._changed[new]}/prerequisites", code="too_many", detail=f"{detail}: on `{key}` more would"
            )
            for key, keys in dependents.items()
            if len(keys) > DEPENDENTS_MAX
            for new in sorted(keys & self._changed.keys())
        ]

    def _gone(self, flag: wire.Flag, needed: wire.Prerequisite, code: str, field: str, detail: str, asks: str) -> wire.Fault:
        """What a prerequisite names is not there: a fault of the flag, or of the change that takes it away."""
        if flag.key in self._changed:
            fault = self._fault(flag, needed.flag, code, detail)
            return wire.Fault(pointer=fault.pointer + field, code=code, detail=detail)
        at = self._changed.get(needed.flag, self._elsewhere)
        if needed.flag in self._flags:
            at += "/definition/variants" + documents.pointer(needed.variant)
        return wire.Fault(pointer=at, code="in_use", detail=asks)

    def _fault(self, flag: wire.Flag, needed: str, code: str, detail: str) -> wire.Fault:
        return wire.Fault(pointer=self._place(flag, needed), code=code, detail=detail)

    def _place(self, flag: wire.Flag, needed: str) -> str:
        """Where the change wrote what is wrong: the flag's prerequisite, or else the nearest flag that it depends on."""
        if flag.key in self._changed:
            index = next(index for index, one in enumerate(flag.prerequisites) if one.flag == needed)
            return f"{self._changed[flag.key]}/prerequisites/{index}"
        written = [one for one in beneath(self._flags, flag.key) if one in self._changed]
        return self._changed[written[0]] if written else self._elsewhere

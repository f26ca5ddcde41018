"""What a change turns on: the flags that may serve something else than their off variant where before they did not. Pure.

Judged by what is evaluated: segments in, prerequisites laid, kills over all of it. So an edit of the flag, of a segment, of a
prerequisite, of the bucketing, and a lift are one question. Turning off and narrowing turn nothing on; what cannot be told to
be narrower does (`serving`). Under a kill of everyone nothing is on: the lift is asked then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct
from rescind import wire

from flagd.core import segments, serving
from flagd.core.changes import same
from flagd.core.plain import plain_definition
from flagd.core.prerequisites import Derivation, Written

UNDECLARED = "undeclared"
"""The code of the faults."""


class Setting(Struct, frozen=True, kw_only=True):
    """Flags as they were written, and all that decides what they serve."""

    flags: Mapping[str, wire.Flag]
    kills: Mapping[str, Sequence[wire.Kill]]
    evaluators: Mapping[str, Any]
    bucketing: str

    def derivation(self) -> Derivation:
        """The flags as they are evaluated."""
        written = {key: Written(flag=flag, kills=self.kills.get(key, ())) for key, flag in self.flags.items()}
        return Derivation(written, self.evaluators, self.bucketing)


class Turned(Struct, frozen=True, kw_only=True):
    """A flag that is turned on, and the services whose instances have to support it."""

    key: str
    services: Sequence[str]


class Lack(Struct, frozen=True, kw_only=True):
    """What keeps a flag from being turned on: an instance that has not declared it; without an instance, a service that has no
    live one; without a service, that the flag names none. `number`: of all that its flag lacks."""

    flag: str
    service: str | None = None
    instance: str | None = None
    service_version: str = ""
    number: int = 1

    def told(self) -> dict[str, str | None]:
        """As the audit log has it."""
        return {"service": self.service, "instance": self.instance, "service_version": self.service_version}


def requires(key: str, before: Mapping[str, wire.Flag], after: Mapping[str, wire.Flag]) -> bool:
    """Whether the flag requires declarations, before a change or after it: none drops the requirement and turns on at once."""
    return any(flags[key].requires_declaration for flags in (before, after) if key in flags)


def turned_on(before: Setting, after: Setting) -> list[Turned]:
    """The flags of a change that require declarations and are turned on by it. `flags` of both have all that they depend on."""
    concerned = [key for key in after.flags if requires(key, before.flags, after.flags)]
    if not concerned:
        return []
    judge = _Judge(before, after)
    return [
        Turned(key=key, services=after.flags[key].services or (before.flags[key].services if key in before.flags else ()))
        for key in sorted(concerned)
        if judge.is_turned_on(key)
    ]


def faults(lacks: Sequence[Lack], places: Mapping[str, str]) -> list[wire.Fault]:
    """One for each, and one for those of a flag that are not named. `places` says where a change wrote a flag."""
    found: list[wire.Fault] = []
    for key in dict.fromkeys(one.flag for one in lacks):
        named, at = [one for one in lacks if one.flag == key], places.get(key, "")
        found += [wire.Fault(pointer=at, code=UNDECLARED, detail=_detail(one)) for one in named]
        if (unnamed := named[0].number - len(named)) > 0:
            detail = f"flag `{key}`: {unnamed} more have not declared it"
            found.append(wire.Fault(pointer=at, code=UNDECLARED, detail=detail))
    return found


def _detail(lack: Lack) -> str:
    if lack.service is None:
        return f"flag `{lack.flag}` requires declarations, and names no services whose instances could give them"
    if lack.instance is None:
        return f"flag `{lack.flag}`: service `{lack.service}` has no live instance that could have declared it"
    version = f", version {lack.service_version}," if lack.service_version else ""
    return f"flag `{lack.flag}`: instance `{lack.instance}` of service `{lack.service}`{version} has not declared it"


class _Judge:
    def __init__(self, before: Setting, after: Setting) -> None:
        self._before, self._after = before, after
        self._old, self._new = before.derivation(), after.derivation()
        self._moved = _moved(before.evaluators, after.evaluators)
        self._is_rehashed = before.bucketing != after.bucketing

    def is_turned_on(self, key: str) -> bool:
        now = plain_definition(self._new.flag(key))
        held = self._before.flags.get(key)
        then = {} if held is None else plain_definition(self._old.flag(key))
        off = self._after.flags[key].off_variant if held is None else held.off_variant
        return not serving.is_narrower(now, then, off, self._after.evaluators, self._is_steady)

    def _is_steady(self, rule: Any) -> bool:
        return not segments.references(rule) & self._moved and not (self._is_rehashed and _splits(rule, self._after.evaluators))


def _moved(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    return {name for name in {*before, *after} if not same(before.get(name), after.get(name))}


def _splits(rule: Any, evaluators: Mapping[str, Any]) -> bool:
    """Whether anything in it hashes, its segments included."""
    shared = [evaluators.get(name) for name in segments.references(rule)]
    waiting = [rule, *shared]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if "fractional" in one:
                return True
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
    return False

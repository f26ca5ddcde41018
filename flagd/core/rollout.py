"""Stepwise rollouts: one step is the flag's own targeting with another split for whoever no rule has taken.

The rules before it stay. Subjects are split by the flag's key and the targeting key as one text, in every generation of
bucketing, so that other flags can depend on this one (docs/decisions/0010); whoever has no targeting key keeps the rest. Who
has the variant at one step has it at the next: the variant's share stands first and only grows.

    >>> step({"state": "ENABLED", "variants": {"on": 1, "off": 0}, "defaultVariant": "off"}, "on", 100)["targeting"]
    {'if': ['on']}
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Final

from rescind import wire
from rescind.evaluation.values import text

from flagd.core.repeat import FLAG_KEY, TARGETING_KEY

STEPS_MAX: Final = 50
EVERY_SECONDS_MIN: Final = 1.0
EVERY_SECONDS_MAX: Final = 90 * 86400.0
BY: Final = {"cat": [{"var": FLAG_KEY}, TARGETING_KEY]}
NO_KEY: Final = {"===": [TARGETING_KEY, None]}

_WHOLE: Final = 100
_FINE: Final = 100_000


class NotRollable(Exception):  # noqa: N818 - it is an answer
    """This flag cannot be rolled out so; `code` and `pointer` say what is in the way."""

    def __init__(self, code: str, pointer: str, detail: str) -> None:
        super().__init__(detail)
        self.fault = wire.Fault(pointer=pointer, code=code, detail=detail)


def read_steps(steps: object, every_seconds: object) -> tuple[list[float], float, list[wire.Fault]]:
    """The percentages, rising to at most 100, and the seconds between them; with everything that is wrong with them."""
    faults: list[wire.Fault] = []
    if not _are_steps(steps):
        detail = f"`steps` are rising percentages, above 0 and at most 100, of at most 3 decimals, {STEPS_MAX} at most"
        faults.append(wire.Fault(pointer="/steps", code="wrong_type", detail=detail))
    is_number = isinstance(every_seconds, int | float) and not isinstance(every_seconds, bool)
    if not is_number or not EVERY_SECONDS_MIN <= every_seconds <= EVERY_SECONDS_MAX:  # type: ignore[operator]
        detail = f"`every_seconds` is a number from {EVERY_SECONDS_MIN:g} to {EVERY_SECONDS_MAX:g}"
        faults.append(wire.Fault(pointer="/every_seconds", code="wrong_type", detail=detail))
    return ([], 0.0, faults) if faults else (list(steps), float(every_seconds), [])  # type: ignore[call-overload,arg-type]


def rest_of(definition: dict[str, Any], variant: str) -> str:
    """The variant that everyone keeps whom neither a rule nor the rollout takes. Raises `NotRollable`."""
    variants = definition.get("variants", {})
    if variant not in variants:
        names = ", ".join(f"`{name}`" for name in list(variants)[:20])
        raise NotRollable("unknown_variant", "/variant", f"there is no variant `{variant:.255}`: the flag has {names}")
    if definition.get("state") != "ENABLED":
        raise NotRollable("disabled", "", "the flag is disabled: whoever evaluates it gets the caller's default")
    _, last = _parts(definition.get("targeting"))
    split = _split_of(last, variant)
    rest = split[1] if split else _constant(last, definition.get("defaultVariant"))
    if rest == variant:
        raise NotRollable("nothing_to_do", "/variant", f"everyone whom no rule takes has `{variant}` already")
    return rest


def step(definition: dict[str, Any], variant: str, percent: float) -> dict[str, Any]:
    """The definition with `percent` of those whom no rule takes on `variant`. Raises `NotRollable`."""
    rest = rest_of(definition, variant)
    before, last = _parts(definition.get("targeting"))
    if before[-2:] == [NO_KEY, rest]:
        before = before[:-2]
    if percent == _WHOLE:
        return {**definition, "targeting": {"if": [*before, variant]}}
    total = _WHOLE if float(percent).is_integer() else _FINE
    share = round(percent * total / _WHOLE)
    found = _split_of(last, variant)
    by = [BY] if found is None else found[0]
    split = {"fractional": [*by, [variant, share], [rest, total - share]]}
    if not by:
        return {**definition, "targeting": {"if": [*before, split]} if before else split}
    return {**definition, "targeting": {"if": [*before, NO_KEY, rest, split]}}


def _are_steps(steps: object) -> bool:
    if not isinstance(steps, list) or not 0 < len(steps) <= STEPS_MAX:
        return False
    if not all(isinstance(one, int | float) and not isinstance(one, bool) and 0 < one <= _WHOLE for one in steps):
        return False
    is_fine = all(round(one * 1000) / 1000 == one for one in steps)
    return is_fine and all(one < other for one, other in itertools.pairwise(steps))


def _parts(targeting: Any) -> tuple[list[Any], Any]:
    """The rules, test and result in turn, and what everyone else gets."""
    match targeting:
        case None | {} if not targeting:
            return [], None
        case {"if": [*steps]} if len(targeting) == 1:
            return (steps[:-1], steps[-1]) if len(steps) % 2 else (steps, None)
        case {"fractional": _} if len(targeting) == 1:
            return [], targeting
    raise _unsuitable("its targeting is no list of rules")


def _constant(last: Any, default: str | None) -> str:
    if isinstance(last, str | int | float):
        return text(last)
    if last is not None:
        raise _unsuitable("whoever no rule takes is split in another way")
    if default is None:
        raise _unsuitable("whoever no rule takes gets the caller's default")
    return default


def _split_of(last: Any, variant: str) -> tuple[list[Any], str] | None:
    """What a split between this variant and one other goes by, and the other one; None for anything else."""
    match last:
        case {"fractional": [*shares]} if len(last) == 1:
            by: Sequence[Any] = [] if not shares or isinstance(shares[0], list) else shares[:1]
            match shares[len(by) :]:
                case [[str(first), int()], [str(second), int()]] if first == variant != second:
                    return list(by), second
    return None


def _unsuitable(why: str) -> NotRollable:
    return NotRollable("not_rollable", "", f"a rollout changes what everyone gets whom no rule takes, but {why}")

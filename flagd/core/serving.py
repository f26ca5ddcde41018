"""Which variants a definition may serve, and whether another serves less. Pure, and careful: the doubtful counts as more.

Reading follows the evaluator: `if` decides by its results, `fractional` by its shares, a segment by its rule, a constant names
a variant, and null stands for the default variant. Whatever else is computed may name any of them. A disabled flag serves none:
its callers' defaults are their own.

    >>> flag = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off"}
    >>> reach({**flag, "targeting": {"if": [{"==": [{"var": "plan"}, "pro"]}, "on"]}}, {}) == {"on", "off"}
    True
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from rescind.evaluation.frame import arguments_of, is_constant, is_rule
from rescind.evaluation.values import text, truthy

from flagd.core.changes import same

Definition = Mapping[str, Any]
Evaluators = Mapping[str, Any]
Steady = Callable[[Any], bool]
"""Whether a rule has the same value for everyone, before a change and after it."""

_NESTED_MAX: Final = 256
"""Results within results; beyond, any variant may be served."""


def reach(definition: Definition, evaluators: Evaluators) -> frozenset[str]:
    """The variants that it may serve to someone."""
    if definition.get("state") != "ENABLED":
        return frozenset()
    variants = frozenset(definition.get("variants", {}))
    return _Reach(variants, definition.get("defaultVariant"), evaluators).of(definition.get("targeting") or None) & variants


def is_narrower(after: Definition, before: Definition, off: str, evaluators: Evaluators, steady: Steady) -> bool:
    """Whether whoever is served something else than `off` after a change is served the very same before it.

    Seen are: nothing but `off`; the same rules; the same rules with further ones before them, or results in them, that are
    `off`; and a smaller share in a split of one variant and `off`. Of all else the answer is False.
    """
    served = reach(after, evaluators) - {off}
    if not served:
        return True
    if before.get("state") != "ENABLED":
        return False
    values, old = after.get("variants", {}), before.get("variants", {})
    if not all(name in old and same(values[name], old[name]) for name in served):
        return False
    return _Narrower(after, before, off, evaluators, steady).is_so()


class _Reach:
    def __init__(self, variants: frozenset[str], default: str | None, evaluators: Evaluators) -> None:
        self._any = variants
        self._default = frozenset() if default is None else frozenset({default})
        self._evaluators = evaluators

    def of(self, rule: Any, depth: int = 0) -> frozenset[str]:
        if rule is None:
            return self._default
        if not is_rule(rule):
            return frozenset({text(rule)}) if isinstance(rule, str | int | float) else frozenset()
        if depth > _NESTED_MAX:
            return self._any
        ((operator, arguments),) = rule.items()
        match operator:
            case "if" | "?:":
                tests, results = chain_of(arguments)
                served = [self.of(one, depth + 1) for one in reachable(tests, results)]
            case "fractional":
                shares = [item for item in arguments_of(arguments) if isinstance(item, list) and item]
                served = [self._default, *(self.of(share[0], depth + 1) for share in shares if share[1:] != [0])]
            case "$ref" if isinstance(arguments, str):
                served = [self.of(self._evaluators.get(arguments), depth + 1)]
            case _:
                return self._any
        return frozenset().union(*served)


class _Narrower:
    def __init__(self, after: Definition, before: Definition, off: str, evaluators: Evaluators, steady: Steady) -> None:
        self._after, self._before, self._off, self._steady = after, before, off, steady
        default = after.get("defaultVariant")
        self._reach = _Reach(frozenset(after.get("variants", {})), default, evaluators)
        self._is_same_default = default == before.get("defaultVariant")

    def is_so(self) -> bool:
        return self._rule(self._after.get("targeting") or None, self._before.get("targeting") or None, 0)

    def _rule(self, after: Any, before: Any, depth: int) -> bool:
        if self._reach.of(after) <= {self._off}:
            return True
        if depth > _NESTED_MAX:
            return False
        if _name(after, self._after) is not None:
            return _name(after, self._after) == _name(before, self._before)
        if same(after, before) and self._is_same_default and self._steady(after):
            return True
        match after, before:
            case {"if": now, **others}, _ if not others:
                return self._chain(now, before, depth)
            case {"fractional": now}, {"fractional": then}:
                return self._steady(after) and self._is_smaller(arguments_of(now), arguments_of(then))
        return False

    def _chain(self, now: Any, before: Any, depth: int) -> bool:
        """Rule by rule; those that only give `off` may have been laid before and between the others."""
        tests, results = chain_of(now)
        old_tests, old_results = chain_of(before["if"] if isinstance(before, dict) and "if" in before else [before])
        at = 0
        for test, result in zip(tests, results[:-1], strict=True):
            if at < len(old_tests) and same(test, old_tests[at]) and self._steady(test):
                if not self._rule(result, old_results[at], depth + 1):
                    return False
                at += 1
            elif not self._reach.of(result) <= {self._off}:
                return False
        rest = old_results[-1] if at == len(old_tests) else {"if": _flat(old_tests[at:], old_results[at:])}
        return self._rule(results[-1], rest, depth + 1)

    def _is_smaller(self, now: list[Any], then: list[Any]) -> bool:
        """A split of one variant, which stands first, and the off variant: the first share is no larger than it was."""
        match [item for item in now if isinstance(item, list)], [item for item in then if isinstance(item, list)]:
            case [[str(new), int(share)], [str(rest), int(others)]], [[str(old), int(was)], [str(left), int(beside)]]:
                is_by_same = same([item for item in now if not isinstance(item, list)],
                                  [item for item in then if not isinstance(item, list)])  # fmt: skip
                is_off = rest == left == self._off and self._is_same_default
                return new == old and is_off and is_by_same and share * (was + beside) <= was * (share + others)
        return False


def chain_of(arguments: Any) -> tuple[list[Any], list[Any]]:
    """The tests of an `if`, and its results: one more, the last is everyone else's."""
    given = arguments_of(arguments)
    last = given[-1] if len(given) % 2 else None
    return given[0 : len(given) - 1 : 2], [*given[1::2], last]


def reachable(tests: list[Any], results: list[Any]) -> list[Any]:
    """The results that someone may get: a constant test decides for everyone."""
    found: list[Any] = []
    for test, result in zip(tests, results[:-1], strict=True):
        if not is_constant(test):
            found.append(result)
        elif truthy(test):
            return [*found, result]
    return [*found, results[-1]]


def _flat(tests: list[Any], results: list[Any]) -> list[Any]:
    pairs = [item for pair in zip(tests, results[:-1], strict=True) for item in pair]
    return [*pairs, results[-1]]


def _name(rule: Any, definition: Definition) -> str | None:
    """The variant that a constant result names; None for what is computed, and for nothing."""
    if rule is None:
        default = definition.get("defaultVariant")
        return default if isinstance(default, str) else None
    return text(rule) if isinstance(rule, str | int | float) else None

"""One flag's decision as a condition in another flag's targeting, in plain flagd terms (P7).

flagd evaluates one flag at a time, so "only where `b` serves `on`" has to be written into the other flag: the targeting of `b`
becomes a rule that is true exactly where it decides for `on`. What would read differently under another flag's key is
rewritten: `$flagd.flagKey` becomes the key itself, and a split that names no bucketing value is given the one that it has
by default.

In generation v2 that is the text of flag key and targeting key. In v3 it is the list of both, and flagd takes a list in that
place for a share: no rule can say it, so such a split cannot be repeated (docs/decisions/0009).

    >>> Repeat("b", {}, "v3").decides({"if": [{"==": [{"var": "plan"}, "free"]}, "off", "on"]}, "on", None)
    {'if': [{'==': [{'var': 'plan'}, 'free']}, False, True]}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from rescind.evaluation.frame import arguments_of, is_rule
from rescind.evaluation.values import text

FLAG_KEY: Final = "$flagd.flagKey"
TARGETING_KEY: Final = {"var": "targetingKey"}
DEEP_MAX: Final = 128
"""Operators within operators, shared rules included."""

_ITERATIONS: Final = ("map", "filter", "reduce", "all", "none", "some")
_YES, _NO = "+", "-"


class Unrepeatable(Exception):  # noqa: N818 - it is an answer
    """No rule of another flag decides exactly as this one does; the text says why."""


class Repeat:
    """The rules of the flag `key`, for use in the targeting of others."""

    def __init__(self, key: str, evaluators: Mapping[str, Any], generation: str) -> None:
        self._key = key
        self._evaluators = evaluators
        self._generation = generation
        self._depth = 0

    def decides(self, rule: Any, variant: str, default: str | None) -> Any:
        """A rule that is true where `rule` decides for `variant`, a null standing for `default`. True or False where that is
        the same for everyone. Raises `Unrepeatable`."""
        self._enter()
        try:
            return self._decides(rule, variant, default)
        finally:
            self._depth -= 1

    def _decides(self, rule: Any, variant: str, default: str | None) -> Any:
        if not is_rule(rule):
            return _names(rule, default) == variant
        ((operator, arguments),) = rule.items()
        given = arguments_of(arguments)
        match operator:
            case "if" | "?:":
                return self._chain(given, variant, default)
            case "fractional":
                signs = [self._sign(item, variant, default) for item in given if isinstance(item, list) and item]
                split = self._split(given, signs)
                return {"!==": [split, _NO]} if default == variant else {"===": [split, _YES]}
            case "$ref":
                return self.decides(self._shared(arguments), variant, default)
        return _computed(self.same(rule), variant, default)

    def _chain(self, given: list[Any], variant: str, default: str | None) -> Any:
        steps: list[Any] = []
        for index in range(0, len(given) - 1, 2):
            if isinstance(given[index], str) and given[index]:  # a name alone: this far, and for everyone
                given = given[index + 1 : index + 2]
                break
            steps += [self.same(given[index]), self.decides(given[index + 1], variant, default)]
        steps.append(self.decides(given[-1] if len(given) % 2 else None, variant, default))
        if all(result is False for result in [*steps[1::2], steps[-1]]):
            return False
        return steps[0] if len(steps) == 1 else {"if": steps}

    def _sign(self, share: list[Any], variant: str, default: str | None) -> list[Any]:
        """The share with a sign in place of what it decides for."""
        decided = self.decides(share[0], variant, default)
        sign = (_YES if decided else _NO) if isinstance(decided, bool) else {"if": [decided, _YES, _NO]}
        return [sign, *(self.same(weight) for weight in share[1:])]

    def same(self, rule: Any, *, inner: bool = False) -> Any:
        """A rule with the value that `rule` has under its own flag. `inner`: its data is an item of a list."""
        self._enter()
        try:
            return self._same(rule, inner)
        finally:
            self._depth -= 1

    def _same(self, rule: Any, inner: bool) -> Any:
        if isinstance(rule, list):
            return [self.same(item, inner=inner) for item in rule]
        if not is_rule(rule):
            return rule
        ((operator, arguments),) = rule.items()
        given = arguments_of(arguments)
        match operator:
            case "var":
                return self._variable(rule, given, inner)
            case "fractional":
                if inner:
                    raise Unrepeatable("it splits the items of a list")
                return self._split(given, [self.same(item) for item in given if isinstance(item, list)])
            case "$ref":
                shared = self._shared(arguments)
                repeated = self.same(shared, inner=inner)
                return rule if repeated == shared else repeated
        if operator in _ITERATIONS:
            return {operator: [self.same(item, inner=inner or index == 1) for index, item in enumerate(given)]}
        return {operator: self.same(arguments, inner=inner)}

    def _variable(self, rule: Any, given: list[Any], inner: bool) -> Any:
        name = given[0] if given else ""
        if is_rule(name) and not inner:
            raise Unrepeatable("it computes which attribute to read, which may be the flag's own key")
        if not inner and name in ("", None, "$flagd"):
            raise Unrepeatable("it reads the whole context, the flag's own key in it")
        if name == FLAG_KEY and not inner:
            return self._key
        return {"var": [name, *(self.same(item, inner=inner) for item in given[1:])]} if len(given) > 1 else rule

    def _split(self, given: list[Any], shares: list[Any]) -> Any:
        if given and not isinstance(given[0], list):
            return {"fractional": [self.same(given[0]), *shares]}
        if self._generation != "v2":
            raise Unrepeatable(
                "it splits by its own key and the targeting key, which in generation v3 no rule of another flag can repeat: "
                'give the split a bucketing value (in rules: `"by": ["$flagd.flagKey", "targetingKey"]`)'
            )
        has_key = {"and": [TARGETING_KEY, {"===": [{"cat": [TARGETING_KEY]}, TARGETING_KEY]}]}
        return {"if": [has_key, {"fractional": [{"cat": [self._key, TARGETING_KEY]}, *shares]}, None]}

    def _shared(self, name: Any) -> Any:
        if not isinstance(name, str) or name not in self._evaluators:
            raise Unrepeatable("it refers to a segment that does not exist")
        return self._evaluators[name]

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > DEEP_MAX:
            raise Unrepeatable("it is nested too deep")


def _names(result: Any, default: str | None) -> str | None:
    """The variant that a constant result names."""
    if result is None:
        return default
    return text(result) if isinstance(result, str | int | float) else None


def _computed(rule: Any, variant: str, default: str | None) -> Any:
    """Whether a computed result names the variant, in every form in which it can."""
    values: list[Any] = [variant]
    if variant in ("true", "false"):
        values.append(variant == "true")
    values += [value for value in [_number(variant)] if value is not None]
    values += [None] if default == variant else []
    tests = [{"===": [rule, value]} for value in values]
    return tests[0] if len(tests) == 1 else {"or": tests}


def _number(name: str) -> float | None:
    try:
        value = msgspec.json.decode(name, type=int | float)
    except msgspec.DecodeError:
        return None
    return value if text(value) == name else None

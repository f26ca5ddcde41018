"""The compiler's frame: what one flag is compiled with, and the dispatch from a rule to the code of its operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from rescind.evaluation.errors import FaultCode, UnreadableError
from rescind.evaluation.limits import DEPTH_MAX, FLAG_NODES_MAX, FLAG_SIZE_MAX
from rescind.evaluation.measure import measure
from rescind.evaluation.source import Code, Source
from rescind.evaluation.values import truthy

LEVELS_MAX: Final = 2 * DEPTH_MAX
"""Nested operators, references included."""
HOIST_LEVELS: Final = 8
"""After so many nested operators an expression becomes a function of its own: Python's parser has limits too."""


class Scope(NamedTuple):
    """Where a rule reads its data: `c` is the context itself (`top`), or an item of a list."""

    top: bool
    names: Mapping[str, Code] = {}
    """Attributes of the context that the function has already read."""

    def inner(self) -> Scope:
        """The same data in a helper function, which has none of the names."""
        return Scope(self.top)


ITEM: Final = Scope(top=False)

Handler = Callable[["Frame", list[Any], Scope], Code]


def is_rule(value: object) -> bool:
    """Whether JsonLogic takes `value` for an operation: an object with one key. Any other object is a value."""
    return isinstance(value, dict) and len(value) == 1


def is_constant(value: object) -> bool:
    """Whether `value` holds no operation anywhere that JsonLogic would look."""
    if isinstance(value, list):
        return all(is_constant(item) for item in value)
    return not is_rule(value)


def arguments_of(value: Any) -> list[Any]:
    """An operator's arguments: a single one need not be in a list."""
    return value if isinstance(value, list) else [value]


class Frame:
    """Everything that the code of one flag depends on."""

    def __init__(
        self,
        flag_key: str,
        evaluators: Mapping[str, Any],
        generation: str,
        timestamp: Callable[[], int],
        handlers: Mapping[str, Handler],
    ) -> None:
        self.source = Source()
        self.flag_key = flag_key
        self.evaluators = evaluators
        self.generation = generation
        self.timestamp = timestamp
        self.needs_key = False
        """Whether splitting by a targeting key that is missing is an error; else it gives null."""
        self._handlers = handlers
        self._levels = 0
        self._referring: list[str] = []
        self._sizes: dict[str, int] = {}

    def resolve(self, name: Any) -> Any:
        """The shared rule `name`. Raises `UnreadableError` where there is none, or it refers to itself."""
        if not isinstance(name, str) or name not in self.evaluators:
            raise UnreadableError(FaultCode.UNKNOWN_EVALUATOR, "the targeting refers to an evaluator that does not exist")
        if name in self._referring:
            raise UnreadableError(FaultCode.NESTED_REFERENCE, "an evaluator refers to itself")
        return self.evaluators[name]

    def _size(self, name: str) -> int:
        """How many values the shared rule `name` has: what referring to it costs."""
        if name not in self._sizes:
            self._sizes[name] = measure(self.evaluators[name], DEPTH_MAX, FLAG_NODES_MAX, FLAG_SIZE_MAX).nodes
        return self._sizes[name]

    def enter(self, name: str | None = None) -> None:
        """Go one operator deeper, or into the shared rule `name`. Raises `UnreadableError` beyond the limits."""
        self.source.spend(1 if name is None else self._size(name))
        self._levels += 1
        if self._levels > LEVELS_MAX:
            raise UnreadableError(FaultCode.TOO_DEEP, "the targeting is nested too deep")
        if name is not None:
            self._referring.append(name)

    def leave(self, name: str | None = None) -> None:
        self._levels -= 1
        if name is not None:
            self._referring.pop()

    def literal(self, value: Any) -> Code:
        """A constant, bound by name; null, true and false stand in the text as they are."""
        if value is None:
            return Code("None", "null", name=True)
        if value is True or value is False:
            return Code("True" if value else "False", "boolean", name=True)
        kind = "text" if isinstance(value, str) else "number" if isinstance(value, int | float) else "any"
        return Code(self.source.bind(value), kind, name=True)

    def value(self, rule: Any, scope: Scope) -> Code:
        """The expression that gives `rule`'s value. Raises `UnreadableError` for an operator this version does not know."""
        if isinstance(rule, list):
            return self._array(rule, scope)
        if not is_rule(rule):
            return self.literal(rule)
        ((operator, arguments),) = rule.items()
        if operator == "$ref":
            return self._reference(arguments, scope)
        handler = self._handlers.get(operator) if isinstance(operator, str) else None
        if handler is None:
            raise UnreadableError(FaultCode.UNKNOWN_OPERATOR, f"unknown operator {str(operator)[:40]!r}")
        self.enter()
        try:
            hoisted = self._levels % HOIST_LEVELS == 0
            code = handler(self, arguments_of(arguments), scope.inner() if hoisted else scope)
        finally:
            self.leave()
        if hoisted and not code.name:
            return code._replace(text=f"{self.source.function([f'  return {code.text}'])}(c, b)")
        return code

    def _array(self, items: list[Any], scope: Scope) -> Code:
        self.source.spend()
        if is_constant(items):
            return self.literal(items)
        return Code(f"[{', '.join(self.value(item, scope).text for item in items)}]", "list")

    def _reference(self, name: Any, scope: Scope) -> Code:
        rule = self.resolve(name)
        self.enter(name)
        try:
            return self.value(rule, scope)
        finally:
            self.leave(name)

    def test(self, rule: Any, scope: Scope) -> str:
        """An expression whose Python truth is JsonLogic's truth of `rule`."""
        if not isinstance(rule, list) and not is_rule(rule):
            return "True" if truthy(rule) else "False"
        if isinstance(rule, dict):
            ((operator, arguments),) = rule.items()
            joined = {"and": " and ", "or": " or "}.get(operator)
            if joined and arguments_of(arguments):
                return self._joined(joined, arguments_of(arguments), scope)
        return self.truth(self.value(rule, scope))

    def _joined(self, joined: str, rules: list[Any], scope: Scope) -> str:
        self.enter()
        try:
            if self._levels % HOIST_LEVELS:
                return f"({joined.join(self.test(rule, scope) for rule in rules)})"
            tests = joined.join(self.test(rule, scope.inner()) for rule in rules)
            return f"{self.source.function([f'  return {tests}'])}(c, b)"
        finally:
            self.leave()

    def truth(self, code: Code) -> str:
        return code.text if code.plain_truth else f"{self.source.bind(truthy)}({code.text})"

    def inner(self, rule: Any) -> str:
        """The name of a function (item, budget) that applies `rule` to an item."""
        self.source.loops = True
        return self.source.function([f"  return {self.value(rule, ITEM).text}"])

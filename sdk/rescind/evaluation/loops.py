"""The code of `map`, `filter`, `reduce`, `all`, `some`, `none`, and what an item costs them: by the size of its rule, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rescind.evaluation.frame import Frame, Handler, Scope, is_rule
from rescind.evaluation.limits import ITEM_NODES
from rescind.evaluation.operators import LOOPS, reduce_items
from rescind.evaluation.source import Code


def cost_of(rule: Any, evaluators: Mapping[str, Any]) -> int:
    """How many items one item counts for, under `rule`. Only for rules that compile: their references end.

    >>> cost_of({"var": ""}, {})
    1
    """
    return max(1, _nodes(rule, evaluators, {}) // ITEM_NODES)


def _nodes(rule: Any, evaluators: Mapping[str, Any], known: dict[str, int]) -> int:
    """The values of a rule, those of the shared rules that it refers to among them."""
    if is_rule(rule):
        ((operator, arguments),) = rule.items()
        if operator != "$ref":
            return 1 + _nodes(arguments, evaluators, known)
        if arguments not in known:
            known[arguments] = _nodes(evaluators[arguments], evaluators, known)
        return known[arguments]
    return 1 + sum(_nodes(item, evaluators, known) for item in rule) if isinstance(rule, list) else 1


def _operand(arguments: list[Any], index: int) -> Any:
    return arguments[index] if index < len(arguments) else None


def _inner(frame: Frame, rule: Any) -> str:
    """The arguments that say what is done with each item: the rule, the budget, what an item costs."""
    return f"{frame.inner(rule)}, b, {frame.source.bind(cost_of(rule, frame.evaluators))}"


def _loop(operator: str) -> Handler:
    function = LOOPS[operator]
    kind = "list" if operator in ("map", "filter") else "boolean"

    def handle(frame: Frame, arguments: list[Any], scope: Scope) -> Code:
        if len(arguments) < 2 and operator != "map":
            return frame.literal(operator == "none") if kind == "boolean" else frame.literal([])
        items, inner = frame.value(_operand(arguments, 0), scope), _inner(frame, _operand(arguments, 1))
        return Code(f"{frame.source.bind(function)}({items.text}, {inner})", kind)

    return handle


def _reduce(frame: Frame, arguments: list[Any], scope: Scope) -> Code:
    items, start = frame.value(_operand(arguments, 0), scope), frame.value(_operand(arguments, 2), scope)
    inner = _inner(frame, _operand(arguments, 1))
    return Code(f"{frame.source.bind(reduce_items)}({items.text}, {inner}, {start.text})")


HANDLERS: Final[dict[str, Handler]] = {"reduce": _reduce, **{operator: _loop(operator) for operator in LOOPS}}

"""The code of each JsonLogic operator, as an expression.

Where an argument is a constant, the common case is written out (a comparison of two strings is one comparison) and the
exact rules of `values` are called for everything else, so that both give the same answer for every value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from rescind.evaluation import loops, values
from rescind.evaluation.frame import Frame, Handler, Scope, is_constant, is_rule
from rescind.evaluation.lookup import dig, look_up, missing, missing_some, path_of, whole
from rescind.evaluation.operators import CALLS, EXACT, contains, negate, subtract
from rescind.evaluation.source import Code

_CHAIN_MAX: Final = 12
"""The longest `if`, `and` or `or` that is written as one expression."""
_NULL: Final = Code("None", "null", name=True)
_RETURN_KINDS: Final = {"cat": "text", "substr": "text", "+": "number", "*": "number", "/": "number", "%": "number"}
_RETURN_KINDS.update({"max": "number", "min": "number", "merge": "list"})
_EQUAL: Final = {
    "==": (values.loosely_equal, "==", ""),
    "!=": (values.loosely_equal, "!=", "not "),
    "===": (values.strictly_equal, "==", ""),
    "!==": (values.strictly_equal, "!=", "not "),
}
_ORDER: Final = {
    "<": values.less,
    "<=": values.less_or_equal,
    ">": values.greater,
    ">=": values.greater_or_equal,
}


def _item(arguments: list[Any], index: int) -> Any:
    return arguments[index] if index < len(arguments) else None


def _call(frame: Frame, function: Callable[..., Any], codes: list[Code], kind: str = "any") -> Code:
    return Code(f"{frame.source.bind(function)}({', '.join(code.text for code in codes)})", kind)


def data(frame: Frame, scope: Scope) -> str:
    """The whole data of the scope, as `{"var": ""}` gives it."""
    if not scope.top:
        return "c"
    source = frame.source
    return f"{source.bind(whole)}(c, {source.bind(frame.flag_key)}, {source.bind(frame.timestamp)}())"


def attribute(frame: Frame, name: str, scope: Scope) -> Code:
    """A top-level attribute of the context, or of an item."""
    if name in scope.names:
        return scope.names[name]
    if scope.top:
        return Code(f"c.get({frame.source.bind(name)})")
    return Code(f"{frame.source.bind(dig)}(c, {frame.source.bind((name,))})")


def single_name(key: Any) -> str | None:
    """The attribute that a `var` key names, where it is one step into the caller's context."""
    path = path_of(key) if not isinstance(key, list | dict) else ()
    return path[0] if len(path) == 1 and path[0] != "$flagd" else None


def _var(frame: Frame, arguments: list[Any], scope: Scope) -> Code:
    key = _item(arguments, 0)
    found = _found(frame, key, scope)
    default = _item(arguments, 1)
    if default is None or found.kind in ("text", "number"):
        return found
    first, again = frame.source.once(found)
    return Code(f"({frame.value(default, scope).text} if {first} is None else {again})")


def _found(frame: Frame, key: Any, scope: Scope) -> Code:
    if is_rule(key) or isinstance(key, list):
        whole_data = data(frame, scope)
        return Code(f"{frame.source.bind(look_up)}({whole_data}, {frame.value(key, scope).text})")
    path = path_of(key)
    if not path:
        return Code(data(frame, scope))
    if scope.top and path[0] == "$flagd":
        return _flagd(frame, path, scope)
    if len(path) == 1:
        return attribute(frame, path[0], scope)
    return Code(f"{frame.source.bind(dig)}(c, {frame.source.bind(path)})")


def _flagd(frame: Frame, path: tuple[str, ...], scope: Scope) -> Code:
    if path == ("$flagd", "flagKey"):
        return frame.literal(frame.flag_key)
    if path == ("$flagd", "timestamp"):
        return Code(f"{frame.source.bind(frame.timestamp)}()", "number")
    return Code(f"{frame.source.bind(dig)}({data(frame, scope)}, {frame.source.bind(path)})")


def _missing(frame: Frame, arguments: list[Any], scope: Scope) -> Code:
    keys = ", ".join(frame.value(key, scope).text for key in arguments)
    return Code(f"{frame.source.bind(missing)}({data(frame, scope)}, [{keys}])", "list")


def _missing_some(frame: Frame, arguments: list[Any], scope: Scope) -> Code:
    need, keys = frame.value(_item(arguments, 0), scope), frame.value(_item(arguments, 1), scope)
    return Code(f"{frame.source.bind(missing_some)}({data(frame, scope)}, {need.text}, {keys.text})", "list")


def _if(frame: Frame, arguments: list[Any], scope: Scope) -> Code:
    count = len(arguments)
    if count > _CHAIN_MAX:
        return _long_if(frame, arguments, scope.inner())
    if not arguments:
        return _NULL
    code = frame.value(arguments[-1], scope) if count % 2 else _NULL
    for index in range(count - 2 - count % 2, -1, -2):
        then, test = frame.value(arguments[index + 1], scope), frame.test(arguments[index], scope)
        code = Code(f"({then.text} if {test} else {code.text})")
    return code


def _long_if(frame: Frame, arguments: list[Any], scope: Scope) -> Code:
    """A long chain, as statements: Python's parser bounds how deep expressions nest."""
    lines = [
        f"  if {frame.test(arguments[index], scope)}: return {frame.value(arguments[index + 1], scope).text}"
        for index in range(0, len(arguments) - 1, 2)
    ]
    if len(arguments) % 2:
        lines.append(f"  return {frame.value(arguments[-1], scope).text}")
    return Code(f"{frame.source.function(lines)}(c, b)")


def _connective(stop_when_true: bool) -> Handler:
    """`or` (the first true value, else the last) and `and` (the first false value, else the last)."""

    def handle(frame: Frame, arguments: list[Any], scope: Scope) -> Code:
        if not arguments:
            return _NULL
        long = len(arguments) > _CHAIN_MAX
        codes = [frame.value(argument, scope.inner() if long else scope) for argument in arguments]
        if all(code.kind == "boolean" for code in codes):
            return Code(f"({(' or ' if stop_when_true else ' and ').join(code.text for code in codes)})", "boolean")
        if long:
            return _long_connective(frame, codes, stop_when_true)
        text = codes[-1].text
        for code in reversed(codes[:-1]):
            first, again = frame.source.once(code)
            true = frame.truth(code._replace(text=first))
            text = f"({again} if {true} else {text})" if stop_when_true else f"({text} if {true} else {again})"
        return Code(text)

    return handle


def _long_connective(frame: Frame, codes: list[Code], stop_when_true: bool) -> Code:
    lines = []
    for code in codes[:-1]:
        lines.append(f"  t = {code.text}")
        lines.append(f"  if {'' if stop_when_true else 'not '}{frame.truth(code._replace(text='t'))}: return t")
    lines.append(f"  return {codes[-1].text}")
    return Code(f"{frame.source.function(lines)}(c, b)")


def _not(frame: Frame, arguments: list[Any], scope: Scope) -> Code:
    return Code(f"(not {frame.test(_item(arguments, 0), scope)})", "boolean")


def _cast(frame: Frame, arguments: list[Any], scope: Scope) -> Code:
    return Code(f"(True if {frame.test(_item(arguments, 0), scope)} else False)", "boolean")


def _equality(operator: str) -> Handler:
    exact, sign, negation = _EQUAL[operator]

    def handle(frame: Frame, arguments: list[Any], scope: Scope) -> Code:
        rules = [_item(arguments, 0), _item(arguments, 1)]
        if isinstance(rules[0], str | int) and not isinstance(rules[1], str | int):
            rules.reverse()  # equality is symmetric: the constant goes to the right
        left, right = frame.value(rules[0], scope), frame.value(rules[1], scope)
        name = frame.source.bind(exact)
        known = {str: "str", int: "int"}.get(type(rules[1]))
        if known is None:
            return Code(f"({negation}{name}({left.text}, {right.text}))", "boolean")
        first, again = frame.source.once(left)
        usual = _usual(frame, left, first, type(rules[1]))
        return Code(f"({again} {sign} {right.text} if {usual} else {negation}{name}({again}, {right.text}))", "boolean")

    return handle


def _usual(frame: Frame, code: Code, first: str, known: type) -> str:
    """The test that the value is of the class `known`."""
    if known is str and code.is_text:
        return code.is_text
    return f"{first}.__class__ is {frame.source.bind(known)}"


def _order(operator: str) -> Handler:
    exact = _ORDER[operator]

    def pair(frame: Frame, left: Code, right: Code, constant: Any) -> str:
        name = frame.source.bind(exact)
        if type(constant) is not int:
            return f"{name}({left.text}, {right.text})"
        first, again = frame.source.once(left)
        usual = _usual(frame, left, first, int)
        return f"({again} {operator} {right.text} if {usual} else {name}({again}, {right.text}))"

    def handle(frame: Frame, arguments: list[Any], scope: Scope) -> Code:
        left, right = frame.value(_item(arguments, 0), scope), frame.value(_item(arguments, 1), scope)
        if len(arguments) < 3:
            return Code(pair(frame, left, right, _item(arguments, 1)), "boolean")
        third = frame.value(arguments[2], scope)
        first, again = frame.source.once(right)
        lower = f"{frame.source.bind(exact)}({left.text}, {first})"
        return Code(f"({lower} and {frame.source.bind(exact)}({again}, {third.text}))", "boolean")

    return handle


def _in(frame: Frame, arguments: list[Any], scope: Scope) -> Code:
    needle, haystack = _item(arguments, 0), _item(arguments, 1)
    code, stack = frame.value(needle, scope), frame.value(haystack, scope)
    name, bind = frame.source.bind(contains), frame.source.bind
    if isinstance(haystack, list) and haystack and is_constant(haystack):
        known = {type(item) for item in haystack}
        if known in ({str}, {int}):
            first, again = frame.source.once(code)
            usual = _usual(frame, code, first, known.pop())
            return Code(f"({again} in {bind(frozenset(haystack))} if {usual} else {name}({again}, {stack.text}))", "boolean")
    if isinstance(needle, str):
        first, again = frame.source.once(stack)
        usual = _usual(frame, stack, first, str)
        return Code(f"({code.text} in {again} if {usual} else {name}({code.text}, {again}))", "boolean")
    return Code(f"{name}({code.text}, {stack.text})", "boolean")


def _minus(frame: Frame, arguments: list[Any], scope: Scope) -> Code:
    codes = [frame.value(argument, scope) for argument in arguments[:2]]
    return _call(frame, subtract if len(codes) == 2 else negate, codes, "number")


def _eager(operator: str) -> Handler:
    def handle(frame: Frame, arguments: list[Any], scope: Scope) -> Code:
        codes = [frame.value(argument, scope) for argument in arguments]
        return _call(frame, CALLS[operator], codes, _RETURN_KINDS.get(operator, "any"))

    return handle


def _exact(operator: str) -> Handler:
    count, function = EXACT[operator]

    def handle(frame: Frame, arguments: list[Any], scope: Scope) -> Code:
        if len(arguments) != count:
            return _NULL
        return _call(frame, function, [frame.value(argument, scope) for argument in arguments], "nullable boolean")

    return handle


HANDLERS: Final[dict[str, Handler]] = {
    "var": _var,
    "missing": _missing,
    "missing_some": _missing_some,
    "if": _if,
    "?:": _if,
    "or": _connective(stop_when_true=True),
    "and": _connective(stop_when_true=False),
    "!": _not,
    "!!": _cast,
    "in": _in,
    "-": _minus,
    **{operator: _equality(operator) for operator in _EQUAL},
    **{operator: _order(operator) for operator in _ORDER},
    **{operator: _eager(operator) for operator in CALLS},
    **{operator: _exact(operator) for operator in EXACT},
    **loops.HANDLERS,
}

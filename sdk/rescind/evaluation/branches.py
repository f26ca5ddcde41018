"""The code of a flag's decision, as statements: `if` chains and `fractional` splits that end in a result.

A result is either a prepared `Resolution` (the flag's own targeting) or a plain value (a `fractional` inside an expression);
`Ending` says which.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, Protocol

from mmh3 import mmh3_32_uintdigest

from rescind.evaluation.bucketing import (
    UNUSUAL,
    Starts,
    fractional,
    prefix,
    required_fractional,
    required_seat,
    seat,
    thresholds,
    weight_of,
)
from rescind.evaluation.dispatch import Run, loose_key, run_of, strict_key
from rescind.evaluation.expressions import HANDLERS as EXPRESSIONS
from rescind.evaluation.expressions import attribute, single_name
from rescind.evaluation.frame import Frame, Handler, Scope, arguments_of, is_rule
from rescind.evaluation.source import Code

BRANCH_LEVELS_MAX: Final = 12
"""Nested branches in one function; deeper ones go to a function of their own."""
HOIST_USES: Final = 2
"""An attribute that is used so often is read once, at the start."""
CLASS_USES: Final = 3
"""And so often: whether it is a string is found out once."""
MISS: Final = object()
"""What a look-up's candidates give where none of them holds."""
_LISTS: Final = (list, tuple)
_WORD: Final = re.compile(r"\w+")
_NESTED: Final = {"filter", "map", "reduce", "all", "some", "none"}


class Ending(Protocol):
    """How a branch ends: the text of the expression that is returned."""

    def constant(self, frame: Frame, value: Any, split: bool) -> str: ...

    def computed(self, frame: Frame, code: Code, split: bool) -> str: ...


class Value:
    """The branch gives a JsonLogic value."""

    def constant(self, frame: Frame, value: Any, split: bool) -> str:
        return frame.literal(value).text

    def computed(self, frame: Frame, code: Code, split: bool) -> str:
        return code.text


class Branches:
    """Writes the statements of one function."""

    def __init__(self, frame: Frame, scope: Scope, ending: Ending) -> None:
        self._frame = frame
        self._scope = scope
        self._ending = ending
        self.lines: list[str] = []

    def write(self, rule: Any, indent: int = 2, split: bool = False) -> None:
        """Append the statements that return what `rule` decides. `split`: a `fractional` has led here."""
        if is_rule(rule):
            ((operator, arguments),) = rule.items()
            if operator in ("$ref", "if", "?:", "fractional"):
                self._enter(operator, arguments, indent, split)
            else:
                self._return(self._ending.computed(self._frame, self._frame.value(rule, self._scope), split), indent)
        elif isinstance(rule, list):
            self._return(self._ending.computed(self._frame, self._frame.value(rule, self._scope), split), indent)
        else:
            self._return(self._ending.constant(self._frame, rule, split), indent)

    def _return(self, text: str, indent: int) -> None:
        self.lines.append(f"{' ' * indent}return {text}")

    def _enter(self, operator: str, arguments: Any, indent: int, split: bool) -> None:
        reference = arguments if operator == "$ref" else None
        rule = self._frame.resolve(reference) if reference is not None else None
        self._frame.enter(reference)
        try:
            if indent > BRANCH_LEVELS_MAX:
                inner = Branches(self._frame, self._scope.inner(), self._ending)
                inner._write_operator(operator, arguments, rule, 2, split)
                self._return(f"{self._frame.source.function(inner.lines)}(c, b)", indent)
            else:
                self._write_operator(operator, arguments, rule, indent, split)
        finally:
            self._frame.leave(reference)

    def _write_operator(self, operator: str, arguments: Any, rule: Any, indent: int, split: bool) -> None:
        if operator == "$ref":
            self.write(rule, indent, split)
        elif operator == "fractional":
            self._fractional(arguments_of(arguments), indent)
        else:
            self._if(arguments_of(arguments), indent, split)

    def _if(self, arguments: list[Any], indent: int, split: bool) -> None:
        index = 0
        while index < len(arguments) - 1:
            run = run_of(arguments, index) if self._scope.top else None
            if run is not None:
                self._dispatch(run, arguments[index + 1 :: 2], indent, split)
                index += 2 * len(run.leads)
                continue
            self.lines.append(f"{' ' * indent}if {self._frame.test(arguments[index], self._scope)}:")
            self.write(arguments[index + 1], indent + 1, split)
            index += 2
        self.write(arguments[-1] if len(arguments) % 2 else None, indent, split)

    def _dispatch(self, run: Run, ends: list[Any], indent: int, split: bool) -> None:
        """Look up which rules of the run can hold, and try those alone. `ends` are what the rules end in."""
        source, pad = self._frame.source, " " * indent
        entries = {}
        for numbers, texts in run.groups.items():
            name = self._candidates([(run.leads[number].rest, ends[number]) for number in numbers], split)
            entries.update(dict.fromkeys(map(source.bind, texts), name))
        first, again = source.once(attribute(self._frame, run.leads[0].name, self._scope))
        exact = source.bind(loose_key if run.leads[0].loose else strict_key)
        key = f"{again} if {first}.__class__ is {source.bind(str)} else {exact}({again})"
        found, result = source.fresh("f"), source.fresh("r")
        self.lines += [
            f"{pad}{found} = {source.table(entries)}.get({key})",
            f"{pad}if {found} is not None:",
            f"{pad} {result} = {found}(c, b)",
            f"{pad} if {result} is not {source.bind(MISS)}: return {result}",
        ]

    def _candidates(self, rules: list[tuple[Any, Any]], split: bool) -> str:
        """The name of a function that tries these rules, each what is left of its test and what it ends in."""
        inner = Branches(self._frame, self._scope.inner(), self._ending)
        for rest, end in rules:
            inner.lines.append(f"  if {self._frame.test(rest, inner._scope)}:")
            inner.write(end, 3, split)
        return self._frame.source.function([*inner.lines, f"  return {self._frame.source.bind(MISS)}"])

    def _fractional(self, arguments: list[Any], indent: int) -> None:
        frame = self._frame
        is_short = bool(arguments) and isinstance(arguments[0], list)
        shares = arguments if is_short else arguments[1:]
        weights = constant_weights(shares)
        ends = thresholds(weights or [])
        if weights is None or (ends is None and arguments and not is_short):
            texts = [frame.value(argument, self._scope).text for argument in arguments]
            self._return(self._ending.computed(frame, _operator_call(frame, texts, self._scope), True), indent)
        elif ends is None:
            self.write(None, indent)
        else:
            place = frame.source.fresh("p")
            if is_short:
                self.lines += _default_place(frame, self._scope, place, " " * indent)
            else:
                self._named_place(arguments[0], shares, place, indent)
            self._shares(shares, ends, place, indent)

    def _shares(self, shares: Sequence[Any], ends: Sequence[int], place: str, indent: int) -> None:
        """Which share the hash `place` falls into. Null is in none."""
        frame, pad, start = self._frame, " " * indent, 0
        self.lines.append(f"{pad}if {place} is None: return {self._ending.constant(frame, None, False)}")
        for share, end in zip(shares, ends, strict=True):
            if end == start:
                continue
            start = end
            if end < 1 << 32:
                self.lines.append(f"{pad}if {place} < {frame.source.bind(end)}:")
                self.write(share[0], indent + 1, split=True)
            else:
                self.write(share[0], indent, split=True)

    def _named_place(self, bucketing: Any, shares: Sequence[Any], place: str, indent: int) -> None:
        """The hash of a bucketing value that the rule names. A list is no such value, but the first share."""
        frame, pad = self._frame, " " * indent
        generation = frame.source.bind(frame.generation)
        code = frame.value(bucketing, self._scope)
        value = frame.source.fresh("t")
        self.lines.append(f"{pad}{value} = {code.text}")
        if code.kind == "any" or code.kind == "list":
            texts = [value, *(frame.value(share, self._scope).text for share in shares)]
            general = _operator_call(frame, texts, self._scope)
            self.lines.append(f"{pad}if {frame.source.bind(isinstance)}({value}, {frame.source.bind(_LISTS)}):")
            self.lines.append(f"{pad} return {self._ending.computed(frame, general, True)}")
        self.lines.append(f"{pad}{place} = {frame.source.bind(seat)}({value}, {generation})")


def constant_weights(shares: Sequence[Any]) -> list[int] | None:
    """The weights, where every share is written out and every weight a number. Without shares: [], which decides nothing."""
    weights = []
    for share in shares:
        if not isinstance(share, list) or not 1 <= len(share) <= 2 or (len(share) == 2 and is_rule(share[1])):
            return None
        weight = weight_of(share[1]) if len(share) == 2 else 1
        if weight is None:
            return []
        weights.append(weight)
    return weights


def _key(frame: Frame, scope: Scope) -> Code:
    return attribute(frame, "targetingKey", scope)


def _start(frame: Frame, scope: Scope) -> str:
    """The bytes before the targeting key. Inside a loop over items flagd knows no flag key."""
    return frame.source.bind(prefix(frame.flag_key if scope.top else "", frame.generation))


def _default_place(frame: Frame, scope: Scope, place: str, pad: str) -> list[str]:
    """The statements that give `place` the hash of flag key and targeting key: written out for a key of a known length."""
    bind, code = frame.source.bind, _key(frame, scope)
    if frame.needs_key:
        required = f"{bind(required_seat)}({_start(frame, scope)}, {code.text}, {bind(frame.generation)})"
        return [f"{pad}{place} = {required}"]
    key, encoded = code.text, frame.source.fresh("t")
    lines = []
    if not code.name:
        key = frame.source.fresh("t")
        lines.append(f"{pad}{key} = {code.text}")
    usual = f"{key}.__class__ is {bind(str)} and {key}"
    starts = Starts(frame.flag_key if scope.top else "", frame.generation)
    hashed = f"{bind(mmh3_32_uintdigest)}({bind(starts.known)}[{bind(len)}({encoded} := {key}.encode())] + {encoded})"
    return [
        *lines,
        f"{pad}try: {place} = {hashed} if {usual} else None",
        f"{pad}except {bind(UNUSUAL)}: {place} = {bind(starts.seat)}({key})",
    ]


def _operator_call(frame: Frame, texts: list[str], scope: Scope) -> Code:
    """The whole operator, over arguments that are evaluated first."""
    entries = "".join(f"{text}, " for text in texts)
    bind = frame.source.bind
    key = _key(frame, scope).text
    called = bind(required_fractional if frame.needs_key else fractional)
    return Code(f"{called}(({entries}), {_start(frame, scope)}, {key}, {bind(frame.generation)})")


def _fractional_value(frame: Frame, arguments: list[Any], scope: Scope) -> Code:
    """`fractional` inside an expression: a function of its own."""
    branches = Branches(frame, scope.inner(), Value())
    branches.write({"fractional": arguments})
    return Code(f"{frame.source.function(branches.lines)}(c, b)")


HANDLERS: Final[dict[str, Handler]] = {**EXPRESSIONS, "fractional": _fractional_value}


def hoist(frame: Frame, targeting: Any) -> tuple[Scope, list[str]]:
    """The scope of the flag's own function, and the statements that read the attributes used more than once."""
    uses: dict[str, int] = {}
    _count(targeting, uses, frame)
    names: dict[str, Code] = {}
    lines = []
    for name, count in uses.items():
        if count < HOIST_USES:
            continue
        local, is_text = frame.source.fresh("v"), ""
        lines.append(f"  {local} = c.get({frame.source.bind(name)})")
        if count >= CLASS_USES:
            is_text = frame.source.fresh("s")
            lines.append(f"  {is_text} = {local}.__class__ is {frame.source.bind(str)}")
        names[name] = Code(local, name=True, is_text=is_text)
    return Scope(top=True, names=names), lines


def used(reads: list[str], lines: list[str]) -> list[str]:
    """Those of the statements from `hoist` whose names `lines` uses: what stands in helper functions reads for itself."""
    words = set(_WORD.findall("\n".join(lines)))
    kept: list[str] = []
    for line in reversed(reads):
        if line.split()[0] in words:
            kept.insert(0, line)
            words.update(_WORD.findall(line))
    return kept


def _count(rule: Any, uses: dict[str, int], frame: Frame) -> None:
    if isinstance(rule, list):
        for item in rule:
            _count(item, uses, frame)
    elif is_rule(rule):
        ((operator, arguments),) = rule.items()
        reference = arguments if operator == "$ref" else None
        inner = arguments_of(arguments) if reference is None else [frame.resolve(reference)]
        frame.enter(reference)
        if operator == "var" and inner:
            name = single_name(inner[0])
            if name is not None:
                uses[name] = uses.get(name, 0) + 1
        _count(inner[:1] if operator in _NESTED else inner, uses, frame)
        frame.leave(reference)

"""A targeting walked rule by rule, beside the compiled function: the same answer, and a record of how it came about.

Only for definitions that compile: what cannot be read, and every limit of a definition, was found then. Slow; for people.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from rescind.evaluation import values
from rescind.evaluation.branches import constant_weights
from rescind.evaluation.bucketing import default_seat, fractional, prefix, seat, thresholds, weight_of
from rescind.evaluation.explanation import Split, shown
from rescind.evaluation.faults import Path
from rescind.evaluation.frame import arguments_of, is_constant, is_rule
from rescind.evaluation.limits import ITERATIONS_MAX
from rescind.evaluation.lookup import dig, look_up, missing, missing_some, path_of, whole
from rescind.evaluation.loops import cost_of
from rescind.evaluation.operators import CALLS, EXACT, LOOPS, contains, negate, reduce_items, subtract
from rescind.evaluation.tracing import Draft, Trace

VISITS_MAX: Final = 50_000
"""Values that one walk looks at, items of loops included."""

_COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": values.loosely_equal,
    "===": values.strictly_equal,
    "!=": lambda a, b: not values.loosely_equal(a, b),
    "!==": lambda a, b: not values.strictly_equal(a, b),
    "in": contains,
}
_ORDER: Final = {"<": values.less, "<=": values.less_or_equal, ">": values.greater, ">=": values.greater_or_equal}


class Enough(Exception):  # noqa: N818 - it ends a walk, and no evaluation
    """The walk has looked at `VISITS_MAX` values."""


class Data(NamedTuple):
    """What a rule reads: the caller's context (`top`), or an item of a list."""

    top: bool
    value: Any


class Decision(NamedTuple):
    """What a targeting came to: a value, whether a `fractional` led there, and where the value stands."""

    value: Any
    split: bool
    path: Path


class Interpreter:
    """Walks the targeting of one flag for one context."""

    def __init__(
        self, flag_key: str, evaluators: Mapping[str, Any], generation: str, timestamp: Callable[[], int], trace: Trace
    ) -> None:
        self._flag_key = flag_key
        self.evaluators = evaluators
        self._generation = generation
        self._timestamp = timestamp
        self._trace = trace
        self._visits = 0
        self._budget = [ITERATIONS_MAX]
        self._entered = False
        """The outermost `if` was entered, or can no longer be."""
        self.chain: _Operands | None = None
        """The operands of the flag's own `if` chain, where it has one."""
        self.branch = 0
        """The index of the operand of that chain that decided."""

    def decide(self, rule: Any, data: Data, path: Path, split: bool = False) -> Decision:
        """What the targeting `rule` comes to. Raises `RuleError` as the compiled function does, and `Enough`."""
        self._visit()
        if is_rule(rule):
            ((operator, arguments),) = rule.items()
            if operator == "$ref":
                return self.decide(self.evaluators[arguments], data, _shared(arguments), split)
            if operator in ("if", "?:"):
                return self._decide_if(_Operands(self, arguments, data, (path, operator)), operator, split)
            if operator == "fractional":
                return self._decide_split(_Operands(self, arguments, data, (path, operator)))
        return Decision(self.value(rule, data, path), split, path)

    def value(self, rule: Any, data: Data, path: Path) -> Any:
        """What a rule gives, as JsonLogic has it."""
        self._visit()
        if isinstance(rule, list):
            constant = is_constant(rule)
            return rule if constant else [self.value(item, data, (path, index)) for index, item in enumerate(rule)]
        if not is_rule(rule):
            return rule
        ((operator, arguments),) = rule.items()
        if operator == "$ref":
            return self.value(self.evaluators[arguments], data, _shared(arguments))
        below = _Operands(self, arguments, data, (path, operator))
        if operator == "var":
            return self._var(below)
        self._entered = True
        if operator in ("if", "?:", "fractional"):
            return self.decide(rule, data, path).value
        with self._trace.operation((path, operator), operator) as draft:
            draft.value = self._operation(operator, below, draft)
        return draft.value

    def _visit(self) -> None:
        self._visits += 1
        if self._visits > VISITS_MAX:
            raise Enough

    # --- operators ------------------------------------------------------------------------------------------------------

    def _operation(self, operator: str, below: _Operands, draft: Draft) -> Any:
        if operator in ("and", "or"):
            return self._connective(operator == "or", below, draft)
        if operator in ("!", "!!"):
            return values.truthy(below[0]) is (operator == "!!")
        if operator in _COMPARISONS:
            return _COMPARISONS[operator](below[0], below[1])
        if operator in _ORDER:
            return _ordered(operator, below)
        if operator in LOOPS or operator == "reduce":
            return self._loop(operator, below)
        if operator == "-":
            return subtract(below[0], below[1]) if below.count > 1 else negate(*below.all)
        if operator == "missing":
            return missing(self._whole(below.data), below.all)
        if operator == "missing_some":
            return missing_some(self._whole(below.data), below[0], below[1])
        if operator in EXACT:
            count, function = EXACT[operator]
            return function(*below.all) if below.count == count else None
        return CALLS[operator](*below.all)

    def _connective(self, stop_when_true: bool, below: _Operands, draft: Draft) -> Any:
        value: Any = None
        for index in range(below.count):
            value, draft.operand = below[index], index
            if values.truthy(value) is stop_when_true:
                break
        return value

    def _loop(self, operator: str, below: _Operands) -> Any:
        if operator == "reduce":
            items, start = below[0], below[2]
            with self._trace.quiet():
                return reduce_items(items, below.inner, self._budget, below.cost, start)
        if below.count < 2 and operator != "map":
            return [] if operator == "filter" else operator == "none"
        items = below[0]
        with self._trace.quiet():
            return LOOPS[operator](items, below.inner, self._budget, below.cost)

    def _var(self, below: _Operands) -> Any:
        key = below.given[0] if below.count else None
        if is_rule(key) or isinstance(key, list):
            key = below[0]
            found = look_up(self._whole(below.data), key)
        else:
            found = self._read(path_of(key), below.data)
        self._trace.read("" if key is None else values.text(key), found)
        return below[1] if found is None and below.count > 1 else found

    def _read(self, steps: tuple[str, ...], data: Data) -> Any:
        if not data.top:
            return dig(data.value, steps)
        if not steps or (steps[0] == "$flagd" and steps != ("$flagd", "flagKey")):
            return dig(self._whole(data), steps) if steps != ("$flagd", "timestamp") else self._timestamp()
        if steps[0] == "$flagd":
            return self._flag_key
        return data.value.get(steps[0]) if len(steps) == 1 else dig(data.value, steps)

    def _whole(self, data: Data) -> Any:
        return whole(data.value, self._flag_key, self._timestamp()) if data.top else data.value

    # --- decisions ------------------------------------------------------------------------------------------------------

    def _decide_if(self, below: _Operands, operator: str, split: bool) -> Decision:
        outermost, self._entered = not self._entered, True
        if outermost:
            self.chain = below
        with self._trace.operation(below.path, operator) as draft:
            draft.operand = index = self._branch(below)
            if outermost:
                self.branch = index
            if index >= below.count:
                return Decision(None, split, below.path)
            decision = self.decide(below.given[index], below.data, below.place(index), split)
            draft.value = decision.value
            return decision

    def _branch(self, below: _Operands) -> int:
        """The index of the operand that an `if` comes to; the number of operands where there is none."""
        for index in range(0, below.count - 1, 2):
            if values.truthy(below[index]):
                return index + 1
        return below.count - 1 if below.count % 2 else below.count

    def _decide_split(self, below: _Operands) -> Decision:
        with self._trace.operation(below.path, "fractional") as draft:
            decision = self._split(below, draft)
            draft.value = decision.value
        return decision

    def _split(self, below: _Operands, draft: Draft) -> Decision:
        """As `Branches` writes it: shares that are written out are entered, all others are evaluated whole."""
        given = below.given
        is_short = bool(given) and isinstance(given[0], list)
        first = 0 if is_short else 1
        weights = constant_weights(given[first:])
        ends = thresholds(weights or [])
        if weights is None or (ends is None and given and not is_short):
            return self._whole_split(below.all, below, draft)
        if ends is None:
            return Decision(None, False, below.path)
        by = None if is_short else below[0]
        if isinstance(by, list | tuple):
            return self._whole_split([by, *(below[index] for index in range(1, below.count))], below, draft)
        place = self._default_place(below.data) if is_short else seat(by, self._generation)
        draft.split = landing(self._generation, by, place, weights)
        if draft.split.share is None:
            return Decision(None, False, below.path)
        at = draft.split.share + first
        return self.decide(given[at][0], below.data, (below.place(at), 0), True)

    def _whole_split(self, given: list[Any], below: _Operands, draft: Draft) -> Decision:
        is_short = isinstance(given[0], list | tuple)
        place = self._default_place(below.data) if is_short else seat(given[0], self._generation)
        computed = [_weight(share) for share in given[0 if is_short else 1 :]]
        weights = [weight for weight in computed if weight is not None]
        by = None if is_short else given[0]
        draft.split = landing(self._generation, by, place, weights if len(weights) == len(computed) else [])
        chosen = fractional(given, self._start(below.data), self._key(below.data), self._generation)
        return Decision(chosen, True, below.path)

    def _default_place(self, data: Data) -> int | None:
        return default_seat(self._start(data), self._key(data), self._generation)

    def _start(self, data: Data) -> bytes:
        return prefix(self._flag_key if data.top else "", self._generation)

    def _key(self, data: Data) -> Any:
        key = self._read(("targetingKey",), data)
        self._trace.read("targetingKey", key)
        return key


class _Operands:
    """The operands of one operation, evaluated when they are asked for."""

    def __init__(self, interpreter: Interpreter, arguments: Any, data: Data, path: Path) -> None:
        self._interpreter = interpreter
        self._listed = isinstance(arguments, list)
        self.given = arguments_of(arguments)
        self.count = len(self.given)
        self.data = data
        self.path = path

    def place(self, index: int) -> Path:
        """Where an operand stands: a single one need not be in a list."""
        return (self.path, index) if self._listed else self.path

    def __getitem__(self, index: int) -> Any:
        """The value of one; null where there is none."""
        if index >= self.count:
            return None
        return self._interpreter.value(self.given[index], self.data, self.place(index))

    @property
    def all(self) -> list[Any]:
        return [self[index] for index in range(self.count)]

    @property
    def cost(self) -> int:
        """What the second operand costs for each item."""
        return cost_of(self.given[1] if self.count > 1 else None, self._interpreter.evaluators)

    def inner(self, item: Any, _: Any) -> Any:
        """The second operand, for an item."""
        rule = self.given[1] if self.count > 1 else None
        return self._interpreter.value(rule, Data(False, item), (self.path, 1))


def _ordered(operator: str, below: _Operands) -> bool:
    order, first, middle = _ORDER[operator], below[0], below[1]
    if not order(first, middle):
        return False
    return below.count < 3 or order(middle, below[2])


def _shared(name: str) -> Path:
    return ((None, "$evaluators"), name)


def _weight(share: Any) -> int | None:
    """The weight of a share that has been evaluated; None for what is none."""
    if not isinstance(share, list | tuple) or not 1 <= len(share) <= 2:
        return None
    return weight_of(share[1]) if len(share) == 2 else 1


def landing(generation: str, by: Any, place: int | None, weights: list[int]) -> Split:
    """Where the hash `place` falls among `weights`."""
    ends = thresholds(weights)
    if place is None or ends is None:
        return Split(generation=generation, by=shown(by), hash=place, total=0 if ends is None else sum(weights))
    share = next(index for index, end in enumerate(ends) if place < end)
    total = sum(weights)
    return Split(
        generation=generation,
        by=shown(by),
        hash=place,
        total=total,
        position=(place * total) >> 32,
        share=share,
        start=sum(weights[:share]),
        weight=weights[share],
    )

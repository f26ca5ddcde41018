"""From a flag to one Python function (context) -> Resolution, with every possible result prepared beforehand (P6).

The function is compiled on first use. A definition that this version cannot read (an operator it does not know, a
structure it does not expect) becomes a function that gives the off variant, reason ERROR, code PARSE_ERROR. A known rule that
fails, or names a variant that does not exist, gives the caller's default, reason ERROR, code GENERAL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from msgspec import UNSET

from rescind.evaluation.branches import HANDLERS, Branches, hoist, used
from rescind.evaluation.errors import EvaluationError, FaultCode, RuleError, UnreadableError
from rescind.evaluation.frame import Frame
from rescind.evaluation.kills import KILLED, FlagSpec, Kill, in_scope, judged_order
from rescind.evaluation.limits import DEPTH_MAX, FLAG_NODES_MAX, FLAG_SIZE_MAX
from rescind.evaluation.measure import measure
from rescind.evaluation.resolution import ErrorCode, Reason, Resolution, error
from rescind.evaluation.source import Code, Source
from rescind.evaluation.values import text

Served = Callable[[Any], Resolution]

_DETAIL_MAX: Final = 200


class Outcomes:
    """The prepared results of one flag."""

    def __init__(self, variants: Mapping[str, Any], default_variant: Any, metadata: Mapping[str, Any]) -> None:
        self._variants = variants
        self.metadata = metadata
        self._matched: dict[str, Resolution] = {}
        self._split: dict[str, Resolution] = {}
        self._default_variant = text(default_variant) if isinstance(default_variant, bool) else default_variant
        self.default = self._default(Reason.DEFAULT)

    def _default(self, reason: Reason) -> Resolution:
        name = self._default_variant
        if name is None or name == "":
            return Resolution(UNSET, None, Reason.DEFAULT, metadata=self.metadata)
        return self._variant(name, reason)

    def static(self) -> Resolution:
        """Of a flag without targeting."""
        return self._default(Reason.STATIC)

    def off(self, name: str, reason: Reason, code: str | None = None, detail: str | None = None) -> Resolution:
        """The variant that stands for the flag where it is killed or cannot be read."""
        value = self._variants.get(name)
        if value is None:
            return error(ErrorCode.GENERAL, f"no off variant: {detail or 'it is not among the variants'}", self.metadata)
        return Resolution(value, name, reason, code, detail, self.metadata)

    def _variant(self, name: Any, reason: Reason) -> Resolution:
        value = self._variants.get(name) if isinstance(name, str) else None
        if value is None:
            return error(ErrorCode.GENERAL, f"no variant {str(name)[:_DETAIL_MAX]!r}", self.metadata)
        return Resolution(value, name, reason, metadata=self.metadata)

    def pick(self, result: Any, split: bool = False) -> Resolution:
        """What a targeting result names: null the default variant, a string or boolean a variant; anything else fails."""
        if result is None:
            return self.default
        if not isinstance(result, str | int | float):
            return error(ErrorCode.GENERAL, "the targeting gave no variant", self.metadata)
        name = text(result)
        known = self._split if split else self._matched
        outcome = known.get(name)
        if outcome is None:
            outcome = self._variant(name, Reason.SPLIT if split else Reason.TARGETING_MATCH)
            if name in self._variants:
                known[name] = outcome
        return outcome

    def pick_split(self, result: Any) -> Resolution:
        return self.pick(result, split=True)


class _Variant:
    """A branch of the flag's own targeting ends in a prepared result."""

    def __init__(self, outcomes: Outcomes) -> None:
        self._outcomes = outcomes

    def constant(self, frame: Frame, value: Any, split: bool) -> str:
        return frame.source.bind(self._outcomes.pick(value, split))

    def computed(self, frame: Frame, code: Code, split: bool) -> str:
        if code.kind == "boolean":
            true, false = self.constant(frame, True, split), self.constant(frame, False, split)
            return f"{true} if {code.text} else {false}"
        return f"{frame.source.bind(self._pick_split if split else self._pick)}({code.text})"

    @property
    def _pick(self) -> Callable[[Any], Resolution]:
        return self._outcomes.pick

    @property
    def _pick_split(self) -> Callable[[Any], Resolution]:
        return self._outcomes.pick_split


def definition_of(flag: FlagSpec) -> Mapping[str, Any]:
    """The flag's definition; an empty one, which cannot be read, where it is no object."""
    definition: Any = flag.definition
    return definition if isinstance(definition, Mapping) else {}


def no_clock() -> int:
    """Stands for the time where none was given. Raises `RuleError`."""
    raise RuleError("the rule reads $flagd.timestamp, and this evaluator was given no clock")


class Compiler:
    """Compiles the flags of one flag set. `timestamp` gives the seconds since 1970 of `$flagd.timestamp`.

    `overdue(limit_seconds)` says whether the set was last known to be current longer ago than that (P6).
    """

    def __init__(
        self,
        evaluators: Mapping[str, Any],
        metadata: Mapping[str, Any],
        generation: str,
        timestamp: Callable[[], int],
        *,
        overdue: Callable[[float], bool] | None = None,
        needs_key: bool = False,
    ) -> None:
        self._evaluators = evaluators
        self._metadata = metadata
        self._generation = generation
        self._timestamp = timestamp
        self._overdue = overdue
        self._needs_key = needs_key

    def compile(self, key: str, flag: FlagSpec) -> Served:
        """The function of one flag. Raises nothing but `RecursionError`, when called too near the end of the stack."""
        definition = definition_of(flag)
        outcomes = self._outcomes(definition)
        try:
            served = self._decision(key, definition, outcomes)
        except EvaluationError as fault:
            detail = fault.detail if isinstance(fault, UnreadableError) else str(fault)
            served = _always(outcomes.off(flag.off_variant, Reason.ERROR, ErrorCode.PARSE_ERROR, detail))
        return self._killed(flag, definition, self._limited(flag, definition, served))

    def is_readable(self, key: str, flag: FlagSpec) -> bool:
        """Whether this version can compile the definition."""
        definition = definition_of(flag)
        try:
            self._decision(key, definition, self._outcomes(definition))
        except EvaluationError:
            return False
        return True

    def off(self, flag: FlagSpec, reason: Reason) -> Resolution:
        """For whoever must not evaluate it (P3: STALE): the off variant, a standing kill's where it takes everyone (P4)."""
        outcomes = self._outcomes(definition_of(flag))
        standing = next((kill.off_variant for kill in judged_order(flag.kills) if not kill.scope), flag.off_variant)
        off = outcomes.off(standing, reason)
        return outcomes.off(flag.off_variant, reason) if off.value is UNSET else off

    def _outcomes(self, definition: Mapping[str, Any], **more: Any) -> Outcomes:
        variants = definition.get("variants")
        own = definition.get("metadata")
        metadata = {**self._metadata, **(own if isinstance(own, dict) else {}), **more}
        default_variant = definition.get("defaultVariant")
        return Outcomes(variants if isinstance(variants, dict) else {}, default_variant, MappingProxyType(metadata))

    def _decision(self, key: str, definition: Mapping[str, Any], outcomes: Outcomes) -> Served:
        state = definition.get("state")
        if state == "DISABLED":
            return _always(Resolution(UNSET, None, Reason.DISABLED, metadata=outcomes.metadata))
        if state != "ENABLED":
            raise UnreadableError(FaultCode.WRONG_TYPE, "the state is neither ENABLED nor DISABLED")
        targeting = definition.get("targeting")
        if targeting is None or targeting == {}:
            return _always(outcomes.static())
        if not isinstance(targeting, dict):
            raise UnreadableError(FaultCode.WRONG_TYPE, "the targeting is no object")
        excess = measure(targeting, DEPTH_MAX, FLAG_NODES_MAX, FLAG_SIZE_MAX).excess
        if excess is not None:
            raise UnreadableError(*excess)
        return self._targeting(key, targeting, outcomes)

    def _targeting(self, key: str, targeting: Any, outcomes: Outcomes) -> Served:
        frame = Frame(key, self._evaluators, self._generation, self._timestamp, HANDLERS)
        frame.needs_key = self._needs_key
        try:
            scope, lines = hoist(frame, targeting)
            branches = Branches(frame, scope, _Variant(outcomes))
            branches.write(targeting)
            return frame.source.build([*used(lines, branches.lines), *branches.lines])
        except (SyntaxError, MemoryError, UnicodeEncodeError) as fault:
            raise UnreadableError(FaultCode.TOO_LARGE, f"the targeting cannot be compiled: {type(fault).__name__}") from fault

    def _limited(self, flag: FlagSpec, definition: Mapping[str, Any], served: Served) -> Served:
        """`served` for as long as the flag's staleness limit allows it, then the off variant. Other flags pay nothing."""
        limit, overdue = flag.max_staleness_seconds, self._overdue
        if limit is None or overdue is None:
            return served
        off = self._outcomes(definition).off(flag.off_variant, Reason.STALE)

        def limited(context: Any) -> Resolution:
            return off if overdue(limit) else served(context)

        return limited

    def _killed(self, flag: FlagSpec, definition: Mapping[str, Any], served: Served) -> Served:
        """`served` under the flag's kills: the kill that takes everyone first, then the narrower ones (P4)."""
        for kill in reversed(judged_order(flag.kills)):
            served = self._under(kill, flag, definition, served)
        return served

    def _under(self, kill: Kill, flag: FlagSpec, definition: Mapping[str, Any], served: Served) -> Served:
        outcomes = self._outcomes(definition, **{KILLED: True})
        off = outcomes.off(kill.off_variant, Reason.STATIC)
        if off.value is UNSET:
            off = outcomes.off(flag.off_variant, Reason.STATIC)
        scope = tuple(kill.scope.items())
        if not scope:
            return _always(off)

        def judged(context: Any) -> Resolution:
            return off if in_scope(context, scope) else served(context)

        return judged


def failed(fault: Exception, metadata: Mapping[str, Any]) -> Resolution:
    """The caller's default, for a rule that failed while it ran."""
    detail = str(fault) if isinstance(fault, EvaluationError) else type(fault).__name__
    return error(ErrorCode.GENERAL, f"the rule failed: {detail}", metadata)


def _always(outcome: Resolution) -> Served:
    source = Source()
    return source.build([f"  return {source.bind(outcome)}"])

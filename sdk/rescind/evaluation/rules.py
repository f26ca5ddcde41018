"""Checking a targeting rule: every fault at once, each with its pointer. Bounded by the measure taken before (`check`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from rescind.evaluation.errors import FaultCode
from rescind.evaluation.faults import Faults, Path, shown
from rescind.evaluation.frame import arguments_of, is_rule
from rescind.evaluation.grammar import ARGUMENTS, KNOWN, argument_fault
from rescind.evaluation.limits import DEPTH_MAX, FLAG_NODES_MAX, FLAG_SIZE_MAX, WEIGHT_SUM_MAX
from rescind.evaluation.measure import measure
from rescind.evaluation.values import text


class RuleCheck:
    """Checks the rules of one flag, or of one shared evaluator (`shared`), which must not refer to others."""

    def __init__(self, faults: Faults, evaluators: Mapping[str, Any] | None, *, shared: bool = False) -> None:
        self._faults = faults
        self._evaluators = evaluators
        self._shared = shared
        self.referred: dict[str, int] = {}
        """How often each evaluator is referred to."""

    def check(self, rule: Any, path: Path) -> None:
        """Note every fault of `rule` and of the rules in it."""
        if self._faults.full:
            return
        if isinstance(rule, list):
            for index, item in enumerate(rule):
                self.check(item, (path, index))
        elif isinstance(rule, dict):
            self._operation(rule, path)
        elif not (rule is None or isinstance(rule, str | int | float)):
            self._faults.add(path, FaultCode.WRONG_TYPE, f"{shown(rule)} cannot stand in a rule")

    def _operation(self, rule: dict[Any, Any], path: Path) -> None:
        if len(rule) != 1:
            self._faults.add(path, FaultCode.WRONG_ARGUMENTS, "a rule is an object with exactly one key, its operator")
            return
        ((operator, arguments),) = rule.items()
        below: Path = (path, operator)
        if operator == "$ref":
            self._reference(arguments, below)
            return
        if operator == "fractional":
            self._fractional(arguments, below)
            return
        bounds = ARGUMENTS.get(operator) if isinstance(operator, str) else None
        if bounds is None:
            self._faults.add(below, FaultCode.UNKNOWN_OPERATOR, self._unknown(operator))
            return
        self._arguments(operator, arguments, bounds, below)

    def _unknown(self, operator: Any) -> str:
        close = get_close_matches(operator[:40], KNOWN, n=1) if isinstance(operator, str) else []
        return f"there is no operator {shown(operator)}" + (f"; did you mean {close[0]!r}?" if close else "")

    def _arguments(self, operator: str, arguments: Any, bounds: tuple[int, int | None], path: Path) -> None:
        given, (least, most) = arguments_of(arguments), bounds
        if len(given) < least or (most is not None and len(given) > most):
            wanted = f"{least}" if least == most else f"at least {least}" if most is None else f"{least} to {most}"
            self._faults.add(path, FaultCode.WRONG_ARGUMENTS, f"takes {wanted} arguments, not {len(given)}")
        for index, value in enumerate(given):
            place: Path = (path, index) if isinstance(arguments, list) else path
            fault = argument_fault(operator, index, value)
            if fault is not None:
                self._faults.add(place, FaultCode.WRONG_ARGUMENTS, f"{shown(value)} {fault}")
            else:
                self.check(value, place)

    def _reference(self, name: Any, path: Path) -> None:
        if not isinstance(name, str):
            self._faults.add(path, FaultCode.WRONG_TYPE, f"names an evaluator, {shown(name)} is no name")
        elif self._shared:
            self._faults.add(
                path, FaultCode.NESTED_REFERENCE, "an evaluator cannot refer to another: flagd does not resolve it"
            )
        elif self._evaluators is not None and name not in self._evaluators:
            self._faults.add(path, FaultCode.UNKNOWN_EVALUATOR, f"there is no evaluator {shown(name)}")
        else:
            self.referred[name] = self.referred.get(name, 0) + 1

    def _fractional(self, arguments: Any, path: Path) -> None:
        if not isinstance(arguments, list) or not arguments:
            self._faults.add(path, FaultCode.WRONG_ARGUMENTS, "takes a list of shares, each [variant, weight]")
            return
        first = 0
        if not isinstance(arguments[0], list):
            first = 1
            if is_rule(arguments[0]):
                self.check(arguments[0], (path, 0))
            else:
                detail = f"the bucketing value has to be a rule, not {shown(arguments[0])}"
                self._faults.add((path, 0), FaultCode.WRONG_ARGUMENTS, detail)
            if len(arguments) == 1:
                self._faults.add(path, FaultCode.WRONG_ARGUMENTS, "has no share")
        total = sum(self._share(share, (path, index + first)) for index, share in enumerate(arguments[first:]))
        if total > WEIGHT_SUM_MAX:
            self._faults.add(path, FaultCode.OUT_OF_RANGE, f"the weights add up to more than {WEIGHT_SUM_MAX}")

    def _share(self, share: Any, path: Path) -> int:
        """Check one share; its weight as far as it is a constant."""
        if self._faults.full:
            return 0
        if not isinstance(share, list) or not 1 <= len(share) <= 2:
            self._faults.add(path, FaultCode.WRONG_ARGUMENTS, "a share is [variant] or [variant, weight]")
            return 0
        self.check(share[0], (path, 0))
        weight = share[1] if len(share) == 2 else 1
        if is_rule(weight):
            self.check(weight, (path, 1))
            return 0
        if not isinstance(weight, int) or isinstance(weight, bool) or weight < 0:
            detail = f"a weight is an integer, 0 or more, or a rule; {shown(weight)} is none"
            self._faults.add((path, 1), FaultCode.OUT_OF_RANGE, detail)
            return 0
        return weight

    def check_expansion(self, nodes: int, path: Path) -> None:
        """Note where `nodes` values and all that they refer to are more than a flag may have."""
        evaluators = self._evaluators or {}
        for name, count in self.referred.items():
            if name in evaluators:
                nodes += count * measure(evaluators[name], DEPTH_MAX, FLAG_NODES_MAX, FLAG_SIZE_MAX).nodes
        if nodes > FLAG_NODES_MAX:
            detail = f"with its references it has more than {FLAG_NODES_MAX} values"
            self._faults.add(path, FaultCode.TOO_LARGE, detail)

    def check_decisions(self, rule: Any, variants: Mapping[str, Any], path: Path) -> None:
        """Note every constant that the rule may end in and that is no variant."""
        for place, result in self._decisions(rule, path):
            if self._faults.full:
                return
            if isinstance(result, list | dict):
                self._faults.add(
                    place, FaultCode.WRONG_TYPE, f"a rule ends in the name of a variant or null, not in {shown(result)}"
                )
            elif text(result) not in variants:
                self._faults.add(place, FaultCode.UNKNOWN_VARIANT, f"{shown(result)} is not among the variants")

    def _decisions(self, rule: Any, path: Path) -> Iterator[tuple[Path, Any]]:
        if not is_rule(rule):
            if rule is not None:
                yield path, rule
            return
        ((operator, arguments),) = rule.items()
        given, below = arguments_of(arguments), (path, operator)
        if operator in ("if", "?:") and len(given) > 1:
            for index in range(1, len(given), 2):
                yield from self._decisions(given[index], (below, index))
            if len(given) % 2:
                yield from self._decisions(given[-1], (below, len(given) - 1))
        elif operator == "fractional":
            for index, share in enumerate(given):
                if isinstance(share, list) and share:
                    yield from self._decisions(share[0], ((below, index), 0))
        elif operator == "$ref" and isinstance(arguments, str) and not self._shared:
            shared = (self._evaluators or {}).get(arguments)
            if is_rule(shared) and isinstance(shared, dict) and "$ref" not in shared:
                yield from ((path, result) for _, result in self._decisions(shared, None))

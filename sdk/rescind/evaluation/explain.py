"""`explain`: which rule decided a flag for a context, and why. For people: it compiles and walks the flag anew each time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from msgspec import UNSET, Struct

from rescind.evaluation.check import check
from rescind.evaluation.compiler import Compiler, Served, definition_of, failed, no_clock
from rescind.evaluation.errors import RuleError
from rescind.evaluation.explanation import FAULTS_SHOWN_MAX, Decided, Explanation, KillSeen, Rule, shown
from rescind.evaluation.faults import Path, pointer_of
from rescind.evaluation.frame import is_rule
from rescind.evaluation.interpreter import Data, Decision, Enough, Interpreter
from rescind.evaluation.kills import FlagSpec, Kill, in_scope, judged_order
from rescind.evaluation.resolution import Reason, Resolution
from rescind.evaluation.tracing import Trace

_NAME_MAX: Final = 128
_OWN: Final = "targeting"
_LAID: Final = "$prerequisites"


class FlagSet(Struct, frozen=True, kw_only=True):
    """What a flag is evaluated with: everything beside itself. `timestamp` is in seconds since 1970, None without a clock."""

    evaluators: Mapping[str, Any] = {}
    metadata: Mapping[str, Any] = {}
    generation: str = "v3"
    timestamp: Callable[[], int] = no_clock
    environment: str = ""
    revision: Any = None


def explain(key: str, flag: FlagSpec, context: Mapping[str, Any], within: FlagSet) -> Explanation:
    """The answer of the flag for the context, and how it came about. Never raises (P6).

    The answer is the compiled function's; the findings are those of a walk that comes to the same.
    """
    try:
        return _explained(key, flag, context, within)
    except Exception as fault:  # near the end of the stack, or a context that fails at whatever is done with it
        return answered(key, within, failed(fault, within.metadata), Decided.FAILED)


def answered(key: str, within: FlagSet, outcome: Resolution, decided: Decided, **more: Any) -> Explanation:
    """An explanation with this answer."""
    return Explanation(
        flag=str(key),
        environment=within.environment,
        revision=None if within.revision is None else str(within.revision),
        decided=decided,
        value=None if outcome.value is UNSET else outcome.value,
        variant=outcome.variant,
        reason=str(outcome.reason),
        error_code=outcome.error_code and str(outcome.error_code),
        error_details=outcome.error_details,
        **more,
    )


def _explained(key: str, flag: FlagSpec, context: Mapping[str, Any], within: FlagSet) -> Explanation:
    compiler = Compiler(within.evaluators, within.metadata, within.generation, within.timestamp)
    outcome = _asked(compiler.compile(key, flag), context, within)
    kills = [_seen(kill, context) for kill in judged_order(flag.kills)]
    definition = definition_of(flag)
    if any(kill.in_scope for kill in kills):
        return answered(key, within, outcome, Decided.KILL, kills=kills)
    if not compiler.is_readable(key, flag):
        faults = check(definition, evaluators=within.evaluators)[:FAULTS_SHOWN_MAX]
        return answered(key, within, outcome, Decided.UNREADABLE, kills=kills, faults=faults)
    if outcome.reason == Reason.DISABLED:
        return answered(key, within, outcome, Decided.DISABLED, kills=kills)
    if not definition.get("targeting"):
        decided = Decided.FAILED if outcome.error_code else Decided.NO_TARGETING
        return answered(key, within, outcome, decided, kills=kills)
    told = _targeted(key, definition["targeting"], getattr(flag, "laid", 0), context, within, outcome)
    return answered(key, within, outcome, kills=kills, **told)


def _asked(served: Served, context: Mapping[str, Any], within: FlagSet) -> Resolution:
    try:
        return served(context)
    except Exception as fault:
        return failed(fault, within.metadata)


def _seen(kill: Kill, context: Mapping[str, Any]) -> KillSeen:
    return KillSeen(
        rollback_id=getattr(kill, "rollback_id", None),
        off_variant=kill.off_variant,
        scope={name: shown(value) for name, value in kill.scope.items()},
        in_scope=in_scope(context, kill.scope.items()),
        absent=[name for name in kill.scope if context.get(name) is None],
    )


def _targeted(
    key: str, targeting: Any, laid: int, context: Mapping[str, Any], within: FlagSet, outcome: Resolution
) -> dict[str, Any]:
    """What a walk through the targeting says: through the `laid` steps of its prerequisites, then through what was written."""
    trace = Trace()
    place, walk, decision = _reached(key, parts_of(targeting, laid), context, within, trace)
    found = {"decided": _decided(outcome, decision, place), "findings": trace.findings, "truncated": trace.truncated}
    return {**found, "pointer": pointer_of(decision.path), "rule": _rule(walk)} if decision else found


def _reached(
    key: str, parts: Sequence[tuple[str, Any]], context: Mapping[str, Any], within: FlagSet, trace: Trace
) -> tuple[str, Interpreter, Decision | None]:
    """The part that decides: the last one, or one before it that comes to anything."""
    *before, (last, rule) = parts
    for place, part in before:
        walk = Interpreter(key, within.evaluators, within.generation, within.timestamp, trace)
        decision = walked(walk, trace, part, context, place)
        if decision is None or decision.value is not None:
            return place, walk, decision
    walk = Interpreter(key, within.evaluators, within.generation, within.timestamp, trace)
    return last, walk, walked(walk, trace, rule, context, last)


def parts_of(targeting: Any, laid: int) -> list[tuple[str, Any]]:
    """What is walked, and the place of each: the steps that prerequisites laid, then the targeting as it was written.

    >>> parts_of({"if": [{"var": "x"}, "off", {"fractional": [["on", 1]]}]}, 2)
    [('$prerequisites', {'if': [{'var': 'x'}, 'off']}), ('targeting', {'fractional': [['on', 1]]})]
    """
    steps = targeting.get("if") if isinstance(targeting, dict) else None
    if not laid or not isinstance(steps, list):
        return [(_OWN, targeting)]
    own = steps[laid:]
    return [(_LAID, {"if": steps[:laid]}), (_OWN, own[0] if len(own) == 1 else {"if": own} if own else None)]


def walked(walk: Interpreter, trace: Trace, targeting: Any, context: Mapping[str, Any], place: str = _OWN) -> Decision | None:
    """What the walk comes to; None where it fails, or takes more than an explanation may."""
    try:
        return walk.decide(targeting, Data(True, context), (None, place))
    except RuleError:
        return None
    except Enough:
        trace.truncated = True
        return None


def _decided(outcome: Resolution, decision: Decision | None, place: str) -> Decided:
    if outcome.error_code is not None:
        return Decided.FAILED
    if place == _LAID:
        return Decided.PREREQUISITE
    return Decided.DEFAULT if decision is not None and decision.value is None else Decided.RULE


def _rule(walk: Interpreter) -> Rule | None:
    chain = walk.chain
    if chain is None:
        return None
    if walk.branch % 2 == 0:  # the last value, or nothing at all
        place: Path = chain.place(walk.branch) if walk.branch < chain.count else chain.path
        return Rule(number=walk.branch // 2 + 1, pointer=pointer_of(place), name=None)
    test = walk.branch - 1
    return Rule(number=walk.branch // 2 + 1, pointer=pointer_of(chain.place(test)), name=name_in(chain.given[test]))


def name_in(test: Any) -> str | None:
    """A rule's name: a constant text that stands first among its conditions, or alone.

    >>> name_in({"and": ["beta countries", {"==": [{"var": "country"}, "DE"]}]})
    'beta countries'
    """
    if is_rule(test):
        operands = test.get("and")
        test = operands[0] if isinstance(operands, list) and operands else None
    return test if isinstance(test, str) and 0 < len(test) <= _NAME_MAX else None

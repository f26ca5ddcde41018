"""`Evaluator`: one immutable snapshot of a flag set, ready to be evaluated from any thread (P1, P2, P6).

An evaluation is one look-up and one call. Flags are compiled on their first use; `updated` gives the next snapshot and keeps
the compiled functions of every flag that did not change. Nothing here waits, locks, or raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from rescind.evaluation.compiler import Compiler, Served, failed, no_clock
from rescind.evaluation.errors import KeyMissingError
from rescind.evaluation.explain import FlagSet, answered, explain
from rescind.evaluation.explanation import Decided, Explanation
from rescind.evaluation.kills import FlagSpec
from rescind.evaluation.resolution import ErrorCode, Reason, Resolution, error, fit

_EMPTY: Final[Mapping[str, Any]] = {}


class Evaluator:
    """Evaluates the flags of one environment at one revision.

    >>> evaluator = Evaluator({"new-flow": flag})
    >>> evaluator.boolean("new-flow", False, {"targetingKey": "user-1"})
    True
    """

    __slots__ = (
        "_compiler",
        "_evaluators",
        "_flags",
        "_keyed",
        "_now",
        "_overdue",
        "_set_metadata",
        "environment",
        "generation",
        "metadata",
        "revision",
        "served",
    )

    def __init__(
        self,
        flags: Mapping[str, FlagSpec],
        evaluators: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        generation: str = "v3",
        environment: str = "",
        revision: Any = None,
        *,
        now: Callable[[], int] | None = None,
        overdue: Callable[[float], bool] | None = None,
    ) -> None:
        """`generation` is the environment's bucketing, "v2" or "v3".

        `now` gives `$flagd.timestamp`, in whole seconds since 1970: this package asks no clock of its own. Without it a rule
        that reads the time fails. `overdue(limit_seconds)` says whether flags with such a staleness limit may not be believed
        any more (P6); without it every limit holds.
        """
        self._flags: Mapping[str, FlagSpec] = dict(flags)
        self._evaluators = dict(evaluators or {})
        self._now = now
        self._overdue = overdue
        self.served: dict[str, Served] = {}
        """The flags compiled so far: (context) -> prepared outcome. For reading, where a call is too much."""
        self._keyed: dict[str, Served] = {}
        self.metadata = dict(metadata or {})
        self._set_metadata = MappingProxyType(self.metadata)
        self.generation = generation
        self.environment = environment
        self.revision = revision
        self._compiler = Compiler(self._evaluators, self.metadata, generation, now or no_clock, overdue=overdue)

    def updated(self, changed: Mapping[str, FlagSpec], removed: Iterable[str] = (), revision: Any = None) -> Evaluator:
        """The snapshot after a change: this one stays as it is. What did not change stays compiled."""
        flags, served, keyed = dict(self._flags), dict(self.served), dict(self._keyed)
        flags.update(changed)
        gone = set(removed)
        for key in gone:
            flags.pop(key, None)
        for key in gone.union(changed):
            served.pop(key, None)
            keyed.pop(key, None)
        shared = (self._evaluators, self.metadata, self.generation, self.environment)
        following = Evaluator({}, *shared, revision, now=self._now, overdue=self._overdue)
        following._flags, following.served, following._keyed = flags, served, keyed
        return following

    @property
    def flags(self) -> Mapping[str, FlagSpec]:
        """The flags as they were given, by key."""
        return self._flags

    def boolean(self, key: str, default: bool, context: Mapping[str, Any] | None = None) -> bool:
        """The flag's value, or `default`: the hot path of `evaluate(key, context, default, "boolean").value`."""
        try:
            value = self.served[key](context or _EMPTY).value
        except Exception:
            value = self.evaluate(key, context, default, "boolean").value
        return value if value is True or value is False else default

    def evaluate(self, key: str, context: Mapping[str, Any] | None, default: Any, kind: str = "any") -> Resolution:
        """Value, variant and reason of a flag for a context.

        `kind` is boolean, string, integer, float, object or any. Never raises (P6): the caller's default comes with reason
        ERROR and FLAG_NOT_FOUND, TYPE_MISMATCH or GENERAL; the off variant with ERROR and PARSE_ERROR where this version
        cannot read the definition.
        """
        try:
            served = self.served.get(key) or self._compiled(key)
            if context.__class__ is not dict and not isinstance(context, Mapping):
                context = _EMPTY
            outcome = served(context)
        except Exception as fault:
            outcome = self._failed(fault)
        return fit(outcome, default, kind)

    def outcome(self, key: str, context: Mapping[str, Any]) -> Resolution:
        """What `evaluate` would fit to its caller: the value UNSET where it is the caller's, shared and not to be changed.

        A prepared outcome is the same object every time, so that what is made of it can be kept. Never raises (P6).
        """
        try:
            return (self.served.get(key) or self._compiled(key))(context)
        except Exception as fault:
            return self._failed(fault)

    def outcome_without_key(self, key: str, context: Mapping[str, Any]) -> Resolution:
        """`outcome` for a context without a targeting key, to a caller who wants to know where a rule needed one.

        There it is an error, TARGETING_KEY_MISSING; `evaluate` has the split give null instead, as flagd's providers do.
        """
        try:
            return (self._keyed.get(key) or self._compiled_with_key(key))(context)
        except KeyMissingError as fault:
            return error(ErrorCode.TARGETING_KEY_MISSING, f"the rule needs a targeting key: {fault}", self._set_metadata)
        except Exception as fault:
            return self._failed(fault)

    def off(self, key: str, default: Any, kind: str = "any", reason: Reason = Reason.STALE) -> Resolution:
        """The flag's off variant without an evaluation, for whoever must not trust this snapshot (P3). Never raises."""
        try:
            flag = self._flags.get(key)
            outcome = self._not_found() if flag is None else self._compiler.off(flag, reason)
        except Exception as fault:
            outcome = self._failed(fault)
        return fit(outcome, default, kind)

    def explain(self, key: str, context: Mapping[str, Any] | None = None) -> Explanation:
        """Which rule decides the flag for this context, and why. Slow, for people; never raises (P6)."""
        flag = self._flags.get(key)
        within = self._within()
        if flag is None:
            return answered(key, within, self._not_found(), Decided.NOT_FOUND)
        explanation = explain(key, flag, context if isinstance(context, Mapping) else _EMPTY, within)
        limit = flag.max_staleness_seconds
        is_overdue = limit is not None and self._overdue is not None and self._overdue(limit)
        return self.off_explained(key) if is_overdue and explanation.decided != Decided.KILL else explanation

    def off_explained(self, key: str) -> Explanation:
        """Why a request that could not catch up gets the off variant (P3)."""
        outcome = self.off(key, None)
        return answered(key, self._within(), outcome, Decided.STALE if key in self._flags else Decided.NOT_FOUND)

    def _within(self) -> FlagSet:
        """What a flag is explained with. The clock is read once: answer and findings are of one instant."""
        return FlagSet(
            evaluators=self._evaluators,
            metadata=self._set_metadata,
            generation=self.generation,
            timestamp=no_clock if self._now is None else once(self._now),
            environment=self.environment,
            revision=self.revision,
        )

    def compile(self, keys: Iterable[str] | None = None, *, without_key: bool = False) -> None:
        """Compile flags ahead of their first use, for example those that a change brought, off the event loop.

        `without_key`: for `outcome_without_key`.
        """
        held, compiled = (self._keyed, self._compiled_with_key) if without_key else (self.served, self._compiled)
        for key in list(self._flags) if keys is None else keys:
            if key in self._flags and key not in held:
                compiled(key)

    def _compiled(self, key: str) -> Served:
        flag = self._flags.get(key)
        if flag is None:
            return lambda _: self._not_found()
        served = self.served[key] = self._compiler.compile(key, flag)
        return served

    def _compiled_with_key(self, key: str) -> Served:
        flag = self._flags.get(key)
        if flag is None:
            return lambda _: self._not_found()
        shared = (self._evaluators, self.metadata, self.generation, self._now or no_clock)
        compiler = Compiler(*shared, overdue=self._overdue, needs_key=True)
        served = self._keyed[key] = compiler.compile(key, flag)
        return served

    def _not_found(self) -> Resolution:
        return error(ErrorCode.FLAG_NOT_FOUND, "no such flag", self._set_metadata)

    def _failed(self, fault: Exception) -> Resolution:
        return failed(fault, self._set_metadata)


def once(now: Callable[[], int]) -> Callable[[], int]:
    """The clock as it is when it is first read."""
    return lru_cache(maxsize=1)(now)

"""Evaluation as services call it: it never raises and never waits for the network (P6).

One look at the current evaluator, one call, one note of what was asked: effects take the variant that their own task or
request was served.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from msgspec import UNSET

from rescind.context import Evaluates, Memory
from rescind.core import Core
from rescind.effects import Ask, EffectContext, Saga, saga_reference
from rescind.evaluation import Decided, Explanation, FlagSet
from rescind.evaluation.explain import answered
from rescind.evaluation.resolution import ErrorCode, Kind, Resolution, error, fit
from rescind.face import Face
from rescind.forks import OWN, follow, page
from rescind.notify import Callback
from rescind.status import Status, status_of

logger = logging.getLogger("rescind")

Context = Mapping[str, Any]
Number = float
_EMPTY: Final[Context] = {}


class Evaluations:
    """What the synchronous and the asynchronous client have in common."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.is_pending = True
        """Its work has not begun in this process: the next use begins it."""
        follow(self)
        self._current = core.current
        self._pin = core.context.pin.get
        self._memory = core.context.memory.get
        self._remember = core.context.remember
        self._keep = core.context.memory.set
        self._counts = core.counts

    def boolean(self, key: str, default: bool, context: Context | None = None) -> bool:
        """The flag's value for this context; the default for a missing flag, a wrong type, or no snapshot at all."""
        try:
            pin = self._pin()
            evaluator: Evaluates | None = self._current.evaluator if pin is None else pin.evaluator
            if evaluator is None or (pin is not None and key in self._current.unheld):
                evaluator = self._choose(key)
                if evaluator is None:
                    self._not_ready(key)
                    return default
            memory = self._memory()
            if memory is None or memory.context is not context or memory.evaluator is not evaluator or memory.key != key:
                if self.is_pending or page[0] != OWN:
                    self.ensure_started()
                if memory is None or memory.key != key or (pin is not None and key not in pin.evaluated):
                    self._remember(key, evaluator, context, pin)
                else:  # the usual case of `remember`, without a call
                    memory = Memory(key, evaluator, context, memory.before, memory.depth)
                    self._keep(memory)
                    if pin is not None:
                        pin.evaluated[key] = memory
            try:
                outcome = evaluator.served[key](_EMPTY if context is None else context)
                value: object = outcome.value
                for _ in outcome.tally:  # its first step counts it; there is none where `attach` was never called for it
                    return value if value is True or value is False else default
                if value is True or value is False or value is UNSET:
                    self._counts.attach(key, outcome)
                    return default if value is UNSET else value
            except Exception:  # not compiled yet, no such flag, or a rule that fails: all of that is `evaluate`'s to say
                return self._slowly(evaluator, key, default, context)
            return self._slowly(evaluator, key, default, context)
        except Exception:  # P6: whatever is wrong, the service goes on
            logger.exception("evaluating %s failed", key)
            return default

    def string(self, key: str, default: str, context: Context | None = None) -> str:
        """As `boolean`, for strings."""
        value: str = self._details(key, default, context, "string").value
        return value

    def integer(self, key: str, default: int, context: Context | None = None) -> int:
        """As `boolean`, for whole numbers."""
        value: int = self._details(key, default, context, "integer").value
        return value

    def float(self, key: str, default: Number, context: Context | None = None) -> Number:
        """As `boolean`, for numbers."""
        value: Number = self._details(key, default, context, "float").value
        return value

    def object(self, key: str, default: Any, context: Context | None = None) -> Any:
        """As `boolean`, for objects and lists; a copy of its own."""
        return self._details(key, default, context, "object").value

    def boolean_details(self, key: str, default: bool, context: Context | None = None) -> Resolution:
        """Value, variant, reason, and what went wrong if anything did."""
        return self._details(key, default, context, "boolean")

    def string_details(self, key: str, default: str, context: Context | None = None) -> Resolution:
        """Value, variant, reason, and what went wrong if anything did."""
        return self._details(key, default, context, "string")

    def integer_details(self, key: str, default: int, context: Context | None = None) -> Resolution:
        """Value, variant, reason, and what went wrong if anything did."""
        return self._details(key, default, context, "integer")

    def float_details(self, key: str, default: Number, context: Context | None = None) -> Resolution:
        """Value, variant, reason, and what went wrong if anything did."""
        return self._details(key, default, context, "float")

    def object_details(self, key: str, default: Any, context: Context | None = None) -> Resolution:
        """Value, variant, reason, and what went wrong if anything did."""
        return self._details(key, default, context, "object")

    def explain(self, key: str, context: Context | None = None) -> Explanation:
        """Which rule decides the flag for this context, and why; the same answer as an evaluation. Slow, for people.

        Nothing is sent, counted or remembered of it. What it shows of the context is the caller's own.
        """
        try:
            evaluator = self._choose(key)
            if evaluator is not None:
                return evaluator.explain(key, context)
            outcome, decided = error(ErrorCode.PROVIDER_NOT_READY, "there is no snapshot yet"), Decided.NO_SNAPSHOT
        except Exception as failure:  # P6: whatever is wrong, the service goes on
            logger.exception("explaining %s failed", key)
            outcome, decided = error(ErrorCode.GENERAL, str(failure)), Decided.FAILED
        return answered(key, FlagSet(environment=self.core.api.environment or ""), outcome, decided)

    def on_change(self, key: str, callback: Callback) -> Callable[[], None]:
        """Call `callback(FlagChange)` after each change of the flag ("*": of any); returns what ends the subscription.

        It runs on the client's loop and must not block it; it may be a coroutine function.
        """
        self.ensure_started()
        return self.core.notifier.subscribe(key, callback)

    def declare(self, *keys: str) -> None:
        """Say that this service's code supports these flags: at any time, as often as you like. It does no I/O, starts nothing.

        A flag with `requires_declaration` is not turned on before every live instance of its services has said so. Raises
        `ConfigurationError` for what is no key of a flag, and for more than 256 of them.
        """
        self.core.declarations.add(*keys)

    def track(self, flag: str, *, ok: bool, duration_ms: Number | None = None, variant: str | None = None) -> None:
        """What a variant of the flag led to: that it went well or not, and how long it took. Never waits, never raises.

        It counts for the variant that this task's or request's own evaluation of the flag gave; for none that is known where
        there was none. `variant` names another one. The server gets sums, by windows of ten seconds.
        """
        try:
            self.core.counts.track(flag, self._served(flag) if variant is None else variant, bool(ok), duration_ms)
        except Exception:  # as an evaluation: whatever is wrong, the service goes on
            logger.exception("tracking %s failed", flag)

    @contextmanager
    def tracked(self, flag: str) -> Iterator[None]:
        """Around a body: `track` at its end with the time that it took; an exception is a failure. One cancelled is neither."""
        clock = self.core.clock
        begun = clock.monotonic()
        try:
            yield
        except Exception:
            self.track(flag, ok=False, duration_ms=(clock.monotonic() - begun) * 1000)
            raise
        self.track(flag, ok=True, duration_ms=(clock.monotonic() - begun) * 1000)

    def status(self) -> Status:
        """Ready or not, from where, at which revision, how old, and what is wrong."""
        if page[0] != OWN:
            self.ensure_started()
        return status_of(self.core)

    def ensure_started(self) -> None:
        """Start the client's work, once. Every use does it."""
        raise NotImplementedError

    def forked(self) -> None:
        """This is a child of the process that made the client."""
        raise NotImplementedError

    def _served(self, flag: str) -> str:
        """The variant of the task's or the request's own evaluation, empty where there is none."""
        if self.is_pending or page[0] != OWN:
            self.ensure_started()
        memory = self.core.context.recall(flag)
        return "" if memory is None else memory.evaluator.evaluate(flag, memory.context, None, "any").variant or ""

    def _choose(self, key: str) -> Evaluates | None:
        self.ensure_started()
        return self.core.permits.choose(key)

    def _slowly(self, evaluator: Evaluates, key: str, default: bool, context: Context | None) -> bool:
        outcome = evaluator.evaluate(key, context, default, "boolean")
        self._counts.count(key, outcome)
        value: bool = outcome.value
        return value

    def _not_ready(self, key: str) -> Resolution:
        outcome = error(ErrorCode.PROVIDER_NOT_READY, "there is no snapshot yet")
        self._counts.count(key, outcome)
        return outcome

    def _details(self, key: str, default: Any, context: Context | None, kind: Kind) -> Resolution:
        try:
            pin = self._pin()
            evaluator = self._choose(key)
            if evaluator is None:
                return fit(self._not_ready(key), default, kind)
            self._remember(key, evaluator, context, pin)
            outcome = evaluator.evaluate(key, context, default, kind)
            self._counts.count(key, outcome)
            return outcome
        except Exception as failure:  # P6: whatever is wrong, the service goes on
            logger.exception("evaluating %s failed", key)
            return fit(error(ErrorCode.GENERAL, str(failure)), default, kind)


def effect_context(
    face: Face,
    kind: str,
    *,
    flag: str,
    key: str,
    payload: Mapping[str, Any],
    saga: Saga | None = None,
    step: str | None = None,
    kind_version: str | None = None,
    subject: str | None = None,
    attributes: Mapping[str, Any] | None = None,
    variant: str | None = None,
    lease_seconds: float | None = None,
) -> EffectContext:
    """The context manager that `client.effect(...)` returns."""
    ask = Ask(
        kind=kind,
        flag=flag,
        key=key,
        payload=dict(payload),
        saga=saga_reference(saga),
        step=step,
        kind_version=kind_version,
        subject=subject,
        attributes=None if attributes is None else dict(attributes),
        variant=variant,
        lease_seconds=lease_seconds,
    )
    return EffectContext(face, ask)

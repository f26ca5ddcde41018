"""A product team's definition: a named, versioned list of steps, each with what undoes it (P15).

    order = rescind.Saga("order", version="1", flag="checkout.new-flow")

    @order.step(kind="payment.capture", key="capture:{order_id}", currency_code="USD")
    async def capture(order_id: str, amount_cents: int) -> dict: ...

    @capture.compensation                 # or compensation=rescind.Refund(connection="stripe")
    async def refund(effect: rescind.Effect) -> None: ...

    @capture.look_up                      # what became of it, where its outcome is not known
    async def seen(effect: rescind.Effect) -> rescind.Done: ...

    order.approval("large", deadline_seconds=86_400)    # waited for before the step that is declared next

`saga.document()` is what the server keeps; it is registered when a client with `sagas=[order]` starts.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Generic, Literal, ParamSpec, TypedDict, TypeVar, Unpack

import msgspec

from rescind.errors import ConfigurationError
from rescind.executors import Compensation, Worker
from rescind.wire import SagaReference

P = ParamSpec("P")
R = TypeVar("R")
Handler = TypeVar("Handler", bound=Callable[..., Any])


EFFECT_NAMES = {"Effect", "rescind.Effect"}


class ActOptions(TypedDict, total=False):
    """How a step is done by `client.run` and `client.start`; left out, the server's defaults hold."""

    guarantee: str
    """at_least_once, at_most_once"""
    in_doubt: str
    """again (under the same key), look_up (what `@step.look_up` means), assume_done, wait (P16)"""
    retry: dict[str, float]
    """first_seconds, factor, cap_seconds, attempts_max, age_seconds"""
    timeout_seconds: float
    """the function is cancelled after it, and is then in doubt"""
    heartbeat_timeout_seconds: float
    """so too when it has not called `effect.heartbeat()` for so long"""
    pace: dict[str, float]
    """per_second, concurrency_max: per kind and connection, over all workers (P17)"""


class StepOptions(TypedDict, total=False):
    """What a step may say beside its kind and key; left out, the server's defaults hold."""

    arguments: list[str]
    """what its function is given, by name: results of earlier steps, what events brought, else values of the input. Left out:
    the parameters that it has no default for"""
    group: str
    """neighbours of one group run beside each other"""
    act: ActOptions
    guarantee: str
    """of the compensation: at_least_once, at_most_once"""
    notice: Compensation
    """of an irreversible step: who is told"""
    notice_approved: bool
    in_doubt: str
    """look_up, assume_done, wait (P16)"""
    settle_seconds: float
    provider_window_seconds: float
    amount: str
    """the payload field with the amount in minor units"""
    currency: str
    """the payload field with the currency, or for all alike `currency_code`"""
    currency_code: str
    independent: bool
    lease_seconds: float
    retry: dict[str, float]
    timeout_seconds: float
    heartbeat_timeout_seconds: float
    """of the handler that undoes it: cancelled when it has not called `effect.heartbeat()` for so long, and then in doubt"""
    pace: dict[str, float]
    proof_of_failure: list[type[BaseException] | str]
    """errors that prove that nothing was done"""


class Step(Generic[P, R]):
    """One step. Calling it calls the function that it decorates."""

    def __init__(
        self,
        function: Callable[P, R] | None,
        *,
        name: str,
        kind: str,
        key: str,
        step_class: str,
        compensation: Compensation | None,
        options: StepOptions,
    ) -> None:
        self.name = name
        self.kind = kind
        self.key = key
        self.step_class = step_class
        self.handler: Callable[..., Any] | None = None
        self.looker: Callable[..., Any] | None = None
        self.proofs = frozenset(error_name(error) for error in options.get("proof_of_failure", []))
        self.lease_seconds = options.get("lease_seconds")
        self._function = function
        self._declared = compensation
        self._options = options
        self.arguments = options["arguments"] if "arguments" in options else arguments_of(function)
        if function is not None:
            functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the step's own function, nothing else."""
        if self._function is None:
            raise ConfigurationError(f"step {self.name} was declared without a function")
        return self._function(*args, **kwargs)

    def compensation(self, handler: Handler) -> Handler:
        """Decorate what undoes one effect of this step, in a worker; async or sync. Its return value is kept as proof."""
        if self._declared is not None and not isinstance(self._declared, Worker):
            raise ConfigurationError(f"step {self.name} is undone by a declared executor already")
        self.handler = handler
        return handler

    def look_up(self, looker: Handler) -> Handler:
        """Decorate what says, in a worker, what became of an effect in doubt: `rescind.sightings` says how; async or sync."""
        said = self._options.get("act", {}).get("in_doubt", "look_up")
        if said != "look_up":
            raise ConfigurationError(f"step {self.name} says act.in_doubt {said!r}: what is looked up is not decided so")
        self.looker = looker
        return looker

    @property
    def function(self) -> Callable[P, R] | None:
        """What acts; None where the service does the effect itself."""
        return self._function

    @property
    def merges(self) -> bool:
        """Whether one call of the handler undoes all effects of a subject: it is given a list of them."""
        return isinstance(self._declared, Worker) and self._declared.dedupe_by is not None

    def document(self) -> dict[str, Any]:
        """The step as the server reads it."""
        compensation = self._declared or (Worker() if self.handler else None)
        document: dict[str, Any] = {"name": self.name, "kind": self.kind, "key": self.key, "class": self.step_class}
        if compensation is not None:
            document["compensation"] = msgspec.to_builtins(compensation)
        options: dict[str, Any] = {**self._options}
        options.pop("arguments", None)
        if self.arguments:
            options["arguments"] = self.arguments
        if self.looker is not None:
            options["act"] = {**options.get("act", {}), "in_doubt": "look_up"}
        if self.proofs:
            options["proof_of_failure"] = sorted(self.proofs)
        document.update(msgspec.to_builtins(options))
        return document


class Saga:
    """The definition. Steps stand in the order in which they are declared."""

    def __init__(
        self,
        name: str,
        *,
        version: str,
        flag: str,
        description: str = "",
        approve_above: dict[str, int] | None = None,
        ordered_by_subject: bool | str = False,
        retention_days: int | None = None,
        on_kill: str | None = None,
    ) -> None:
        """`approve_above`: in minor units per currency; what is more is given back only once a person agrees.

        `ordered_by_subject`: instances of one subject run one after another; a name puts them in one line with that saga's.
        `retention_days`: for how long what was done is kept after an instance's end; left out, the server's own holds.
        `on_kill`: of running instances when the flag is killed: compensate_now (the server's default), or
        finish_then_compensate.
        """
        self.name = name
        self.version = version
        self.flag = flag
        self.description = description
        self.approve_above = approve_above
        self.ordered_by_subject = ordered_by_subject
        self.retention_days = retention_days
        self.on_kill = on_kill
        self.steps: dict[str, Step[..., Any]] = {}
        self._waits: list[dict[str, Any]] = []

    def step(
        self,
        *,
        kind: str,
        key: str,
        name: str | None = None,
        step_class: str = "compensatable",
        compensation: Compensation | None = None,
        **options: Unpack[StepOptions],
    ) -> Callable[[Callable[P, R]], Step[P, R]]:
        """Decorate a step's function. `key` is a template over its arguments; the name is the function's, unless told."""

        def declare(function: Callable[P, R]) -> Step[P, R]:
            step = Step(
                function,
                name=name or function.__name__,
                kind=kind,
                key=key,
                step_class=step_class,
                compensation=compensation,
                options=options,
            )
            self._add(step)
            return step

        return declare

    def declare(
        self,
        name: str,
        *,
        kind: str,
        key: str,
        step_class: str = "compensatable",
        compensation: Compensation | None = None,
        **options: Unpack[StepOptions],
    ) -> Step[..., Any]:
        """A step without a function: for services that do the effect themselves under `client.effect(...)`."""
        step: Step[..., Any] = Step(
            None, name=name, kind=kind, key=key, step_class=step_class, compensation=compensation, options=options
        )
        self._add(step)
        return step

    def delay(self, name: str, *, seconds: float) -> None:
        """Wait so long before the step that is declared next, and before all of its group."""
        self._wait(name, delay_seconds=seconds)

    def event(
        self, name: str, *, deadline_seconds: float | None = None, on_deadline: Literal["undo", "go_on"] = "undo"
    ) -> None:
        """Wait until this event is told before the step that is declared next. What it brings is given to that step and
        to those after it, as the parameter of its name; None where it was skipped or its deadline passed."""
        self._wait(name, event=True, deadline_seconds=deadline_seconds, on_deadline=on_deadline)

    def approval(
        self, name: str, *, deadline_seconds: float | None = None, on_deadline: Literal["undo", "go_on"] = "undo"
    ) -> None:
        """Wait until a person agrees before the step that is declared next; one who refuses turns the instance back."""
        self._wait(name, approval=True, deadline_seconds=deadline_seconds, on_deadline=on_deadline)

    def instance(self, id: str) -> SagaReference:  # noqa: A002 - the wire's own word
        """One run of this saga, as `client.effect(saga=...)` takes it."""
        return SagaReference(name=self.name, version=self.version, id=id)

    def proofs(self, step: str | None) -> frozenset[str]:
        """Names of the errors that prove that this step did nothing."""
        found = self.steps.get(step or "")
        return found.proofs if found else frozenset()

    def lease_seconds(self, step: str) -> float | None:
        """How long an effect of this step may take, where the step says it."""
        found = self.steps.get(step)
        return found.lease_seconds if found else None

    def handlers(self) -> dict[str, Step[..., Any]]:
        """The steps that a worker undoes."""
        return {name: step for name, step in self.steps.items() if step.handler is not None}

    def lookers(self) -> dict[str, Step[..., Any]]:
        """The steps whose outcome a worker looks up."""
        return {name: step for name, step in self.steps.items() if step.looker is not None}

    def document(self) -> dict[str, Any]:
        """The definition as `PUT /sagas/{name}/versions/{version}` takes it."""
        document: dict[str, Any] = {
            "saga": self.name,
            "version": self.version,
            "flag": self.flag,
            "steps": [step.document() for step in self.steps.values()],
        }
        if self._waits:
            document["waits"] = [self._placed(wait) for wait in self._waits]
        if self.approve_above:
            document["approve_above"] = self.approve_above
        if self.ordered_by_subject:
            document["ordered_by_subject"] = self.ordered_by_subject
        if self.retention_days is not None:
            document["retention_days"] = self.retention_days
        if self.on_kill:
            document["on_kill"] = self.on_kill
        return document | ({"description": self.description} if self.description else {})

    def _add(self, step: Step[..., Any]) -> None:
        if step.name in self.steps:
            raise ConfigurationError(f"saga {self.name} has a step {step.name!r} already")
        for wait in self._waits:
            wait.setdefault("before", step.name)
        self.steps[step.name] = step

    def _wait(self, name: str, **said: Any) -> None:
        if said.get("on_deadline") == "undo":
            del said["on_deadline"]
        self._waits.append({"name": name, **{field: value for field, value in said.items() if value is not None}})

    def _placed(self, wait: dict[str, Any]) -> dict[str, Any]:
        if "before" not in wait:
            raise ConfigurationError(f"saga {self.name} waits for {wait['name']!r}, and no step comes after it")
        return dict(wait)


def error_name(error: type[BaseException] | str) -> str:
    """The name by which an error is listed as proof."""
    return error if isinstance(error, str) else error.__name__


def arguments_of(function: Callable[..., Any] | None) -> list[str]:
    """The parameters that a function has to be given by name, the effect itself left out.

    >>> def capture(order_id: str, effect: rescind.Effect, *, note: str = "") -> None: ...
    >>> arguments_of(capture)
    ['order_id']
    """
    if function is None:
        return []
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind in named and parameter.default is inspect.Parameter.empty and not is_effect(parameter.annotation)
    ]


def is_effect(annotation: Any) -> bool:
    """Whether a parameter annotated so is given the effect: as `rescind.Effect`, or as its text."""
    return annotation in EFFECT_NAMES if isinstance(annotation, str) else getattr(annotation, "__name__", "") == "Effect"


def without_arguments(document: dict[str, Any]) -> dict[str, Any]:
    """The document for a server of a release that knows no `arguments`."""
    steps = [{name: value for name, value in step.items() if name != "arguments"} for step in document["steps"]]
    return {**document, "steps": steps}


def is_within(written: Any, kept: Any) -> bool:
    """Whether what was kept says everything that was written; it may say more, where defaults were left out.

    >>> is_within({"a": [{"b": 1}]}, {"a": [{"b": 1, "c": 2}]}), is_within({"a": 1}, {"a": 2})
    (True, False)
    """
    if isinstance(written, dict):
        return isinstance(kept, dict) and all(name in kept and is_within(value, kept[name]) for name, value in written.items())
    if isinstance(written, list):
        return isinstance(kept, list) and len(written) == len(kept) and all(map(is_within, written, kept))
    return bool(written == kept)

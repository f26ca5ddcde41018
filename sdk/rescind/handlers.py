"""What a worker can carry out: the functions of its sagas' steps, the handlers that undo them, and the look-ups of either.

Versions of one saga that have the same steps are served by one claim, others by one each: a claim names versions and steps
apart, so only in that way is no task handed out that nobody here can carry out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from rescind.effects import Effect
from rescind.errors import ConfigurationError
from rescind.saga import Saga, Step, is_effect


class Act(Struct, frozen=True):
    """A step's function, and the parameter that is given the effect, if one asks for it."""

    step: Step[..., Any]
    function: Callable[..., Any]
    parameter: str | None

    def arguments(self, effect: Effect) -> dict[str, Any]:
        """What the function is called with: the effect's payload, by name."""
        return {**effect.payload, **({self.parameter: effect} if self.parameter else {})}


class Handlers(Struct, frozen=True, kw_only=True):
    """Of versions of one saga that have the same steps."""

    saga: str
    sagas: Mapping[str, Saga]
    """by version"""
    acts: Mapping[tuple[str, str], Act]
    """by version and step"""
    undos: Mapping[tuple[str, str], Step[..., Any]]
    looks: Mapping[tuple[str, str], Step[..., Any]] = {}

    @property
    def act_names(self) -> list[str]:
        """The steps that can be acted."""
        return sorted({step for _, step in self.acts})

    @property
    def undo_names(self) -> list[str]:
        """The steps that can be undone."""
        return sorted({step for _, step in self.undos})

    @property
    def look_names(self) -> list[str]:
        """The steps whose outcome can be looked up."""
        return sorted({step for _, step in self.looks})


def handlers_of(sagas: Sequence[Saga]) -> list[Handlers]:
    """One per saga and set of steps. Raises `ConfigurationError` where a saga has none, or a version comes twice."""
    groups: dict[tuple[str, frozenset[str], frozenset[str], frozenset[str]], dict[str, Saga]] = {}
    for saga in sagas:
        acts, undos, looks = frozenset(acts_of(saga)), frozenset(saga.handlers()), frozenset(saga.lookers())
        if not acts and not undos and not looks:
            raise ConfigurationError(f"saga {saga.name} has no step with a function or a handler: a worker has nothing to do")
        group = groups.setdefault((saga.name, acts, undos, looks), {})
        if saga.version in group:
            raise ConfigurationError(f"saga {saga.name} {saga.version} is given twice")
        group[saga.version] = saga
    return [grouped(name, versions) for (name, *_), versions in groups.items()]


def grouped(name: str, versions: Mapping[str, Saga]) -> Handlers:
    """The handlers of these versions together."""
    acts = {(version, step): act for version, saga in versions.items() for step, act in acts_of(saga).items()}
    undos = {(version, step): found for version, saga in versions.items() for step, found in saga.handlers().items()}
    looks = {(version, step): found for version, saga in versions.items() for step, found in saga.lookers().items()}
    return Handlers(saga=name, sagas=versions, acts=acts, undos=undos, looks=looks)


def acts_of(saga: Saga) -> dict[str, Act]:
    """The steps that have a function."""
    functions = ((name, step, step.function) for name, step in saga.steps.items())
    return {name: Act(step, function, effect_parameter(function)) for name, step, function in functions if function is not None}


def effect_parameter(function: Callable[..., Any]) -> str | None:
    """The parameter that is annotated as `rescind.Effect`, if there is one.

    >>> def step(order_id: str, effect: Effect) -> None: ...
    >>> effect_parameter(step)
    'effect'
    """
    for name, parameter in inspect.signature(function).parameters.items():
        if is_effect(parameter.annotation):
            return name
    return None

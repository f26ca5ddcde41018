"""What a step is given, by name: its effect's payload (P10). Results of earlier steps, what events brought that were waited for
before it, and values of the saga's input."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from sagas.definitions import SagaDefinition, StepDefinition


class Missing(Exception):  # noqa: N818 - what it is
    """A value that a step is to be given is not there."""


def given(
    definition: SagaDefinition,
    step: StepDefinition,
    values: Mapping[str, Any],
    results: Mapping[str, Any],
    events: Mapping[str, Any],
) -> dict[str, Any]:
    """The arguments of a step by name. An earlier step that a person skipped gave nothing back: null; nor did an event that was
    skipped, or whose deadline passed."""
    names = [one.name for one in definition.steps]
    earlier = set(names[: names.index(step.name)])
    sources = [(earlier, results), (definition.events_before(step), events), (set(step.arguments), values)]
    return {name: next(source for known, source in sources if name in known).get(name) for name in step.arguments}


def key_of(step: StepDefinition, values: Mapping[str, Any], arguments: Mapping[str, Any]) -> str:
    """The step's idempotency key: its template filled from the arguments, else from the input. Raises `Missing`."""
    names = [name for _, name, _, _ in string.Formatter().parse(step.key) if name is not None]
    filled: dict[str, str] = {}
    for name in names:
        value = arguments.get(name, values.get(name))
        if value is None or isinstance(value, dict | list):
            raise Missing(f"its key needs {name!r}, a text or a number")
        filled[name] = str(value)
    return step.key.format(**filled)


def wanted(definition: SagaDefinition) -> dict[str, str]:
    """The names that the input has to hold, each with the step that asks for it first."""
    earlier: set[str] = set()
    names: dict[str, str] = {}
    for step in definition.steps:
        keyed = [name for _, name, _, _ in string.Formatter().parse(step.key) if name is not None]
        brought = definition.events_before(step) & set(step.arguments)
        for name in [*step.arguments, *keyed]:
            if name not in earlier | brought:
                names.setdefault(name, step.name)
        earlier.add(step.name)
    return names

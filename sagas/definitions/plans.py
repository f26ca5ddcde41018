"""A definition as the saga machine reads it. Pure."""

from __future__ import annotations

from sagas.core.instances import Plan, StepTerms, WaitTerms
from sagas.definitions.document import SagaDefinition, StepDefinition, Wait


def plan_of(definition: SagaDefinition) -> Plan:
    """The plan of a definition that was found sound."""
    return Plan(steps=tuple(map(_step, definition.steps)), waits=tuple(map(_wait, definition.waits)))


def _step(step: StepDefinition) -> StepTerms:
    act = step.act
    assert act.in_doubt is not None, "filled when it was made"
    return StepTerms(
        name=step.name,
        kind=step.kind,
        step_class=step.step_class,
        group=step.group,
        act_guarantee=act.guarantee,
        act_in_doubt=act.in_doubt,
        first_seconds=act.retry.first_seconds,
        factor=act.retry.factor,
        cap_seconds=act.retry.cap_seconds,
        attempts_max=act.retry.attempts_max,
        age_seconds=act.retry.age_seconds,
        window_seconds=step.provider_window_seconds,
    )


def _wait(wait: Wait) -> WaitTerms:
    return WaitTerms(
        name=wait.name,
        before=wait.before,
        what=wait.whats[0],
        seconds=wait.delay_seconds,
        deadline_seconds=wait.deadline_seconds,
        on_deadline=wait.on_deadline,
    )

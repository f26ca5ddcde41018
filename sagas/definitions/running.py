"""Refuses what cannot be run: impossible orders and groups, names that stand for nothing, waits before no step. Pure.

What is known and not offered yet is refused by name, never stored and passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rescind.wire import Fault

from sagas.definitions.document import Refund, Retry, SagaDefinition, StepDefinition, Wait

NOT_OFFERED = "not_offered"


def order(steps: Sequence[StepDefinition]) -> Iterator[Fault]:
    """Compensatable steps, then at most one pivot, then what must go forward; irreversible ones anywhere."""
    pivots = [index for index, step in enumerate(steps) if step.step_class == "pivot"]
    for index in pivots[1:]:
        yield Fault(pointer=f"/steps/{index}/class", detail=f"step {pivots[0]} is the pivot already", code="second_pivot")
    for index, step in enumerate(steps):
        past = bool(pivots) and index > pivots[0]
        if step.step_class == "compensatable" and past:
            yield Fault(
                pointer=f"/steps/{index}/class", detail="after the pivot a step is retriable or irreversible", code="order"
            )
        if step.step_class == "retriable" and not past:
            yield Fault(pointer=f"/steps/{index}/class", detail="a retriable step comes after a pivot", code="order")


def groups(steps: Sequence[StepDefinition]) -> Iterator[Fault]:
    """Those of one group are neighbours, and a pivot stands alone: what runs beside it could not be turned back."""
    last: dict[str, int] = {}
    for index, step in enumerate(steps):
        at, group = f"/steps/{index}/group", step.group
        if group is None:
            continue
        if last.get(group, index - 1) != index - 1:
            detail = f"the group ended with step {last[group]}: steps that run beside each other are neighbours"
            yield Fault(pointer=at, detail=detail, code="group_apart")
        last[group] = index
        if step.step_class == "pivot" and sum(other.group == group for other in steps) > 1:
            detail = "a pivot runs alone: what ran beside it could neither go forward nor be turned back"
            yield Fault(pointer=at, detail=detail, code="pivot_in_group")


def names(saga: SagaDefinition) -> Iterator[Fault]:
    """Arguments name inputs, results of steps that are done by then, and events that were told; a step's own name is an
    input's."""
    steps, events = saga.steps, {wait.name for wait in saga.waits if wait.event}
    for index, step in enumerate(steps):
        unheard = events - saga.events_before(step)
        later = {other.name for other in steps[index + 1 :]}
        beside = {other.name for other in steps if step.group is not None and other.group == step.group}
        for number, name in enumerate(step.arguments):
            at = f"/steps/{index}/arguments/{number}"
            if name in (later | beside) - {step.name}:
                yield Fault(pointer=at, detail=f"step {name!r} is not done before this one", code="not_before")
            if name in unheard:
                yield Fault(pointer=at, detail=f"event {name!r} is not waited for before this step", code="not_before")
            if not name.isidentifier():
                yield Fault(pointer=at, detail=f"{name!r} cannot be the name of an argument", code="name")
            if name in step.arguments[:number]:
                yield Fault(pointer=at, detail=f"{name!r} stands there twice", code="duplicate")


def waits(saga: SagaDefinition) -> Iterator[Fault]:
    """Each is for one thing, stands before a step that there is, and can mean what it says."""
    places = {step.name: index for index, step in reversed(list(enumerate(saga.steps)))}
    pivot = next((index for index, step in enumerate(saga.steps) if step.step_class == "pivot"), len(saga.steps))
    seen: dict[str, int] = {}
    for index, wait in enumerate(saga.waits):
        at = f"/waits/{index}"
        if wait.name in places:
            yield Fault(pointer=f"{at}/name", detail=f"{wait.name!r} is a step", code="duplicate")
        first = seen.setdefault(wait.name, index)
        if first != index:
            yield Fault(pointer=f"{at}/name", detail=f"{wait.name!r} is already wait {first}", code="duplicate")
        if wait.before not in places:
            yield Fault(pointer=f"{at}/before", detail=f"there is no step {wait.before!r}", code="unknown_step")
        yield from _wait(wait, at, is_past=places.get(wait.before, -1) > pivot)


def doing(step: StepDefinition, at: str) -> Iterator[Fault]:
    """How a step is done: what its guarantee allows, and what is offered."""
    act = step.act
    if act.guarantee == "at_most_once" and act.in_doubt == "again":
        detail = "what is done at most once is not begun again: wait, look_up or assume_done"
        yield Fault(pointer=f"{at}/in_doubt", detail=detail, code="guarantee")
    if act.in_doubt == "assume_done" and isinstance(step.compensation, Refund):
        detail = "what moves money is not assumed done: again, or wait for a person to say"
        yield Fault(pointer=f"{at}/in_doubt", detail=detail, code="not_harmless")
    yield from retries(act.retry, f"{at}/retry")


def retries(retry: Retry, at: str) -> Iterator[Fault]:
    """Numbers that contradict each other."""
    if retry.cap_seconds < retry.first_seconds:
        yield Fault(pointer=f"{at}/cap_seconds", detail="is below first_seconds", code="range")


def not_offered(saga: SagaDefinition) -> Iterator[Fault]:
    """What a saga can say and nothing obeys yet."""
    if saga.on_kill in ("finish", "ignore"):
        detail = "is not offered yet, a kill undoes all that it takes: compensate_now, or finish_then_compensate"
        yield Fault(pointer="/on_kill", detail=detail, code=NOT_OFFERED)


def _wait(wait: Wait, at: str, *, is_past: bool) -> Iterator[Fault]:
    if len(wait.whats) != 1:
        detail = f"says {' and '.join(wait.whats) or 'nothing'}: one of delay_seconds, event: true, approval: true"
        yield Fault(pointer=at, detail=detail, code="one_of")
    if wait.deadline_seconds is not None and wait.delay_seconds is not None:
        yield Fault(pointer=f"{at}/deadline_seconds", detail="a delay ends by itself", code="no_deadline")
    if wait.on_deadline != "undo" and wait.deadline_seconds is None:
        yield Fault(pointer=f"{at}/on_deadline", detail="there is no deadline", code="no_deadline")
    if is_past and wait.deadline_seconds is not None and wait.on_deadline == "undo":
        detail = "past the pivot nothing turns back: go_on, or no deadline"
        yield Fault(pointer=f"{at}/on_deadline", detail=detail, code="order")

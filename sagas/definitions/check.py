"""Refuses a bad definition with every fault at once, each with its JSON pointer. Pure; connections are checked by the store."""

from __future__ import annotations

import string
from collections.abc import Iterator

from rescind.wire import Fault

from sagas.core.faults import read
from sagas.definitions import templates
from sagas.definitions.document import (
    Compensation,
    Definition,
    Email,
    KindDefinition,
    Refund,
    SagaDefinition,
    StepDefinition,
    Webhook,
    Worker,
)
from sagas.definitions.running import NOT_OFFERED, doing, groups, names, not_offered, order, retries, waits


def check(document: object) -> list[Fault]:
    """Every fault of a saga's or a loose kind's document; empty when it may be stored.

    >>> [fault.pointer for fault in check({"saga": "order", "version": "1", "flag": "f", "steps": []})]
    ['/steps']
    """
    return parse(document)[1]


def parse(document: object) -> tuple[Definition | None, list[Fault]]:
    """The definition, or null and every fault of the document. A document with `saga` or `steps` is a saga's."""
    is_saga = isinstance(document, dict) and ("saga" in document or "steps" in document)
    definition, faults = read(SagaDefinition if is_saga else KindDefinition, document)
    if definition is None:
        return None, faults
    faults = list(_saga(definition) if is_saga else _undoing(definition, ""))
    return (None, faults) if faults else (definition, [])


def _saga(saga: SagaDefinition) -> Iterator[Fault]:
    seen: dict[str, int] = {}
    for index, step in enumerate(saga.steps):
        first = seen.setdefault(step.name, index)
        if first != index:
            yield Fault(pointer=f"/steps/{index}/name", detail=f"{step.name!r} is already step {first}", code="duplicate")
        yield from _key(step.key, f"/steps/{index}/key")
        yield from _undoing(step, f"/steps/{index}")
        yield from doing(step, f"/steps/{index}/act")
    yield from order(saga.steps)
    yield from groups(saga.steps)
    yield from names(saga)
    yield from waits(saga)
    yield from not_offered(saga)


def _undoing(step: StepDefinition | KindDefinition, at: str) -> Iterator[Fault]:
    if isinstance(step, KindDefinition) and step.key is not None:
        yield from _key(step.key, f"{at}/key")
    if step.step_class == "irreversible" and step.compensation is not None:
        yield Fault(
            pointer=f"{at}/compensation", detail="an irreversible step has a notice, no compensation", code="irreversible"
        )
    if step.notice is not None and step.step_class != "irreversible":
        yield Fault(pointer=f"{at}/notice", detail="only an irreversible step has a notice", code="not_irreversible")
    if isinstance(step.notice, Refund):
        yield Fault(pointer=f"{at}/notice/executor", detail="a notice moves no money", code="notice_moves_money")
    if step.notice_approved and step.notice is None:
        yield Fault(pointer=f"{at}/notice_approved", detail="there is no notice to approve", code="no_notice")
    has_look_up = isinstance(step, StepDefinition) and step.act.in_doubt == "look_up"
    if step.in_doubt == "look_up" and not has_look_up and not isinstance(step.compensation, Refund):
        detail = "only a refund's provider can be asked: act.in_doubt: look_up for a worker's look-up, or assume_done, or wait"
        yield Fault(pointer=f"{at}/in_doubt", detail=detail, code="no_look_up")
    if step.in_doubt == "same_key":
        instead = "look_up" if isinstance(step.compensation, Refund) else "assume_done where undoing what never was is harmless"
        yield Fault(
            pointer=f"{at}/in_doubt",
            detail=f"a request is not repeated by the coordinator: use {instead}, or wait for a person to decide",
            code=NOT_OFFERED,
        )
    if step.in_doubt == "assume_done" and isinstance(step.compensation, Refund):
        yield Fault(pointer=f"{at}/in_doubt", detail="a refund is not harmless where nothing was captured", code="not_harmless")
    if step.currency is not None and step.currency_code is not None:
        yield Fault(
            pointer=f"{at}/currency_code", detail="either a payload field (currency) or a code for all", code="ambiguous"
        )
    if step.heartbeat_timeout_seconds is not None and not isinstance(step.compensation or step.notice, Worker):
        detail = "only a worker's handler can say that it lives; of the step itself it stands under act"
        yield Fault(pointer=f"{at}/heartbeat_timeout_seconds", detail=detail, code="no_worker")
    yield from retries(step.retry, f"{at}/retry")
    yield from _templates(step.compensation, f"{at}/compensation")
    yield from _templates(step.notice, f"{at}/notice")


def _templates(compensation: Compensation | None, at: str) -> Iterator[Fault]:
    match compensation:
        case Email():
            fields = {"to": compensation.to, "subject": compensation.subject, "body": compensation.body}
        case Webhook():
            fields = {"path": compensation.path, "body": compensation.body or ""}
        case _:
            fields = {}
    for name, text in fields.items():
        detail = templates.fault(text)
        if detail:
            yield Fault(pointer=f"{at}/{name}", detail=detail, code="template")


def _key(text: str, at: str) -> Iterator[Fault]:
    if "{{" in text or "}}" in text:
        detail = "a key template names inputs in single braces, for example capture:{order_id}"
        yield Fault(pointer=at, detail=detail, code="template")
        return
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        yield Fault(pointer=at, detail=f"is not a key template: {error}", code="template")
        return
    for _, name, spec, conversion in parts:
        if name is not None and (not name.isidentifier() or spec or conversion):
            yield Fault(pointer=at, detail=f"{{{name}}} is not the plain name of an input", code="template")

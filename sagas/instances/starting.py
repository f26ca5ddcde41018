"""Instances that ask to begin, read and checked one by one, so that a bad one never fails its batch. Pure."""

from __future__ import annotations

from typing import Any

import msgspec
from rescind.wire import Fault, InstanceStart, InstanceStarted, Revision

from sagas.core import keys
from sagas.core.asks import ATTRIBUTES_BYTES_MAX, TEXT_BYTES_MAX
from sagas.core.faults import read
from sagas.instances.giving import wanted
from sagas.instances.plans import Planned
from sagas.instances.turns import Start

INPUT_BYTES_MAX = 65_536


def parse(environment: str, saga: str, document: object, started_by: str) -> tuple[Start | None, list[Fault]]:
    """The start, or null and every fault of the item, each with its JSON pointer into it."""
    try:
        asked = msgspec.convert(document, InstanceStart)
    except msgspec.ValidationError:
        return None, read(InstanceStart, document)[1]
    values, attributes = keys.canonical(asked.input), msgspec.json.encode(asked.attributes)
    faults = [*_texts(asked), *_sizes(values, attributes)]
    revision = _revision(asked.revision, faults)
    if faults:
        return None, faults
    return Start(
        environment=environment,
        saga=saga,
        id=asked.id,
        version=asked.version,
        input_json=values.decode(),
        input_hash=keys.payload_hash(asked.version.encode() + b"\0" + values),
        attributes=asked.attributes,
        attributes_json=attributes.decode(),
        variant=asked.variant,
        revision=revision,
        subject=asked.subject,
        run_by=asked.run_by,
        lease_seconds=asked.lease_seconds,
        traceparent=asked.traceparent,
        started_by=started_by,
    ), []


def missing(start: Start, planned: Planned) -> list[Fault]:
    """What the steps of this version are to be given and the input does not hold."""
    values: dict[str, Any] = msgspec.json.decode(start.input_json)
    return [
        Fault(pointer=f"/input/{name}", detail=f"is missing: step {step!r} is given it", code="missing")
        for name, step in wanted(planned.definition).items()
        if name not in values
    ]


def invalid(faults: list[Fault]) -> InstanceStarted:
    """The first fault at the top, for those who read only one; all of them in `errors`."""
    first = faults[0]
    return InstanceStarted(
        outcome="invalid",
        error={
            "code": first.code,
            "detail": first.detail,
            "pointer": first.pointer,
            "errors": [{"code": one.code, "detail": one.detail, "pointer": one.pointer} for one in faults],
        },
    )


def _texts(asked: InstanceStart) -> list[Fault]:
    texts = {
        "/id": asked.id,
        "/version": asked.version,
        "/variant": asked.variant,
        "/subject": asked.subject,
        "/run_by": asked.run_by,
        "/traceparent": asked.traceparent,
    }
    faults = []
    for pointer, text in texts.items():
        if text is not None and len(text.encode("utf-8", "surrogatepass")) > TEXT_BYTES_MAX:
            faults.append(Fault(pointer=pointer, detail=f"is longer than {TEXT_BYTES_MAX} bytes of UTF-8", code="too_long"))
        if text is not None and "\0" in text:
            faults.append(Fault(pointer=pointer, detail="holds a NUL character", code="nul"))
    if not asked.id:
        faults.append(Fault(pointer="/id", detail="is empty", code="missing"))
    return faults


def _sizes(values: bytes, attributes: bytes) -> list[Fault]:
    faults = []
    for pointer, text, limit in (("/input", values, INPUT_BYTES_MAX), ("/attributes", attributes, ATTRIBUTES_BYTES_MAX)):
        if len(text) > limit:
            faults.append(Fault(pointer=pointer, detail=f"is larger than {limit} bytes of JSON", code="too_large"))
        if keys.holds_nul(text):
            faults.append(Fault(pointer=pointer, detail="holds a NUL character", code="nul"))
    return faults


def _revision(text: str, faults: list[Fault]) -> tuple[int, int]:
    if not text:
        return 0, 0
    try:
        revision = Revision.parse(text)
    except ValueError as error:
        faults.append(Fault(pointer="/revision", detail=str(error), code="invalid"))
        return 0, 0
    if not (0 <= revision.generation < 2**63 and 0 <= revision.n < 2**63):
        faults.append(Fault(pointer="/revision", detail="is out of range", code="range"))
    return revision.generation, revision.n

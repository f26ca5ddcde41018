"""Instances that ask to begin, read and checked one by one, so that a bad one never fails its batch. Pure."""

from __future__ import annotations

from typing import Any

import msgspec
from rescind.wire import Fault, InstanceStart, InstanceStarted

from sagas.core import bounds, keys
from sagas.core.asks import ATTRIBUTES_BYTES_MAX
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
    parts = [("/input", values, INPUT_BYTES_MAX), ("/attributes", attributes, ATTRIBUTES_BYTES_MAX)]
    faults = [*bounds.texts(_names(asked)), *bounds.sizes(parts)]
    if not asked.id:
        faults.append(Fault(pointer="/id", detail="is empty", code="missing"))
    revision = bounds.revision(asked.revision, faults) if asked.revision else (0, 0)
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
    """What the steps of this version are to be given and the input does not hold, and the subject by which it is ordered."""
    values: dict[str, Any] = msgspec.json.decode(start.input_json)
    ordered = [Fault(pointer="/subject", detail="is missing: this saga is ordered by it", code="missing")]
    return (ordered if planned.definition.line is not None and start.subject is None else []) + [
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


def _names(asked: InstanceStart) -> list[tuple[str, str | None]]:
    return [
        ("/id", asked.id),
        ("/version", asked.version),
        ("/variant", asked.variant),
        ("/subject", asked.subject),
        ("/run_by", asked.run_by),
        ("/traceparent", asked.traceparent),
    ]

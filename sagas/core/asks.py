"""The asks: requests to admit one effect, read and checked one by one, so that a bad one never fails its batch. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct
from rescind.wire import EffectRequest, Fault, Revision

from sagas.core import keys
from sagas.core.faults import read

PAYLOAD_BYTES_MAX = 65_536
ATTRIBUTES_BYTES_MAX = 16_384
TEXT_BYTES_MAX = 512
"""Of every name: as UTF-8, for that is what the limits of an index entry count."""


class Ask(Struct, frozen=True, kw_only=True, gc=False):
    """A request to admit one effect, read and found well formed."""

    environment: str
    kind: str
    key: str
    flag: str
    variant: str | None
    revision: tuple[int, int]
    attributes: dict[str, Any]
    attributes_json: str
    payload_json: str
    """Canonical."""
    payload_hash: bytes
    saga: str | None
    saga_version: str | None
    saga_instance: str | None
    step: str | None
    kind_version: str | None
    subject: str | None
    lease_seconds: float
    token: UUID | None
    instance: str
    by_key: bool = False
    """The effect is named by its key, if it is new."""


def parse(environment: str, instance: str, document: object) -> tuple[Ask | None, list[Fault]]:
    """The ask, or null and every fault of the item, each with its JSON pointer into it."""
    try:
        asked = msgspec.convert(document, EffectRequest)
    except msgspec.ValidationError:
        return None, read(EffectRequest, document)[1]
    payload = keys.canonical(asked.payload)
    attributes = msgspec.json.encode(asked.attributes)
    faults = [*_texts(asked), *_sizes(attributes, payload)]
    revision, token = _revision(asked.revision, faults), _token(asked.token, faults)
    if faults:
        return None, faults
    return ask_of(environment, instance, asked, attributes, payload, revision, token), []


def ask_of(
    environment: str,
    instance: str,
    asked: EffectRequest,
    attributes: bytes,
    payload: bytes,
    revision: tuple[int, int],
    token: UUID | None,
) -> Ask:
    """The request with what was read of it: attributes as JSON, the payload canonical."""
    saga = asked.saga
    return Ask(
        environment=environment,
        kind=asked.kind,
        key=asked.key,
        flag=asked.flag,
        variant=asked.variant,
        revision=revision,
        attributes=asked.attributes,
        attributes_json=attributes.decode(),
        payload_json=payload.decode(),
        payload_hash=keys.payload_hash(payload),
        saga=saga.name if saga else None,
        saga_version=saga.version if saga else None,
        saga_instance=saga.id if saga else None,
        step=asked.step,
        kind_version=asked.kind_version,
        subject=asked.subject,
        lease_seconds=asked.lease_seconds,
        token=token,
        instance=instance,
        by_key=asked.by_key,
    )


def _texts(asked: EffectRequest) -> Iterable[Fault]:
    texts = [
        ("/subject", asked.subject),
        ("/step", asked.step),
        ("/kind_version", asked.kind_version),
        ("/variant", asked.variant),
    ]
    if asked.saga is not None:
        texts += [("/saga/name", asked.saga.name), ("/saga/version", asked.saga.version), ("/saga/id", asked.saga.id)]
    texts += [("/key", asked.key), ("/kind", asked.kind), ("/flag", asked.flag)]
    for pointer, text in texts:
        if text is not None and len(text.encode("utf-8", "surrogatepass")) > TEXT_BYTES_MAX:
            yield Fault(pointer=pointer, detail=f"is longer than {TEXT_BYTES_MAX} bytes of UTF-8", code="too_long")
        if text is not None and "\0" in text:
            yield Fault(pointer=pointer, detail="holds a NUL character", code="nul")


def _sizes(attributes: bytes, payload: bytes) -> Iterable[Fault]:
    for pointer, text, limit in (("/payload", payload, PAYLOAD_BYTES_MAX), ("/attributes", attributes, ATTRIBUTES_BYTES_MAX)):
        if len(text) > limit:
            yield Fault(pointer=pointer, detail=f"is larger than {limit} bytes of JSON", code="too_large")
        if keys.holds_nul(text):
            yield Fault(pointer=pointer, detail="holds a NUL character", code="nul")


def _revision(value: Revision | str | int, faults: list[Fault]) -> tuple[int, int]:
    try:
        revision = Revision.of(value)
    except ValueError as error:
        faults.append(Fault(pointer="/revision", detail=str(error), code="invalid"))
        return 0, 0
    if not (0 <= revision.generation < 2**63 and 0 <= revision.n < 2**63):
        faults.append(Fault(pointer="/revision", detail="is out of range", code="range"))
    return revision.generation, revision.n


def _token(text: str | None, faults: list[Fault]) -> UUID | None:
    try:
        return UUID(text) if text is not None else None
    except ValueError:
        faults.append(Fault(pointer="/token", detail="is not a UUID", code="invalid"))
        return None

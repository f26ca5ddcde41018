"""The asks: requests to admit one effect, read and checked one by one, so that a bad one never fails its batch. Pure."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct
from rescind.wire import EffectRequest, Fault

from sagas.core import bounds, keys
from sagas.core.faults import read

PAYLOAD_BYTES_MAX = 65_536
ATTRIBUTES_BYTES_MAX = 16_384


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
    parts = [("/payload", payload, PAYLOAD_BYTES_MAX), ("/attributes", attributes, ATTRIBUTES_BYTES_MAX)]
    faults = [*bounds.texts(_names(asked)), *bounds.sizes(parts)]
    revision, token = bounds.revision(asked.revision, faults), _token(asked.token, faults)
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


def _names(asked: EffectRequest) -> list[tuple[str, str | None]]:
    saga = asked.saga
    of_saga = [] if saga is None else [("/saga/name", saga.name), ("/saga/version", saga.version), ("/saga/id", saga.id)]
    return [
        ("/subject", asked.subject),
        ("/step", asked.step),
        ("/kind_version", asked.kind_version),
        ("/variant", asked.variant),
        *of_saga,
        ("/key", asked.key),
        ("/kind", asked.kind),
        ("/flag", asked.flag),
    ]


def _token(text: str | None, faults: list[Fault]) -> UUID | None:
    try:
        return UUID(text) if text is not None else None
    except ValueError:
        faults.append(Fault(pointer="/token", detail="is not a UUID", code="invalid"))
        return None

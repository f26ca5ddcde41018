"""What of effects and instances is sealed, under which names (docs/decisions/0032).

Sealed: payloads and results of effects, also in their evidence; inputs and results of instances, and the payloads of events.
Readable: all that the database itself reads, that is names, keys, subjects, attributes, and money in its usual fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec

from runtime.errors import SettingsError
from runtime.postgres import Connection
from runtime.queries import Queries
from runtime.sealing import CHECK, Ring, SealedError

QUERIES = Queries.load("sagas", "sealing")
MONEY = ("amount_cents", "currency")
"""What previews add up in SQL."""


def effect_name(environment: str, identity: UUID) -> str:
    """The place of an effect's payload and results."""
    return f"effect/{environment}/{identity}"


def instance_name(environment: str, saga: str, identity: str) -> str:
    """The place of an instance's input, result and events."""
    return f"instance/{environment}/{saga}/{identity}"


def seal_evidence(ring: Ring, text: str | None, name: str) -> str | None:
    """An entry of an effect's evidence, the result in it sealed."""
    if text is None:
        return None
    entry: dict[str, Any] = msgspec.json.decode(text)
    if entry.get("result") is not None:
        sealed = ring.seal(msgspec.json.encode(entry["result"]).decode(), name)
        entry["result"] = msgspec.Raw(str(sealed).encode())
    return msgspec.json.encode(entry).decode()


def open_evidence(ring: Ring, evidence: Sequence[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """An effect's evidence as it was told."""
    return [{**one, "result": ring.open(one["result"], name)} if "result" in one else one for one in evidence]


def opened(ring: Ring, row: Mapping[str, Any]) -> dict[str, Any]:
    """An effect's row with `id` and `environment`, with what is sealed of it open."""
    values, name = dict(row), effect_name(row["environment"], row["id"])
    for column in ("payload", "result"):
        if column in values:
            values[column] = ring.open(values[column], name)
    if values.get("evidence"):
        values["evidence"] = open_evidence(ring, values["evidence"], name)
    return values


def instance(ring: Ring, row: Mapping[str, Any]) -> dict[str, Any]:
    """An instance's row with `environment`, `saga` and `id`, open."""
    values, name = dict(row), instance_name(row["environment"], row["saga"], row["id"])
    for column in ("input", "result"):
        if column in values:
            values[column] = ring.open(values[column], name)
    return values


async def check(connection: Connection) -> None:
    """Raise `SettingsError` where this server cannot open what was ever sealed here; note the key that it seals with."""
    ring: Ring = connection.ring
    faults = []
    for row in await connection.fetch(QUERIES.known):
        try:
            ring.open(row["probe"], row["id"])
        except SealedError as error:
            faults.append(f"RESCIND_PAYLOAD_KEYS: {error}")
    if faults:
        raise SettingsError(faults)
    if ring.first is not None:
        await connection.execute(QUERIES.used, ring.first, ring.seal(f'"{CHECK}"', ring.first))

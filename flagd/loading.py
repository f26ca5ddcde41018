"""An environment as it is evaluated, read from PostgreSQL in one statement: whole, or what changed in it (P1)."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct
from rescind import wire

from flagd.core.prerequisites import Derivation, Written
from runtime.postgres import Connection
from runtime.queries import Queries

_LOADING = Queries.load("flagd", "loading")
_NOTHING = wire.Revision(-1, -1)


class Loaded(Struct, frozen=True, kw_only=True):
    """An environment at `revision` with the flags that changed since the revision asked for, effective."""

    revision: wire.Revision
    evaluators: dict[str, Any]
    metadata: dict[str, Any]
    bucketing: str
    flags: dict[str, wire.SnapshotFlag]
    removed: list[str]
    is_kill: bool


class _FlagRow(Struct):
    flag: wire.Flag
    epoch: int
    is_archived: bool


class _KillRow(Struct):
    flag: str
    kill: wire.Kill


_flag_rows = msgspec.json.Decoder(list[_FlagRow])
_kill_rows = msgspec.json.Decoder(list[_KillRow])
_object = msgspec.json.Decoder(dict[str, Any])


async def load(connection: Connection, environment: str, since: wire.Revision = _NOTHING) -> Loaded | None:
    """What changed after `since`, or everything; None if there is no such environment."""
    row = await connection.fetchrow(_LOADING.load_since, environment, since.generation, since.n)
    if row is None:
        return None
    kills: dict[str, list[wire.Kill]] = {}
    for killed in _kill_rows.decode(row["kills"]):
        kills.setdefault(killed.flag, []).append(killed.kill)
    moved, beside = _flag_rows.decode(row["flags"]), _flag_rows.decode(row["beside"])
    evaluators = _object.decode(row["evaluators"])
    written = {
        held.flag.key: Written(flag=held.flag, epoch=held.epoch, kills=kills.get(held.flag.key, []))
        for held in [*moved, *beside]
        if not held.is_archived
    }
    derivation = Derivation(written, evaluators, row["bucketing"])
    return Loaded(
        revision=wire.Revision(row["generation"], row["revision"]),
        evaluators=evaluators,
        metadata=_object.decode(row["metadata"]),
        bucketing=row["bucketing"],
        flags={held.flag.key: derivation.flag(held.flag.key) for held in moved if not held.is_archived},
        removed=[held.flag.key for held in moved if held.is_archived],
        is_kill=row["is_kill"],
    )

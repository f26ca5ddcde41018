"""Which live instances have declared a flag, as a change that turns it on has to ask (docs/decisions/0022).

Asked in the change's own transaction, which holds the environment's row: an instance that comes up meanwhile is not recorded
before the change has committed, and one that was recorded before is seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rescind import wire

from flagd import store, surroundings
from flagd.core import turning
from flagd.core.turning import Lack, Turned
from flagd.errors import refused
from runtime import audit
from runtime.postgres import Connection
from runtime.queries import Queries

LIVE_SECONDS = 15.0
"""An instance that was not seen for this long is not live: three beats missed."""
NAMED_MAX = 20
"""Instances that are named of each flag; the others are counted."""

_DECLARATIONS = Queries.load("flagd", "declarations")


async def lacking(connection: Connection, environment: str, turned: Sequence[Turned]) -> list[Lack]:
    """What keeps these flags from being turned on; of each flag its first `NAMED_MAX`."""
    pairs = [(one.key, service) for one in turned for service in one.services]
    rows = await connection.fetch(
        _DECLARATIONS.undeclared, environment, [key for key, _ in pairs], [service for _, service in pairs],
        LIVE_SECONDS, NAMED_MAX,
    )  # fmt: skip
    bare = [Lack(flag=one.key) for one in turned if not one.services]
    return bare + [
        Lack(
            flag=row["flag"], service=row["service"], instance=row["id"], service_version=row["service_version"],
            number=row["number"],
        )
        for row in rows
    ]  # fmt: skip


async def expect_lift(
    connection: Connection, environment: str, key: str, *, actor: str, reason: str | None, past_gate: bool
) -> None:
    """Refuse a lift that turns on what live instances have not declared: the flag itself, or one that depends on it.

    The environment's row is this transaction's. Raises `Problem` 409; an unknown flag is the lift's own to refuse.
    """
    flags = await surroundings.beside(connection, environment, key)
    if not any(flag.requires_declaration for flag in flags.values()):
        return
    head = await store.environment_document(connection, environment)
    assert head is not None, "its row is locked"
    kills = kills_of(await store.standing_kills(connection, environment))
    before = turning.Setting(flags=flags, kills=kills, evaluators=head.evaluators, bucketing=head.bucketing)
    lifted = {name: standing for name, standing in kills.items() if name != key}
    after = turning.Setting(flags=flags, kills=lifted, evaluators=head.evaluators, bucketing=head.bucketing)
    turned = turning.turned_on(before, after)
    lacks = await lacking(connection, environment, turned) if turned else []
    if lacks and not past_gate:
        raise refused(turning.faults(lacks, {}))
    await note(connection, environment, lacks, actor=actor, reason=reason)


async def note(connection: Connection, environment: str, lacks: Sequence[Lack], *, actor: str, reason: str | None) -> None:
    """Write into the audit log which flags went past the gate, and who had not declared them (P20)."""
    for key in dict.fromkeys(one.flag for one in lacks):
        detail: dict[str, Any] = {"undeclared": [one.told() for one in lacks if one.flag == key]}
        detail["undeclared_count"] = max(one.number for one in lacks if one.flag == key)
        await audit.append(
            connection, actor=actor, action="flag.past_gate", environment=environment, object=key, reason=reason, detail=detail
        )


def kills_of(standing: Sequence[store.StandingKill]) -> Mapping[str, Sequence[wire.Kill]]:
    """The kills by the flag they stand over."""
    kills: dict[str, list[wire.Kill]] = {}
    for kill in standing:
        kills.setdefault(kill.flag, []).append(kill.overlay())
    return kills

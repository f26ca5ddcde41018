"""A world to try the ledger in: an environment with flags, and the real kill, barrier and lift on it."""

from __future__ import annotations

import itertools
import json
from typing import Any
from uuid import UUID

from msgspec import Struct
from rescind.wire import AdmitRequest, AdmitResult, ReportRequest, ReportResult

from runtime.clock import Clock, Entropy
from runtime.postgres import Postgres
from runtime.tokens import Principal
from sagas import fences
from sagas.ledger import Ledger

ENVIRONMENT = "production"
FLAG = "checkout.new-flow"
OTHER_FLAG = "search.new-ranking"
ANYONE = Principal(id="t", name="tests", environment=ENVIRONMENT, scopes=frozenset({"effects", "read"}))


class Killed(Struct, frozen=True, kw_only=True):
    """What a kill answered."""

    rollback_id: UUID
    revision: tuple[int, int]


class World:
    """One environment, its ledger, and the acts of people on its flags."""

    def __init__(self, pg: Postgres, ledger: Ledger) -> None:
        self.pg = pg
        self.ledger = ledger
        self._numbers = itertools.count(1)

    @classmethod
    async def open(cls, pg: Postgres, **parts: Any) -> World:
        """A world with its two flags and a running ledger."""
        world = cls(pg, Ledger(pg, Clock(), Entropy(), **parts))
        await world.prepare()
        return world

    async def prepare(self) -> None:
        """Its environment and flags, and start the ledger."""
        async with self.pg.transaction() as connection:
            await connection.execute("INSERT INTO flagd.environments (name) VALUES ($1) ON CONFLICT DO NOTHING", ENVIRONMENT)
        await self.put_flag(FLAG)
        await self.put_flag(OTHER_FLAG)
        await self.ledger.start()

    async def close(self) -> None:
        """Stop the ledger."""
        await self.ledger.stop()

    async def put_flag(self, key: str, off_variant: str = "off") -> None:
        """A flag and its fence, in one transaction."""
        async with self.pg.transaction() as connection:
            await connection.execute(
                "INSERT INTO flagd.flags (environment, key, document, off_variant, changed_generation, changed_revision)"
                " VALUES ($1, $2, '{}', $3, 1, 0) ON CONFLICT DO NOTHING",
                ENVIRONMENT,
                key,
                off_variant,
            )
            await fences.ensure(connection, ENVIRONMENT, [(key, off_variant)])

    def item(self, key: str | None = None, **fields: Any) -> dict[str, Any]:
        """A request for one effect."""
        return {
            "key": key or f"capture:{next(self._numbers)}",
            "kind": "payment.capture",
            "flag": FLAG,
            "variant": "on",
            "payload": {"amount_cents": 1299, "currency": "USD"},
            **fields,
        }

    async def admit(self, *items: dict[str, Any], instance: str = "i-1") -> list[AdmitResult]:
        """One result per item."""
        answer = await self.ledger.admit(ENVIRONMENT, AdmitRequest(effects=list(items), instance=instance), ANYONE)
        return answer.results

    async def ask(self, key: str | None = None, **fields: Any) -> AdmitResult:
        """One effect's result."""
        instance = fields.pop("instance", "i-1")
        return (await self.admit(self.item(key, **fields), instance=instance))[0]

    async def report(self, admitted: AdmitResult, outcome: str = "succeeded", **fields: Any) -> ReportResult:
        """Report of an admitted effect."""
        document = {"effect_id": admitted.effect_id, "token": admitted.token, "outcome": outcome, **fields}
        return (await self.ledger.report(ENVIRONMENT, ReportRequest(reports=[document]))).results[0]

    async def kill(
        self, *flags: str, compensate: str = "auto", scope: dict[str, Any] | None = None, since_at: Any = None
    ) -> Killed:
        """The kill function that every path calls."""
        async with self.pg.transaction() as connection:
            row = await connection.fetchrow(
                "SELECT rollback_id, generation, revision FROM rollbacks.kill_v1("
                "$1, $2, 'it charges twice', 'alex', NULL, $3, 0, $4, $5, NULL, NULL, NULL, NULL, NULL, NULL)",
                ENVIRONMENT,
                list(flags or (FLAG,)),
                compensate,
                scope or {},
                since_at,
            )
        return Killed(rollback_id=row["rollback_id"], revision=(row["generation"], row["revision"]))

    async def close_set(self, killed: Killed, *flags: str) -> None:
        """The drain barrier, then the mark that the set is closed: as the coordinator does it, one flag at a time."""
        for flag in flags or (FLAG,):
            async with self.pg.transaction() as connection:
                await connection.execute("SELECT pg_advisory_xact_lock(sagas.lock_key($1, $2))", ENVIRONMENT, flag)
                await connection.execute(
                    "UPDATE sagas.rollback_flags SET closed_at = clock_timestamp() WHERE rollback_id = $1 AND flag = $2",
                    killed.rollback_id,
                    flag,
                )
        await self.execute("UPDATE sagas.rollbacks SET closed_at = clock_timestamp() WHERE id = $1", killed.rollback_id)

    async def lift(self, flag: str = FLAG, *, force: bool = False) -> tuple[int, int]:
        """Lift every kill of a flag; the revision from which it is open."""
        async with self.pg.transaction() as connection:
            row = await connection.fetchrow(
                "SELECT generation, revision FROM rollbacks.lift_v1($1, $2, 'alex', 'mended', NULL, $3)",
                ENVIRONMENT,
                flag,
                force,
            )
        return row["generation"], row["revision"]

    async def dispose(self, effect: AdmitResult, killed: Killed, state: str) -> None:
        """Write what became of an effect, as a coordinator would."""
        await self.execute(
            "INSERT INTO sagas.dispositions (effect_id, environment, rollback_id, kind, position, state, reason, by_whom)"
            " VALUES ($1, $2, $3, 'payment.capture', clock_timestamp(), $4, 'test', 'alex')",
            UUID(effect.effect_id or ""),
            ENVIRONMENT,
            killed.rollback_id,
            state,
        )
        if state in ("compensated", "irreversible", "skipped"):
            await self.execute("UPDATE sagas.effects SET undone = true WHERE id = $1", UUID(effect.effect_id or ""))
        if state == "never_happened":
            await self.execute(
                "UPDATE sagas.effects SET tombstoned = true, status = 'failed' WHERE id = $1", UUID(effect.effect_id or "")
            )

    async def settle(self, killed: Killed, outcome: str | None = None) -> None:
        """End a rollback."""
        await self.execute(
            "UPDATE sagas.rollbacks SET state = 'settled', outcome = $2 WHERE id = $1", killed.rollback_id, outcome
        )

    async def execute(self, query: str, *arguments: Any) -> None:
        """One statement, committed."""
        async with self.pg.connection() as connection:
            await connection.execute(query, *arguments)

    async def value(self, query: str, *arguments: Any) -> Any:
        """One value."""
        async with self.pg.connection() as connection:
            return await connection.fetchval(query, *arguments)

    async def row(self, effect: AdmitResult) -> dict[str, Any]:
        """The effect as it is stored."""
        async with self.pg.connection() as connection:
            return dict(await connection.fetchrow("SELECT * FROM sagas.effects WHERE id = $1", UUID(effect.effect_id or "")))

    async def expire(self, effect: AdmitResult, *, lease: bool = True) -> None:
        """Let its start window run out, and its lease unless told otherwise: PostgreSQL's clock judges both."""
        moments = "start_until = clock_timestamp() - interval '1 second'"
        if lease:
            moments += ", lease_until = clock_timestamp() - interval '1 second'"
        await self.execute(f"UPDATE sagas.effects SET {moments} WHERE id = $1", UUID(effect.effect_id or ""))


def shown(result: AdmitResult) -> str:
    """For failure messages."""
    return json.dumps({name: getattr(result, name) for name in ("outcome", "effect_status", "compensation", "error")})

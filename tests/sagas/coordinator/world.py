"""Rows as the ledger and the kill write them, and a coordinator over the world outside."""

from __future__ import annotations

import itertools
import uuid
from datetime import timedelta
from typing import Any

import msgspec

from runtime.clock import Clock, Entropy
from runtime.postgres import Connection, Postgres
from sagas.coordinator import Coordinator, Tuning
from sagas.definitions import SagaDefinition, semantics_hash
from sagas.executors import Executors
from tests.sagas.coordinator.outside import Http, Mail, Payments

ENVIRONMENT = "production"
FLAG = "checkout.new-flow"
FAST = Tuning(
    lease_seconds=0.6,
    renew_seconds=0.1,
    poll_seconds=0.05,
    start_window_seconds=0.3,
    margin_seconds=0.1,
)
"""A worker that waits for a task counts as alive for as long as it waits, as in production."""
LONELY = msgspec.structs.replace(FAST, no_worker_seconds=0.3)
RETRY = {"first_seconds": 0.02, "factor": 2, "cap_seconds": 0.2, "attempts_max": 8}
REFUND = {
    "name": "capture",
    "kind": "payment.capture",
    "key": "capture:{id}",
    "settle_seconds": 0,
    "timeout_seconds": 5.0,
    "retry": RETRY,
    "currency_code": "USD",
    "compensation": {"executor": "refund", "connection": "payments"},
}
MAIL = {
    "name": "confirm",
    "kind": "mail.confirmation",
    "key": "confirm:{id}",
    "settle_seconds": 0,
    "timeout_seconds": 5.0,
    "retry": RETRY,
    "in_doubt": "assume_done",
    "compensation": {
        "executor": "email",
        "connection": "mail",
        "to": "{{ effect.payload.to }}",
        "subject": "Correction of {{ effect.key }}",
        "body": "{% for each in effects %}{{ each.key }} {% endfor %}{{ rollback.reason }}\n",
        "dedupe_by": "subject",
    },
}
NOTICE = {
    "name": "partner",
    "kind": "partner.webhook",
    "key": "partner:{id}",
    "class": "irreversible",
    "settle_seconds": 0,
    "timeout_seconds": 5.0,
    "retry": RETRY,
    "notice_approved": True,
    "notice": {
        "executor": "webhook",
        "connection": "partner",
        "path": "/retract",
        "body": '{"retracts": {{ effect.id | tojson }}}',
    },
}
WORK = {
    "name": "reserve",
    "kind": "stock.reserve",
    "key": "reserve:{id}",
    "settle_seconds": 0,
    "retry": RETRY,
    "compensation": {"executor": "worker"},
}


EFFECT = """
INSERT INTO sagas.effects (
    id, environment, kind, key, flag, variant, is_off, epoch, saga, saga_version, saga_instance, step, subject, payload, status,
    token, begun, start_until, lease_until, result, attributes, completed_at)
VALUES (
    $1, $2, $3, $4, $5, 'on', $6, $7, 'order', $8, $9, $10, $11, $12, $13, $14, $15,
    clock_timestamp() + $16::float8 * interval '1 second', clock_timestamp() + $17::float8 * interval '1 second', $18, $19,
    CASE WHEN $13 = 'succeeded' THEN coalesce($20::timestamptz, clock_timestamp()) END)
"""


class World:
    """One environment with its rows, and the servers outside."""

    def __init__(self, pg: Postgres) -> None:
        self.pg = pg
        self.clock = Clock()
        self.entropy = Entropy()
        self.payments, self.mail, self.partner = Payments(), Mail(), Http()
        self.environ = {"PAY": "sk_test_1", "SIGN": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
        self._numbers = itertools.count(1)
        self._coordinators: list[Coordinator] = []
        self._executors: list[Executors] = []

    async def start(self) -> None:
        for server in (self.payments, self.mail, self.partner):
            await server.start()
        for name, document in {
            "payments": {"type": "stripe", "url": self.payments.url, "secret": "env:PAY", "granted": ["*"]},
            "mail": {"type": "smtp", "host": "127.0.0.1", "port": self.mail.port, "sender": "shop@example.com"},
            "partner": {"type": "webhook", "url": self.partner.url, "secret": "env:SIGN"},
        }.items():
            await self.run(
                "INSERT INTO sagas.connections (environment, name, document, updated_by) VALUES ($1,$2,$3,'test')",
                ENVIRONMENT,
                name,
                document,
            )
        await self.flag(FLAG)

    async def stop(self) -> None:
        for coordinator in self._coordinators:
            await coordinator.stop()
        for executors in self._executors:
            await executors.close()
        self.payments.released.set()
        for server in (self.payments, self.mail, self.partner):
            await server.stop()

    # --- rows

    async def run(self, sql: str, *arguments: Any) -> None:
        async with self.pg.connection() as connection:
            await connection.execute(sql, *arguments)

    async def rows(self, sql: str, *arguments: Any) -> list[dict[str, Any]]:
        async with self.pg.connection() as connection:
            return [dict(row) for row in await connection.fetch(sql, *arguments)]

    async def value(self, sql: str, *arguments: Any) -> Any:
        async with self.pg.connection() as connection:
            return await connection.fetchval(sql, *arguments)

    async def flag(self, key: str) -> None:
        await self.run(
            "INSERT INTO sagas.fences (environment, flag, lock_key, off_variant) "
            "VALUES ($1, $2, sagas.lock_key($1, $2), 'off')",
            ENVIRONMENT,
            key,
        )

    async def define(self, *steps: dict[str, Any], version: str = "1", saga: str = "order") -> None:
        document = {"saga": saga, "version": version, "flag": FLAG, "steps": list(steps)}
        definition = msgspec.convert(document, SagaDefinition)
        await self.run(
            "INSERT INTO sagas.definitions (environment, name, version, document, semantics_hash, created_by) "
            "VALUES ($1, $2, $3, $4, $5, 'test')",
            ENVIRONMENT,
            saga,
            version,
            document,
            semantics_hash(definition),
        )

    async def effect(
        self,
        step: dict[str, Any],
        instance: str,
        *,
        status: str = "succeeded",
        subject: str | None = None,
        amount: int = 1000,
        epoch: int = 1,
        version: str = "1",
        flag: str = FLAG,
        is_off: bool = False,
        lease_seconds: float = -1.0,
        begun: bool = True,
        start_seconds: float = -1.0,
        captured: bool = True,
        attributes: dict[str, Any] | None = None,
        completed_at: Any = None,
    ) -> uuid.UUID:
        """Write one effect as the ledger would have; a capture that succeeded is at the provider too."""
        number = next(self._numbers)
        identity = self.entropy.uuid7()
        result = None
        if step.get("compensation", {}).get("executor") == "refund" and captured and status != "failed":
            intent = self.payments.capture(identity, amount)
            result = {"id": intent} if status == "succeeded" else None
        payload = {"amount_cents": amount, "to": f"{subject or 'someone'}@example.com"}
        await self.run(
            EFFECT,
            identity,
            ENVIRONMENT,
            step["kind"],
            f"{step['name']}:{instance}:{number}",
            flag,
            is_off,
            epoch,
            version,
            instance,
            step["name"],
            subject,
            payload,
            status,
            self.entropy.uuid7(),
            begun,
            start_seconds,
            lease_seconds,
            result,
            attributes or {},
            completed_at,
        )
        return identity

    async def kill(
        self,
        *flags: str,
        compensate: str = "auto",
        grace_seconds: float = 0.0,
        closes_epoch: int = 1,
        scope: dict[str, Any] | None = None,
    ) -> uuid.UUID:
        """The rows that a kill writes, in one transaction as it does: a coordinator never sees a rollback without its flags."""
        identity = self.entropy.uuid7()
        async with self.pg.transaction() as connection:
            await connection.execute(
                "INSERT INTO sagas.rollbacks (id, environment, generation, revision, compensate, grace_seconds, reason, actor) "
                "VALUES ($1, $2, 1, 1, $3, $4, 'bad release', 'test')",
                identity,
                ENVIRONMENT,
                compensate,
                grace_seconds,
            )
            for flag in flags or (FLAG,):
                await self._close(connection, identity, flag, closes_epoch, scope or {})
        return identity

    async def _close(
        self, connection: Connection, rollback_id: uuid.UUID, flag: str, closes_epoch: int, scope: dict[str, Any]
    ) -> None:
        await connection.execute(
            "UPDATE sagas.fences SET closed = true, epoch = $3, rollback_id = $4 WHERE environment = $1 AND flag = $2",
            ENVIRONMENT,
            flag,
            closes_epoch + 1,
            rollback_id,
        )
        await connection.execute(
            "INSERT INTO sagas.rollback_flags (rollback_id, environment, flag, scope_key, scope, closes_epoch) "
            "VALUES ($1, $2, $3, $4, $5, $6)",
            rollback_id,
            ENVIRONMENT,
            flag,
            str(scope) if scope else "",
            scope,
            closes_epoch,
        )

    async def report(self, effect_id: uuid.UUID, status: str, result: Any = None) -> None:
        """What the ledger does with an outcome: written down and armed, under the flag's lock."""
        async with self.pg.transaction() as connection:
            await connection.execute(
                "SELECT pg_advisory_xact_lock_shared(sagas.lock_key(environment, flag)) FROM sagas.effects WHERE id = $1",
                effect_id,
            )
            await connection.execute(
                "UPDATE sagas.effects SET status = $2, result = coalesce($3, result), completed_at = "
                "CASE WHEN $2 = 'succeeded' THEN clock_timestamp() END WHERE id = $1",
                effect_id,
                status,
                result,
            )
            await connection.execute("SELECT sagas.arm_v1(ARRAY[$1::uuid])", effect_id)

    # --- what became of it

    async def state(self, rollback_id: uuid.UUID) -> str:
        return str(await self.value("SELECT state FROM sagas.rollbacks WHERE id = $1", rollback_id))

    async def is_settled(self, rollback_id: uuid.UUID) -> bool:
        return await self.state(rollback_id) == "settled"

    async def dispositions(self, rollback_id: uuid.UUID) -> dict[uuid.UUID, str]:
        rows = await self.rows(
            "SELECT m.effect_id, d.state FROM sagas.members m JOIN sagas.dispositions d USING (effect_id) "
            "WHERE m.rollback_id = $1",
            rollback_id,
        )
        return {row["effect_id"]: row["state"] for row in rows}

    # --- coordinators

    def coordinator(self, *, pg: Postgres | None = None, clock: Clock | None = None, tuning: Tuning = FAST) -> Coordinator:
        """A coordinator of this world, not started."""
        clock = clock or self.clock
        executors = Executors(clock, self.environ)
        coordinator = Coordinator(pg or self.pg, clock, self.entropy, "test", executors, tuning=tuning)
        self._executors.append(executors)
        return coordinator

    async def started(self, **arguments: Any) -> Coordinator:
        """A running coordinator, stopped at the end of the test."""
        coordinator = self.coordinator(**arguments)
        await coordinator.start()
        self._coordinators.append(coordinator)
        return coordinator

    async def ago(self, seconds: float) -> Any:
        """An instant of PostgreSQL's clock."""
        return await self.value("SELECT clock_timestamp()") - timedelta(seconds=seconds)

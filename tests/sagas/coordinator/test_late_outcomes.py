"""Outcomes are kept until they are written, by the attempt's own token where the range's lease has moved on (P13, P18)."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from runtime.errors import Unavailable
from runtime.postgres import Connection, Postgres
from sagas import outcomes
from sagas.decisions import Decisions
from tests.sagas.coordinator.world import FAST, MAIL, REFUND, WORK, World
from tests.waiting import until

PATIENT = msgspec.structs.replace(FAST, lease_seconds=0.4, renew_seconds=0.05)


class AwayPostgres:
    """The database over a link that a test cuts and mends."""

    def __init__(self, pg: Postgres) -> None:
        self._pg = pg
        self.is_away = False

    def connection(self) -> Any:
        self._look()
        return self._pg.connection()

    async def dedicated(self) -> Connection:
        self._look()
        return await self._pg.dedicated()

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        self._look()
        async with self._pg.transaction() as connection:
            yield connection
            self._look()

    def _look(self) -> None:
        if self.is_away:
            raise Unavailable("PostgreSQL", "the link is cut")


class Waiting:
    """A mail host's reply to the final dot that a test holds back: the mail is kept already."""

    def __init__(self, world: World) -> None:
        self.arrived, self.released = asyncio.Event(), asyncio.Event()
        self._keep = world.mail.handle_DATA
        world.mail.handle_DATA = self.handle_DATA  # type: ignore[method-assign]

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        reply = await self._keep(server, session, envelope)
        self.arrived.set()
        await self.released.wait()
        return reply


async def _cut_off_with_a_mail_sent(world: World) -> tuple[AwayPostgres, uuid.UUID, uuid.UUID]:
    """A coordinator whose mail was accepted while its database was away, for longer than its lease; another took over."""
    await world.define({**MAIL, "timeout_seconds": 1.5})
    effect = await world.effect(MAIL, "o1", subject="kim")
    host = Waiting(world)
    link = AwayPostgres(world.pg)
    await world.started(pg=link, tuning=PATIENT)  # type: ignore[arg-type]
    rollback = await world.kill()
    await host.arrived.wait()
    link.is_away = True
    host.released.set()
    await world.started(tuning=PATIENT)
    await until(lambda: _waits(world, rollback))
    return link, rollback, effect


async def _waits(world: World, rollback: uuid.UUID) -> bool:
    return await world.state(rollback) == "waiting"


async def _outcomes(world: World) -> list[str]:
    rows = await world.rows("SELECT outcome FROM sagas.attempts WHERE verb = 'act' ORDER BY id")
    return [row["outcome"] for row in rows]


async def test_a_mail_sent_while_postgresql_was_away_longer_than_the_lease_is_called_sent(world: World) -> None:  # P13
    link, rollback, effect = await _cut_off_with_a_mail_sent(world)
    link.is_away = False
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == {effect: "compensated"}
    assert len(world.mail.mails) == 1, "nobody had to be asked, nobody was written to twice"
    proof = await world.value("SELECT proof FROM sagas.compensations")
    assert proof["message_id"] == world.mail.mails[0]["Message-ID"]


async def test_what_another_concluded_meanwhile_stands_and_the_late_outcome_is_kept_beside_it(world: World) -> None:  # P13, P18
    link, rollback, effect = await _cut_off_with_a_mail_sent(world)
    await Decisions(world.pg).skip(rollback, [effect], actor="ann", reason="wrote to Kim by hand")
    await until(lambda: world.is_settled(rollback))
    version = await world.value("SELECT version FROM sagas.rollbacks")
    link.is_away = False
    await until(lambda: _is_lost_beside(world))
    assert await world.dispositions(rollback) == {effect: "skipped"}
    assert await world.state(rollback) == "settled"
    assert await world.value("SELECT version FROM sagas.rollbacks") == version


async def _is_lost_beside(world: World) -> bool:
    return await _outcomes(world) == ["interrupted", "lost"]


async def test_a_second_attempt_that_ended_wins_over_the_first_ones_late_word(world: World) -> None:  # P13, hazard 17
    link, rollback, effect = await _cut_off_with_a_mail_sent(world)
    await Decisions(world.pg).retry(rollback, actor="ann", reason="Kim has nothing in the mailbox")
    await until(lambda: world.is_settled(rollback))
    before = await world.rows("SELECT * FROM sagas.compensations")
    link.is_away = False
    await until(lambda: _has_lost(world))
    assert await world.rows("SELECT * FROM sagas.compensations") == before
    assert await world.dispositions(rollback) == {effect: "compensated"}


async def _has_lost(world: World) -> bool:
    return sorted(await _outcomes(world)) == ["done", "interrupted", "lost"]


async def test_one_outcome_that_cannot_be_written_holds_no_other_up(world: World) -> None:  # P13
    await world.define({**REFUND, "timeout_seconds": 0.1})
    bad = await world.effect(REFUND, "bad")
    good = [await world.effect(REFUND, f"o{n}") for n in range(20)]
    world.payments.names[str(bad)] = "re_\ud800"
    rollback = await world.kill()
    coordinator = await world.started()
    await until(lambda: _is_recovered(world))
    await until(lambda: _are_compensated(world, rollback, good))
    world.payments.rename("re_\ud800", "re_whole")
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == dict.fromkeys([bad, *good], "compensated")
    assert len(world.payments.refunds) == 21, "asked again under the same key"
    assert coordinator.leases.held(), "the writer goes on"


async def _are_compensated(world: World, rollback: uuid.UUID, effects: list[uuid.UUID]) -> bool:
    found = await world.dispositions(rollback)
    return {found[effect] for effect in effects} == {"compensated"}


async def _is_recovered(world: World) -> bool:
    return "interrupted" in await _outcomes(world)


async def test_a_process_whose_outcomes_cannot_be_written_holds_no_leases(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:  # P18
    await world.define(REFUND)
    await world.effect(REFUND, "o1")
    monkeypatch.setattr(outcomes, "STUCK_SECONDS", 0.3)
    await world.run("ALTER TABLE sagas.attempts RENAME COLUMN detail TO moved")
    rollback = await world.kill()
    coordinator = await world.started()
    await until(lambda: world.payments.refunds)
    await until(lambda: not coordinator.leases.held())
    await until(lambda: world.value("SELECT bool_and(expires_at = '-infinity') FROM sagas.leases"))
    await world.run("ALTER TABLE sagas.attempts RENAME COLUMN moved TO detail")
    await until(lambda: world.is_settled(rollback))
    assert len(world.payments.refunds) == 1, "the outcome was kept and written when it could be"
    await until(lambda: coordinator.leases.held())


async def test_news_that_meets_a_lift_does_not_open_what_the_lift_has_ended(world: World) -> None:  # P11, P17
    effect = await world.effect(WORK, "o1", status="in_doubt")
    rollback = await world.kill()
    await world.run("UPDATE sagas.rollback_flags SET closed_at = clock_timestamp()")
    async with world.pg.transaction() as lift:
        await lift.execute("UPDATE sagas.rollbacks SET state = 'settled', outcome = 'lifted_in_grace' WHERE id = $1", rollback)
        telling = asyncio.create_task(world.report(effect, "succeeded"))
        await until(lambda: world.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
    await telling
    assert await world.state(rollback) == "settled"
    assert await world.value("SELECT version FROM sagas.rollbacks WHERE id = $1", rollback) == 1

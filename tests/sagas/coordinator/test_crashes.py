"""A crash at every write of a rollback, then a restart: each effect is undone once, under one key, and it adds up (P12, P13).

The connection is cut just before, or just after, the n-th transaction commits, and everything of that coordinator is gone with
it; another takes over when the lease has run out. n counts up until two rollbacks pass without meeting their crash: what comes
to an end at the same time is written together, so one of them may have fewer writes than the last.
"""

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
from sagas.coordinator import Coordinator
from sagas.decisions import Decisions
from tests.sagas.coordinator.world import FAST, MAIL, NOTICE, REFUND, World
from tests.waiting import until

TUNING = msgspec.structs.replace(FAST, lease_seconds=0.3, renew_seconds=0.05)
QUICK = {"timeout_seconds": 0.1}
OURS = ("Coordinator.", "Dispatcher.", "Drive.")


class CutPostgres:
    """The database through a connection that breaks at the n-th transaction; afterwards nothing is reachable any more."""

    def __init__(self, pg: Postgres, at: int, *, committed: bool) -> None:
        self._pg = pg
        self._at = at
        self._committed = committed
        self._count = 0
        self.cut = asyncio.Event()

    def connection(self) -> Any:
        self._alive()
        return self._pg.connection()

    async def dedicated(self) -> Connection:
        self._alive()
        return await self._pg.dedicated()

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        self._alive()
        self._count += 1
        is_last = self._count == self._at
        async with self._pg.transaction() as connection:
            yield connection
            if is_last and not self._committed:
                self.cut.set()
                raise Unavailable("PostgreSQL", "cut before the commit")
        if is_last:
            self.cut.set()
            raise Unavailable("PostgreSQL", "cut after the commit")

    def _alive(self) -> None:
        if self.cut.is_set():
            raise Unavailable("PostgreSQL", "gone")


def end_at_once(before: set[asyncio.Task[Any]]) -> None:
    """What a killed process leaves: nothing. Its leases are not given back."""
    for task in asyncio.all_tasks() - before:
        coroutine = task.get_coro()
        if coroutine is not None and getattr(coroutine, "__qualname__", "").startswith(OURS):
            task.cancel()


@pytest.mark.parametrize("committed", [False, True], ids=["before the commit", "after the commit"])
async def test_a_crash_at_every_write_loses_nothing_and_doubles_nothing(world: World, committed: bool) -> None:  # P12, P13
    await world.define({**REFUND, **QUICK}, {**MAIL, **QUICK}, {**NOTICE, **QUICK})
    crashed: list[bool] = []
    while any(crashed[-2:]) or len(crashed) < 2:
        crashed.append(await _crashed_at(world, len(crashed) + 1, committed=committed))
    assert all(crashed[:7]), "close, drain, open, enumerate, claim, outcomes and settle at least"


async def _crashed_at(world: World, at: int, *, committed: bool) -> bool:
    """One rollback with its crash. Returns whether there was an n-th write at all."""
    flag = f"flag-{committed}-{at}"
    subject = f"customer-{at}"
    await world.flag(flag)
    effects = {
        step["name"]: await world.effect(step, f"{flag}-o", subject=subject, flag=flag) for step in (REFUND, MAIL, NOTICE)
    }
    doubtful = await world.effect(REFUND, f"{flag}-d", flag=flag, status="in_doubt")
    rollback = await world.kill(flag)
    before = asyncio.all_tasks()
    pg = CutPostgres(world.pg, at, committed=committed)
    first = world.coordinator(pg=pg, tuning=TUNING)  # type: ignore[arg-type]
    await first.start()
    ended = asyncio.create_task(pg.cut.wait())
    settled = asyncio.create_task(until(lambda: _is_still(world, rollback)))
    await asyncio.wait([ended, settled], return_when=asyncio.FIRST_COMPLETED)
    was_cut = pg.cut.is_set()
    ended.cancel()
    settled.cancel()
    await asyncio.gather(ended, settled, return_exceptions=True)
    if was_cut:
        end_at_once(before)
        second = world.coordinator(tuning=TUNING)
        await second.start()
        await until(lambda: _is_still(world, rollback))
    else:
        second = first
    await _let_a_person_decide(world, rollback)
    await until(lambda: world.is_settled(rollback))
    await second.stop()
    await _adds_up(world, rollback, effects, doubtful, subject)
    return was_cut


async def _adds_up(world: World, rollback: uuid.UUID, effects: dict[str, uuid.UUID], doubtful: uuid.UUID, subject: str) -> None:
    found = await world.dispositions(rollback)
    assert found[effects["capture"]] == found[doubtful] == "compensated"
    assert found[effects["partner"]] == "irreversible"
    assert found[effects["confirm"]] in ("compensated", "skipped")
    refunds = [refund["metadata"]["rescind_effect"] for refund in world.payments.refunds]
    assert refunds.count(str(effects["capture"])) == refunds.count(str(doubtful)) == 1
    mails = [mail for mail in world.mail.mails if mail["To"] == f"{subject}@example.com"]
    assert len(mails) <= 1, "at most once"
    if found[effects["confirm"]] == "compensated":
        assert len(mails) == 1
    sums = await world.value("SELECT settled_sums FROM sagas.rollbacks WHERE id = $1", rollback)
    assert sums["adds_up"] is True
    assert await world.value("SELECT count(*) FROM sagas.subjects") == 0


async def _let_a_person_decide(world: World, rollback: uuid.UUID) -> None:
    """Only a mail may wait: whether it was sent cannot be known."""
    rows = await world.rows(
        "SELECT effect_id, kind, reason FROM sagas.dispositions WHERE rollback_id = $1 AND state = 'waiting'", rollback
    )
    assert {(row["kind"], row["reason"]) for row in rows} <= {("mail.confirmation", "interrupted")}
    if rows:
        await Decisions(world.pg).skip(
            rollback, [row["effect_id"] for row in rows], actor="ann", reason="looked at the mailbox"
        )


async def _is_still(world: World, rollback: uuid.UUID) -> bool:
    return await world.state(rollback) in ("settled", "waiting")


async def test_a_coordinator_that_stops_politely_hands_over_at_once(world: World) -> None:  # P18
    await world.define(REFUND)
    for n in range(5):
        await world.effect(REFUND, f"o{n}")
    first: Coordinator = world.coordinator()
    await first.start()
    await until(first.leases.held)
    await first.stop()
    rows = await world.rows("SELECT expires_at = '-infinity' AS free FROM sagas.leases")
    assert all(row["free"] for row in rows)
    rollback = await world.kill()
    await world.started()
    await until(lambda: world.is_settled(rollback))

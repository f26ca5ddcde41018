"""P18: any number of coordinators may run; one that stalls and wakes after its lease was lost cannot write."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtime.clock import Clock
from runtime.errors import OutcomeUnknown, Unavailable
from runtime.postgres import Postgres
from sagas.leases import RANGES, LeaseLost, Leases
from tests.sagas.coordinator.world import REFUND, World
from tests.sagas.ledger.cutting import Cutter
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[3]
SECONDS = 0.5
LONG_SECONDS = 600.0
MESSAGES_MAX = 40


class HandClock(Clock):
    """A monotonic clock moved by hand."""

    def __init__(self) -> None:
        self.at = 1000.0

    def monotonic(self) -> float:
        return self.at


@pytest.fixture
def hand() -> HandClock:
    return HandClock()


async def test_who_takes_over_has_seen_the_same_token_for_the_leases_full_length(pg: Postgres, hand: HandClock) -> None:  # P18
    first = Leases(pg, HandClock(), "first", lease_seconds=SECONDS)
    await first.keep()
    assert len(first.held()) == RANGES
    second = Leases(pg, hand, "second", lease_seconds=SECONDS)
    await second.keep()
    assert second.held() == []
    await until(lambda: _expired(pg))
    await second.keep()
    assert second.held() == [], "expired by PostgreSQL's clock, not yet watched for as long by its own"
    hand.at += SECONDS
    await second.keep()
    assert len(second.held()) == RANGES


async def test_a_renewal_starts_the_watch_anew(pg: Postgres, hand: HandClock) -> None:  # P18
    first = Leases(pg, Clock(), "first", lease_seconds=LONG_SECONDS)
    second = Leases(pg, hand, "second", lease_seconds=LONG_SECONDS)
    await first.keep()
    await second.keep()
    hand.at += LONG_SECONDS
    await first.keep()
    await _expire(pg)
    await second.keep()
    assert second.held() == []


async def test_a_holder_stops_trusting_its_lease_at_two_thirds(pg: Postgres, hand: HandClock) -> None:  # hazard 14
    leases = Leases(pg, hand, "first", lease_seconds=9.0)
    await leases.keep()
    hand.at += 5.9
    assert leases.trusted(0)
    hand.at += 0.2
    assert not leases.trusted(0)
    assert leases.held() == []


async def test_a_lost_lease_fences_every_write(pg: Postgres, hand: HandClock) -> None:  # P18
    first, second = (Leases(pg, hand, name, lease_seconds=LONG_SECONDS) for name in ("first", "second"))
    await first.keep()
    await first.keep()
    async with pg.transaction() as connection:
        await first.fence(connection, 3)
    await second.keep()
    await _expire(pg)
    hand.at += LONG_SECONDS
    await second.keep()
    assert len(second.held()) == RANGES
    with pytest.raises(LeaseLost):
        async with pg.transaction() as connection:
            await first.fence(connection, 3)


async def test_a_takeover_waits_for_the_write_under_way(pg: Postgres, hand: HandClock) -> None:  # P18
    first, second = (Leases(pg, hand, name, lease_seconds=LONG_SECONDS) for name in ("first", "second"))
    await first.keep()
    await second.keep()
    async with pg.transaction() as connection:
        await first.fence(connection, 3)
        await _expire(pg)
        hand.at += LONG_SECONDS
        await second.keep()
        assert 3 not in second.held()
        assert len(second.held()) == RANGES - 1
        assert await connection.fetchval("SELECT holder FROM sagas.leases WHERE range = 3") == "first"
    await second.keep()
    assert second.trusted(3)


@pytest.mark.parametrize("place", ["between two queries", "between two messages of one query"])
async def test_a_writer_that_stalls_inside_its_transaction_is_cut_off(pg: Postgres, place: str) -> None:  # P18
    first = Leases(pg, Clock(), "first", lease_seconds=LONG_SECONDS)
    second = Leases(pg, Clock(), "second", lease_seconds=SECONDS)
    await first.keep()
    first.lease_seconds = 1.0  # how long it may stall
    stalled = await pg.dedicated()
    await stalled.execute("BEGIN")
    await first.fence(stalled, 3)
    if place == "between two messages of one query":
        await stalled.prepare("SELECT now()")  # parsed and not yet bound: active, PostgreSQL says
    await _expire(pg)
    await until(lambda: _holds(second, 3))
    await until(stalled.is_closed)


@pytest.fixture
async def stoppable(database_url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A coordinator in a process of its own that holds every lease."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).parent / "process.py"),
        database_url,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert await process.stdout.readline() == b"holding\n"
    yield process
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.communicate()


async def test_a_coordinator_stopped_past_its_lease_cannot_write_when_it_wakes(
    world: World, stoppable: asyncio.subprocess.Process
) -> None:  # P18
    await world.define({**REFUND, "timeout_seconds": 1.0})
    effect = await world.effect(REFUND, "o1")
    world.payments.fates = ["hang"]
    rollback = await world.kill()
    await until(lambda: world.payments.posts)
    stoppable.send_signal(signal.SIGSTOP)
    await world.started()
    await until(lambda: world.is_settled(rollback))
    before = await world.rows("SELECT * FROM sagas.compensations")
    version = await world.value("SELECT version FROM sagas.rollbacks")
    world.payments.released.set()
    stoppable.send_signal(signal.SIGCONT)
    assert stoppable.stdout is not None
    async with asyncio.timeout(60):
        while b"lease of range" not in (line := await stoppable.stdout.readline()):
            assert line, "it ended without a word"
    assert await world.rows("SELECT * FROM sagas.compensations") == before
    assert await world.value("SELECT version FROM sagas.rollbacks") == version
    assert await world.dispositions(rollback) == {effect: "compensated"}
    assert len(world.payments.refunds) == 1, "asked by both, under one key, done once"
    assert len(world.payments.posts) == 2
    assert len({headers["idempotency-key"] for _, headers, _ in world.payments.posts}) == 1


async def test_another_coordinator_carries_on_when_one_is_killed(
    world: World, stoppable: asyncio.subprocess.Process
) -> None:  # P18
    await world.define({**REFUND, "pace": {"concurrency_max": 2}, "timeout_seconds": 0.5})
    for n in range(30):
        await world.effect(REFUND, f"o{n}")
    rollback = await world.kill()
    await until(lambda: len(world.payments.refunds) >= 5)
    stoppable.send_signal(signal.SIGKILL)
    await world.started()
    await until(lambda: world.is_settled(rollback))
    assert len(world.payments.refunds) == 30


@pytest.mark.parametrize("loses_answer", [False, True], ids=["message lost", "answer lost"])
@pytest.mark.parametrize("act", ["take", "renew", "give back"])
async def test_a_write_of_leases_cut_anywhere_is_whole_or_nothing_and_gives_no_right_twice(
    pg: Postgres, act: str, loses_answer: bool
) -> None:  # P18
    cuts = 0
    for message in range(1, MESSAGES_MAX):
        await _free(pg)
        cutter, hand = Cutter(pg.url), HandClock()
        line = await Postgres.open(await cutter.open(), application_name="cut", wait_seconds=10)
        first = Leases(line, Clock(), f"first-{message}", lease_seconds=LONG_SECONDS)
        second, third = (Leases(pg, hand, f"{who}-{message}", lease_seconds=LONG_SECONDS) for who in ("second", "third"))
        if act == "take":
            await Leases(line, Clock(), "warm", lease_seconds=LONG_SECONDS).keep()
            await _free(pg)
        else:
            await first.keep()
        cutter.arm(message, loses_answer=loses_answer)
        with contextlib.suppress(Unavailable, OutcomeUnknown):
            await (first.give_back() if act == "give back" else first.keep())
        has_cut = cutter.has_cut
        cutter.disarm()
        await line.close()
        await cutter.close()
        cuts += has_cut
        recorded = await _recorded(pg, f"first-{message}")
        assert len(recorded) in (0, RANGES), "half written"
        assert set(first.held()) <= recorded, "it trusts a lease that PostgreSQL does not know"
        await second.keep()
        assert not recorded & set(second.held()), "two hold one range"
        await third.keep()
        await _expire(pg)
        hand.at += LONG_SECONDS
        await third.keep()
        assert len(third.held()) == RANGES, "nothing is held for ever"
        if not has_cut:
            break
    assert 1 <= cuts < MESSAGES_MAX - 1


async def _free(pg: Postgres) -> None:
    """As when everybody had given back."""
    async with pg.connection() as connection:
        await connection.execute("UPDATE sagas.leases SET expires_at = '-infinity'")


async def _recorded(pg: Postgres, holder: str) -> set[int]:
    """The ranges whose leases PostgreSQL knows as this holder's, and running."""
    async with pg.connection() as connection:
        rows = await connection.fetch(
            "SELECT range FROM sagas.leases WHERE holder = $1 AND expires_at > clock_timestamp()", holder
        )
    return {row["range"] for row in rows}


async def _expired(pg: Postgres) -> bool:
    async with pg.connection() as connection:
        return bool(await connection.fetchval("SELECT bool_and(expires_at < clock_timestamp()) FROM sagas.leases"))


async def _expire(pg: Postgres) -> None:
    """As when every lease has run out by PostgreSQL's clock."""
    async with pg.connection() as connection:
        await connection.execute("UPDATE sagas.leases SET expires_at = clock_timestamp()")


async def _holds(leases: Leases, number: int) -> bool:
    await leases.keep()
    return leases.trusted(number)

"""The fence under the hammer: many writers, a kill in the middle, again and again; and the mutants that it has to catch (P8).

An ordinary run takes 300 rounds of the fence, about 20 seconds on two busy cores; `RESCIND_TEST_LONG=1` takes 10,000.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
from rescind.admission import Admission as Asking
from rescind.bodies import Begin
from rescind.wire import AdmitResult

from runtime.clock import Entropy
from runtime.postgres import Postgres
from sagas.core.admission import START_WINDOW_MS
from sagas.definitions.store import Catalogue
from sagas.ledger.admission import Admission
from sagas.ledger.reports import Reports
from tests.sagas.ledger.mutants import Dawdling, FromTheReply, OutsideTheFence, ReadmitsByUpdate, RepeatableRead, WithoutLock
from tests.sagas.ledger.wire import HandClock, Wire
from tests.sagas.ledger.world import ENVIRONMENT, FLAG, World

IS_LONG = os.environ.get("RESCIND_TEST_LONG") == "1"
ROUNDS = 10_000 if IS_LONG else 300
REPORT_ROUNDS = 1_000 if IS_LONG else 60
MUTANT_ROUNDS = 200
WINDOW_ROUNDS = 10
WRITERS = 24
SERVERS = 3


class Hammer:
    """Writers that ask without end, and one who kills."""

    def __init__(self, pg: Postgres, worlds: list[World], seed: int) -> None:
        self.pg = pg
        self.worlds = worlds
        self.random = random.Random(seed)
        self.open = asyncio.Event()
        self.parked = 0
        self.admitted: list[str] = []
        self.escapes: list[str] = []
        self.count = 0
        self.lower = ""
        self.disturbed = 0

    async def prepare(self) -> None:
        """Another flag whose lock is taken before the hammered one's, so that groups can be made to wait between the two."""
        mine = await self.worlds[0].value("SELECT sagas.lock_key($1, $2)", ENVIRONMENT, FLAG)
        for number in range(64):
            self.lower = f"other-{number}"
            if await self.worlds[0].value("SELECT sagas.lock_key($1, $2)", ENVIRONMENT, self.lower) < mine:
                break
        await self.worlds[0].put_flag(self.lower)

    async def write(self, number: int) -> None:
        """Ask, in turn of every server; rest when killed, until the flag is open again."""
        world = self.worlds[number % len(self.worlds)]
        turn = 0
        while True:
            turn += 1
            if (turn + number // SERVERS) % 4 == 0:
                assert (await world.ask(f"{number}:{turn}", flag=self.lower)).outcome == "admitted"
                continue
            result = await world.ask(f"{number}:{turn}", instance=f"w{number}")
            if result.outcome == "admitted":
                self.admitted.append(shown(result))
                if turn % 3 == 0:
                    await self.fail_and_ask_again(world, result, f"{number}:{turn}")
                continue
            assert result.outcome == "killed", result
            self.open.clear()
            self.parked += 1
            await self.open.wait()
            self.parked -= 1

    async def fail_and_ask_again(self, world: World, effect: AdmitResult, key: str) -> None:
        """The next attempt under the same key: another permission to start, which the set has to know as well."""
        await world.report(effect, "failed", error={"code": "declined"})
        again = await world.ask(key)
        if again.outcome == "admitted":
            self.admitted.append(shown(again))

    async def round(self) -> None:
        """Let them write, kill, close the set behind the drain barrier, and look for what came in all the same."""
        self.admitted.clear()
        enough = self.random.randint(3, 40)
        while len(self.admitted) < enough:
            await asyncio.sleep(0)
        async with self.barrier_elsewhere():
            await self.worlds[0].kill()
            epoch, closed = await self.close()
        told = await asyncio.gather(*[world.ask() for world in self.worlds])
        assert [one.outcome for one in told] == ["killed"] * len(self.worlds)
        while self.parked < WRITERS:
            await asyncio.sleep(0)
        everything = await self.effects(epoch)
        self.escapes += sorted(everything - closed)
        assert set(self.admitted) <= everything, "an effect was admitted and is not on record"
        self.count += len(everything)
        await self.worlds[0].lift()
        self.open.set()

    @contextlib.asynccontextmanager
    async def barrier_elsewhere(self) -> AsyncIterator[None]:
        """In every second round, another kill's barrier holds groups that have begun and have yet to reach our flag's lock."""
        self.disturbed += 1
        if self.disturbed % 2:
            yield
            return
        async with self.pg.transaction() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(sagas.lock_key($1, $2))", ENVIRONMENT, self.lower)
            waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            for _ in range(20):
                if await connection.fetchval(waiting):
                    break
            yield

    async def close(self) -> tuple[int, set[str]]:
        """The drain barrier, and the set as it is once it was granted."""
        async with self.pg.transaction() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(sagas.lock_key($1, $2))", ENVIRONMENT, FLAG)
        epoch = await self.worlds[0].value("SELECT epoch - 1 FROM sagas.fences WHERE flag = $1 AND scope_key = ''", FLAG)
        return epoch, await self.effects(epoch)

    async def effects(self, epoch: int) -> set[str]:
        """The epoch's effects, each attempt at one of them an admission of its own."""
        async with self.pg.connection() as connection:
            rows = await connection.fetch("SELECT id, attempt FROM sagas.effects WHERE flag = $1 AND epoch = $2", FLAG, epoch)
        return {f"{row['id']}:{attempt}" for row in rows for attempt in range(1, row["attempt"] + 1)}

    async def run(self, rounds: int, *, until_escape: bool = False) -> None:
        """So many rounds, or as many as it takes to see an escape."""
        await self.prepare()
        writers = [asyncio.create_task(self.write(number)) for number in range(WRITERS)]
        try:
            for _ in range(rounds):
                await asyncio.wait_for(self.round(), 30)
                if until_escape and self.escapes:
                    return
        finally:
            for writer in writers:
                writer.cancel()
            outcomes = await asyncio.gather(*writers, return_exceptions=True)
            faults = [one for one in outcomes if isinstance(one, Exception)]
            assert not faults, faults[0]


def shown(effect: AdmitResult) -> str:
    """Which attempt at which effect."""
    return f"{effect.effect_id}:{effect.attempt}"


@contextlib.asynccontextmanager
async def servers(
    pg: Postgres, admission: type[Admission] = Admission, reports: type[Reports] = Reports
) -> AsyncIterator[list[World]]:
    """Several ledgers on one database, as several servers are."""
    opened = [await World.open(pg, admission=admission(Entropy(), Catalogue()), reports=reports()) for _ in range(SERVERS)]
    yield opened
    await asyncio.gather(*[world.close() for world in opened])


@pytest.mark.timeout(3_600 if IS_LONG else 180)
async def test_the_fence_holds_under_the_hammer(pg: Postgres) -> None:  # P8
    async with servers(pg) as worlds:
        hammer = Hammer(pg, worlds, seed=8)
        await hammer.run(ROUNDS)
    assert hammer.escapes == []
    assert hammer.count > ROUNDS * 5


@pytest.mark.parametrize("mutant", [WithoutLock, RepeatableRead, ReadmitsByUpdate])
async def test_the_hammer_catches_a_broken_fence(pg: Postgres, mutant: type[Admission]) -> None:  # P8, hazard 10
    async with servers(pg, admission=mutant) as worlds:
        hammer = Hammer(pg, worlds, seed=8)
        await hammer.run(MUTANT_ROUNDS, until_escape=True)
    assert hammer.escapes


async def report_against_enumeration(pg: Postgres, worlds: list[World], rounds: int, *, until_lost: bool) -> list[str]:
    """Outcomes reported while a set is being closed: those that neither the closed set nor an arming knows."""
    lost: list[str] = []
    chance = random.Random(3)
    for _ in range(rounds):
        effects: list[AdmitResult] = []
        for world in worlds:
            effects += await world.admit(*[world.item(f"{chance.getrandbits(64)}") for _ in range(8)])
        begun = asyncio.Event()

        async def report(effect: AdmitResult, number: int, begun: asyncio.Event = begun) -> None:
            if number > 4:
                await begun.wait()
            await worlds[number % SERVERS].report(effect, "succeeded", result={"n": number})

        reports = [asyncio.create_task(report(effect, number)) for number, effect in enumerate(effects)]
        killed = await worlds[0].kill()
        asyncio.get_running_loop().call_later(chance.random() * 0.004, begun.set)
        await worlds[0].close_set(killed)
        ids = [UUID(effect.effect_id or "") for effect in effects]
        seen = set(
            await worlds[0].value(
                "SELECT coalesce(array_agg(id), '{}') FROM sagas.effects WHERE id = ANY($1) AND status = 'succeeded'", ids
            )
        )
        await asyncio.gather(*reports)
        armed = set(
            await worlds[0].value(
                "SELECT coalesce(array_agg(effect_id), '{}') FROM sagas.late WHERE rollback_id = $1", killed.rollback_id
            )
        )
        lost += [str(one) for one in ids if one not in seen | armed]
        await worlds[0].settle(killed)
        await worlds[0].lift(force=True)
        if until_lost and lost:
            break
    return lost


@pytest.mark.timeout(3_600 if IS_LONG else 180)
async def test_no_report_falls_between_the_set_and_its_enumeration(pg: Postgres) -> None:  # P11, hazard 3
    async with servers(pg, reports=Dawdling) as worlds:
        assert await report_against_enumeration(pg, worlds, REPORT_ROUNDS, until_lost=False) == []


async def test_the_hammer_catches_reports_outside_the_fence(pg: Postgres) -> None:  # hazard 3
    async with servers(pg, reports=OutsideTheFence) as worlds:
        assert await report_against_enumeration(pg, worlds, MUTANT_ROUNDS, until_lost=True)


async def permissions_against_the_drain(world: World, folder: Path, admission: type[Asking]) -> tuple[int, list[float]]:
    """Instances whose answers are long under way: how many bodies began, and by how much after *drained* some of them did."""
    chance, hand = random.Random(11), HandClock()
    begun, late = 0, []
    for _ in range(WINDOW_ROUNDS):
        wires = [Wire(world, hand, folder, admission) for _ in range(WRITERS)]
        asking = [asyncio.create_task(wire.permit()) for wire in wires]
        await asyncio.gather(*[wire.admitted.wait() for wire in wires])
        killed = await world.kill()
        await world.close_set(killed)
        drained = hand.at + START_WINDOW_MS / 1000 * 1.01 + 0.05  # hazard 1
        for wire, asked in zip(wires, asking, strict=True):
            hand.at += chance.random() / 4
            wire.delivers.set()
            permission = await asked
            hand.at += chance.random() / 4
            if wire.core.bodies.begin(permission)[0] is Begin.YES:
                begun += 1
                late += [hand.at - drained] if hand.at >= drained else []
        await asyncio.gather(*[wire.core.close(1.0) for wire in wires])
        await world.settle(killed)
        await world.lift(force=True)
    return begun, late


async def test_no_body_begins_after_drained_however_long_its_answer_took(world: World, tmp_path: Path) -> None:  # P8, hazard 1
    begun, late = await permissions_against_the_drain(world, tmp_path, Asking)
    assert late == []
    assert begun > WINDOW_ROUNDS


async def test_the_hammer_catches_a_window_counted_from_the_reply(world: World, tmp_path: Path) -> None:  # P8, hazard 10
    _, late = await permissions_against_the_drain(world, tmp_path, FromTheReply)
    assert late

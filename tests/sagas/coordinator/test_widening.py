"""A kill repeated, widened, cancelled, resumed, and one that comes while work is under way (P17, P19, hazards 11 and 15)."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest

from runtime.postgres import Connection
from sagas.catalogue import Catalogue, Effect
from sagas.claims import Claims
from sagas.decisions import Decisions
from sagas.enumeration import Enumeration, Rollback
from tests.sagas.coordinator.world import ENVIRONMENT, FLAG, REFUND, World
from tests.waiting import until

WHO = {"actor": "ann", "reason": "looked at it"}
OTHER = "z.last"
KILL = """
SELECT rollback_id FROM rollbacks.kill_v1(
    $1, $2, 'bad release', 'test', NULL, $3, 0, $4, $5, NULL, NULL, NULL, NULL, NULL, NULL)
"""

KILL_SINCE = """
SELECT rollback_id FROM rollbacks.kill_v1(
    $1, $2, 'bad release', 'test', NULL, 'auto', 0, '{}', NULL, $3, $4, NULL, NULL, NULL, NULL)
"""


@pytest.fixture
async def flags(world: World) -> list[str]:
    """Two flags as a kill by its real function finds them."""
    await world.define(REFUND)
    await world.flag(OTHER)
    await world.run("INSERT INTO flagd.environments (name) VALUES ($1) ON CONFLICT DO NOTHING", ENVIRONMENT)
    for key in (FLAG, OTHER):
        await world.run(
            "INSERT INTO flagd.flags (environment, key, document, off_variant, changed_generation, changed_revision) "
            "VALUES ($1, $2, '{}', 'off', 1, 0)",
            ENVIRONMENT,
            key,
        )
    return [FLAG, OTHER]


async def kill(
    world: World, flags: list[str], since: datetime | None = None, compensate: str = "auto", scope: dict[str, Any] | None = None
) -> UUID:
    rollback: UUID = await world.value(KILL, ENVIRONMENT, flags, compensate, scope or {}, since)
    return rollback


async def old_and_young(world: World, flag: str = FLAG) -> tuple[UUID, UUID, datetime]:
    """Two effects, and the instant between them."""
    old = await world.effect(REFUND, "o1")
    between: datetime = await world.value("SELECT clock_timestamp()")
    return old, await world.effect(REFUND, "o2", flag=flag), between


async def has_state(world: World, rollback: UUID, state: str) -> bool:
    return await world.state(rollback) == state


class Interrupted(Enumeration):
    """Another kill is committed between a chunk's look and its note of how far it came."""

    kill: Any = None

    async def _take(self, connection: Connection, rollback: Rollback, effects: Any) -> None:
        taken: list[Effect] = list(effects)
        await super()._take(connection, rollback, taken)
        if self.kill is not None:
            again, self.kill = self.kill, None
            await again()


@pytest.mark.parametrize("place", [FLAG, OTHER])
@pytest.mark.parametrize("chunks", [1, 2])
async def test_a_kill_that_widens_while_a_chunk_is_taken_loses_no_effect(
    world: World, flags: list[str], place: str, chunks: int
) -> None:  # P12, hazard 11
    old, young, between = await old_and_young(world, place)
    rollback = await kill(world, flags, between)
    enumeration = Interrupted(Catalogue(world.clock), world.entropy)

    async def again() -> None:
        assert await kill(world, flags) == rollback

    known = Rollback(id=rollback, environment=ENVIRONMENT, reason="bad release", incident=None)
    for number in range(chunks):
        enumeration.kill = again if number == chunks - 1 else None
        async with world.pg.transaction() as connection:
            await enumeration.chunk(connection, known)
    reached = "SELECT count(*) FROM sagas.rollback_flags WHERE enumerated OR cursor IS NOT NULL"
    assert await world.value(reached) == 0, "what the first sweep had reached no longer counts"
    await world.started()
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == {old: "compensated", young: "compensated"}


async def test_cancelling_what_will_be_held_takes_effect_before_it_is_drained(world: World) -> None:  # P17, P12
    await world.define(REFUND)
    effect = await world.effect(REFUND, "o1")
    rollback = await world.kill(compensate="hold")
    await Decisions(world.pg).cancel(rollback, **WHO)
    await world.started()
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == {effect: "skipped"}


async def test_a_wider_kill_does_not_skip_what_the_canceller_never_saw(world: World, flags: list[str]) -> None:  # P19, P20
    old, young, between = await old_and_young(world)
    rollback = await kill(world, flags, between)
    await Decisions(world.pg).cancel(rollback, **WHO)
    await world.started()
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == {young: "skipped"}
    assert await kill(world, flags) == rollback
    await until(lambda: world.value("SELECT count(*) FROM sagas.dispositions WHERE state = 'compensated'"))
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == {old: "compensated", young: "skipped"}


async def test_a_kill_of_more_people_does_not_skip_what_the_canceller_never_saw(
    world: World, flags: list[str]
) -> None:  # P19, P20
    seen = await world.effect(REFUND, "o1", attributes={"country": "DE"})
    unseen = await world.effect(REFUND, "o2", attributes={"country": "FR"})
    rollback = await kill(world, [FLAG], scope={"country": "DE"})
    await Decisions(world.pg).cancel(rollback, **WHO)
    await world.started()
    await until(lambda: world.is_settled(rollback))
    assert await kill(world, [FLAG]) == rollback
    await until(lambda: world.value("SELECT count(*) FROM sagas.dispositions WHERE state = 'compensated'"))
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == {seen: "skipped", unseen: "compensated"}


async def test_what_was_held_and_cancelled_is_held_when_it_is_widened(world: World, flags: list[str]) -> None:  # P17, P19
    old, young, between = await old_and_young(world)
    rollback = await kill(world, flags, between, "hold")
    await Decisions(world.pg).cancel(rollback, **WHO)
    await world.started()
    await until(lambda: world.is_settled(rollback))
    assert await kill(world, flags, compensate="hold") == rollback
    await until(lambda: has_state(world, rollback, "held"))
    assert await world.dispositions(rollback) == {young: "skipped"}
    await Decisions(world.pg).resume(rollback, **WHO)
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == {old: "compensated", young: "skipped"}


async def test_what_a_person_let_begin_is_not_held_again_by_the_next_kill(world: World, flags: list[str]) -> None:  # P17, P19
    old, young, between = await old_and_young(world)
    rollback = await kill(world, flags, between, "hold")
    await world.started()
    await until(lambda: has_state(world, rollback, "held"))
    await Decisions(world.pg).resume(rollback, **WHO)
    await until(lambda: world.is_settled(rollback))
    assert await kill(world, flags, compensate="hold") == rollback
    await until(lambda: world.value("SELECT count(*) = 2 FROM sagas.dispositions WHERE state = 'compensated'"))
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == {old: "compensated", young: "compensated"}


async def test_a_claim_under_way_holds_up_no_kill_and_is_over_when_a_pause_is_answered(
    world: World, flags: list[str]
) -> None:  # P5, P17, hazards 10 and 15
    _, young, between = await old_and_young(world)
    rollback = await kill(world, flags, between)
    await world.run("UPDATE sagas.rollbacks SET state = 'compensating', closed_at = now(), drained_at = now()")
    known = Rollback(id=rollback, environment=ENVIRONMENT, reason="bad release", incident=None)
    catalogue = Catalogue(world.clock)
    async with world.pg.transaction() as connection:
        await Enumeration(catalogue, world.entropy).chunk(connection, known)
    async with world.pg.transaction() as connection:
        claimed = await Claims(catalogue, world.entropy).claim(connection, rollback, actor="slow", limit=9)
        assert claimed is not None
        assert len(claimed.attempts) == 1
        assert await asyncio.wait_for(kill(world, flags), 60) == rollback
        pause = asyncio.create_task(Decisions(world.pg).pause(rollback, **WHO))
        await until(lambda: world.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))
        assert not pause.done()
    assert (await pause).changed == 1
    async with world.pg.transaction() as connection:
        assert await Claims(catalogue, world.entropy).claim(connection, rollback, actor="late", limit=9) is None
    assert await world.dispositions(rollback) == {young: "pending"}


async def test_a_kill_since_a_revision_takes_what_was_served_from_then_on_and_what_does_not_say(
    world: World, flags: list[str]
) -> None:  # P12
    served = [(1, 9), (2, 6), (2, 7), (2, 8), (3, 1), (0, 0)]
    effects = {revision: await world.effect(REFUND, f"o{revision}") for revision in served}
    for (generation, n), effect in effects.items():
        await world.run("UPDATE sagas.effects SET revision_generation = $2, revision = $3 WHERE id = $1", effect, generation, n)
    rollback = await world.value(KILL_SINCE, ENVIRONMENT, flags, 2, 7)
    await world.started()
    await until(lambda: world.value("SELECT enumerated_at FROM sagas.rollbacks WHERE id = $1", rollback))
    assert set(await world.dispositions(rollback)) == {effects[each] for each in served if each >= (2, 7) or each == (0, 0)}
    await until(lambda: world.is_settled(rollback))
    assert len(world.payments.refunds) == 4

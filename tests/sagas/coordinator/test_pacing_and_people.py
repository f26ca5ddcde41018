"""P17 and what named persons decide; P20 where they do."""

from __future__ import annotations

import itertools
import uuid

import pytest

from runtime.problem import Problem
from sagas.catalogue import Catalogue
from sagas.claims import Claims
from sagas.decisions import Decisions
from tests.sagas.coordinator.world import MAIL, NOTICE, REFUND, World
from tests.waiting import until

WHO = {"actor": "ann", "reason": "checked with payments"}


@pytest.fixture
def decisions(world: World) -> Decisions:
    return Decisions(world.pg)


async def test_no_more_run_at_once_than_the_pace_allows_over_all_coordinators(world: World) -> None:  # P17
    await world.define({**REFUND, "pace": {"concurrency_max": 3}})
    for n in range(24):
        await world.effect(REFUND, f"o{n}")
    rollbacks = [await world.kill()]
    await world.flag("other.flag")
    for n in range(24):
        await world.effect(REFUND, f"x{n}", flag="other.flag")
    rollbacks.append(await world.kill("other.flag"))
    await world.started()
    await world.started()
    for rollback in rollbacks:
        await until(lambda rollback=rollback: world.is_settled(rollback))
    rows = await world.rows("SELECT started_at, ended_at FROM sagas.attempts")
    moments = sorted([(row["started_at"], 1) for row in rows] + [(row["ended_at"], -1) for row in rows])
    assert max(itertools.accumulate(step for _, step in moments)) <= 3


async def test_the_rate_of_a_kind_holds(world: World) -> None:  # P17
    await world.define({**REFUND, "pace": {"per_second": 20}})
    for n in range(20):
        await world.effect(REFUND, f"o{n}")
    rollback = await world.kill()
    await world.started()
    await until(lambda: world.is_settled(rollback))
    rows = await world.rows("SELECT started_at FROM sagas.attempts ORDER BY started_at")
    times = [row["started_at"].timestamp() for row in rows]
    worst = max(sum(start <= other < start + 0.5 for other in times) for start in times)
    assert worst <= 20 * 0.5 + 20 * 0.1 + 1


async def test_a_grace_period_holds_everything_back_and_then_ends_by_itself(world: World) -> None:  # P17
    await world.define(REFUND)
    await world.effect(REFUND, "o1")
    rollback = await world.kill(grace_seconds=0.6)
    await world.started()
    await until(lambda: _in(world, rollback, "grace"))
    assert await world.value("SELECT count(*) FROM sagas.members") == 0
    await until(lambda: world.is_settled(rollback))
    row = (await world.rows("SELECT drained_at, grace_until FROM sagas.rollbacks"))[0]
    assert (row["grace_until"] - row["drained_at"]).total_seconds() == 0.6
    assert await world.value("SELECT min(started_at) FROM sagas.attempts") >= row["grace_until"]


async def test_what_is_lifted_in_its_grace_is_not_undone(world: World) -> None:  # P17
    await world.define(REFUND)
    await world.effect(REFUND, "o1")
    rollback = await world.kill(grace_seconds=60)
    await world.started()
    await until(lambda: _in(world, rollback, "grace"))
    await world.run("UPDATE sagas.rollbacks SET state = 'settled', outcome = 'lifted_in_grace', version = version + 1")
    second = await world.kill(closes_epoch=3)
    await until(lambda: world.is_settled(second))
    assert len(world.payments.refunds) == 1, "it stayed open for the later kill"
    assert await world.dispositions(rollback) == {}


async def test_held_begins_when_a_person_says_so(world: World, decisions: Decisions) -> None:  # P17
    await world.define(REFUND)
    await world.effect(REFUND, "o1")
    rollback = await world.kill(compensate="hold")
    await world.started()
    await until(lambda: _in(world, rollback, "held"))
    assert (await decisions.resume(rollback, **WHO)).changed == 1
    await until(lambda: world.is_settled(rollback))
    assert (await decisions.resume(rollback, **WHO)).changed == 0
    rows = await world.rows("SELECT actor, action, reason FROM runtime.audit")
    assert [(row["actor"], row["action"], row["reason"]) for row in rows] == [("ann", "rollback.resume", WHO["reason"])]


async def test_compensate_none_undoes_nothing_and_leaves_the_effects_open(world: World) -> None:
    await world.define(REFUND)
    effect = await world.effect(REFUND, "o1")
    rollback = await world.kill(compensate="none")
    await world.started()
    await until(lambda: world.is_settled(rollback))
    assert await world.value("SELECT outcome FROM sagas.rollbacks") == "not_compensated"
    later = await world.kill(closes_epoch=2)
    await until(lambda: world.is_settled(later))
    assert await world.dispositions(later) == {effect: "compensated"}


async def test_paused_means_that_nothing_runs_and_nothing_begins(world: World, decisions: Decisions) -> None:  # P17, hazard 15
    await world.define({**REFUND, "pace": {"concurrency_max": 2}, "timeout_seconds": 5})
    for n in range(10):
        await world.effect(REFUND, f"o{n}")
    world.payments.fates = ["hang", "hang"]
    rollback = await world.kill()
    await world.started()
    await until(lambda: len(world.payments.posts) == 2)
    await decisions.pause(rollback, **WHO)
    assert await world.state(rollback) == "compensating", "two are still running"
    world.payments.released.set()
    await until(lambda: _in(world, rollback, "paused"))
    assert await world.value("SELECT count(*) FROM sagas.compensations WHERE state = 'running'") == 0
    assert len(world.payments.posts) == 2
    assert (await decisions.pause(rollback, **WHO)).changed == 0
    await decisions.resume(rollback, **WHO)
    await until(lambda: world.is_settled(rollback))
    assert len(world.payments.refunds) == 10


async def test_a_claim_that_races_a_pause_begins_nothing(world: World, decisions: Decisions) -> None:  # P17, hazard 15
    await world.define(MAIL)
    await world.effect(MAIL, "o1", subject="c1")
    world.mail.fates = ["refused"]
    rollback = await world.kill()
    coordinator = await world.started()
    await until(lambda: _in(world, rollback, "waiting"))
    await coordinator.stop()
    await decisions.retry(rollback, **WHO)
    claims = Claims(Catalogue(world.clock), world.entropy)
    await decisions.pause(rollback, **WHO)
    async with world.pg.transaction() as connection:
        assert await claims.claim(connection, rollback, actor="late", limit=9) is None
    await decisions.resume(rollback, **WHO)
    async with world.pg.transaction() as connection:
        claimed = await claims.claim(connection, rollback, actor="late", limit=9)
    assert claimed is not None
    assert len(claimed.attempts) == 1


async def test_cancel_skips_the_rest_by_name(world: World, decisions: Decisions) -> None:  # P12, P20
    await world.define(REFUND)
    effects = [await world.effect(REFUND, f"o{n}") for n in range(5)]
    rollback = await world.kill(compensate="hold")
    await world.started()
    await until(lambda: _in(world, rollback, "held"))
    await decisions.cancel(rollback, **WHO)
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == dict.fromkeys(effects, "skipped")
    assert await world.value("SELECT DISTINCT by_whom FROM sagas.dispositions") == "ann"
    assert world.payments.posts == []


async def test_cancel_in_the_middle_lets_what_runs_end(world: World, decisions: Decisions) -> None:  # P12
    await world.define({**REFUND, "pace": {"concurrency_max": 1}, "timeout_seconds": 5})
    for n in range(5):
        await world.effect(REFUND, f"o{n}")
    world.payments.fates = ["ok", "hang"]
    rollback = await world.kill()
    await world.started()
    await until(lambda: len(world.payments.posts) == 2)
    await decisions.cancel(rollback, **WHO)
    await until(lambda: world.value("SELECT count(*) = 3 FROM sagas.dispositions WHERE state = 'skipped'"))
    world.payments.released.set()
    await until(lambda: world.is_settled(rollback))
    states = sorted((await world.dispositions(rollback)).values())
    assert states == ["compensated"] * 2 + ["skipped"] * 3


async def test_a_person_retries_what_waits(world: World, decisions: Decisions) -> None:  # P16
    await world.define(MAIL)
    effect = await world.effect(MAIL, "o1", subject="c1")
    world.mail.fates = ["refused"]
    rollback = await world.kill()
    await world.started()
    await until(lambda: _in(world, rollback, "waiting"))
    assert (await decisions.retry(rollback, **WHO)).changed == 1
    assert (await decisions.retry(rollback, **WHO)).changed == 0
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == {effect: "compensated"}
    verbs = [row["verb"] for row in await world.rows("SELECT verb FROM sagas.attempts ORDER BY id")]
    assert verbs == ["act", "retry", "act"]


async def test_a_person_retries_once_the_definition_is_there(world: World, decisions: Decisions) -> None:  # P15
    effect = await world.effect(REFUND, "o1")
    rollback = await world.kill()
    await world.started()
    await until(lambda: _in(world, rollback, "waiting"))
    await world.define(REFUND)
    await until(lambda: _retried(world, decisions, rollback))
    assert await world.dispositions(rollback) == {effect: "compensated"}


async def test_a_person_skips_by_name_and_for_ever(world: World, decisions: Decisions) -> None:  # P12, P20
    await world.define(MAIL)
    effect = await world.effect(MAIL, "o1", subject="c1")
    world.mail.fates = ["lost"]
    rollback = await world.kill()
    await world.started()
    await until(lambda: _in(world, rollback, "waiting"))
    assert (await decisions.skip(rollback, [effect], **WHO)).changed == 1
    assert (await decisions.skip(rollback, [effect], **WHO)).changed == 0
    await until(lambda: world.is_settled(rollback))
    row = (await world.rows("SELECT state, by_whom, reason FROM sagas.dispositions"))[0]
    assert (row["state"], row["by_whom"], row["reason"]) == ("skipped", "ann", WHO["reason"])
    assert await world.value("SELECT count(*) FROM sagas.subjects") == 0
    assert await world.value("SELECT undone FROM sagas.effects") is True


async def test_a_notice_nobody_approved_is_sent_once_a_person_approves_it(world: World, decisions: Decisions) -> None:
    await world.define({**NOTICE, "notice_approved": False})
    effects = [await world.effect(NOTICE, f"o{n}") for n in range(2)]
    rollback = await world.kill()
    await world.started()
    await until(lambda: _in(world, rollback, "waiting"))
    assert world.partner.posts == []
    await decisions.retry(rollback, [effects[0]], **WHO)
    await until(lambda: len(world.partner.posts) == 1)
    assert (await decisions.acknowledge(rollback, [effects[1]], **WHO)).changed == 1
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == dict.fromkeys(effects, "irreversible")
    assert len(world.partner.posts) == 1
    assert (await decisions.acknowledge(rollback, **WHO)).changed == 1
    assert await world.value("SELECT count(*) FROM sagas.dispositions WHERE acknowledged_by = 'ann'") == 2


async def test_an_unknown_rollback_is_not_found(decisions: Decisions) -> None:
    with pytest.raises(Problem) as caught:
        await decisions.pause(uuid.UUID(int=1), **WHO)
    assert caught.value.status == 404


async def _in(world: World, rollback: uuid.UUID, state: str) -> bool:
    return await world.state(rollback) == state


async def _retried(world: World, decisions: Decisions, rollback: uuid.UUID) -> bool:
    """The definition is read anew within seconds; until then a retry finds nothing new."""
    if await world.is_settled(rollback):
        return True
    await decisions.retry(rollback, **WHO)
    return False

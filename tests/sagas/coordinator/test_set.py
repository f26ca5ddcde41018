"""The set where two flags meet in one saga instance: who is in it, and that it always adds up (P12, hazard 13)."""

from __future__ import annotations

import itertools
from typing import Any
from uuid import UUID

import pytest

from sagas import settlement
from sagas.decisions import Decisions
from tests.sagas.coordinator.world import ENVIRONMENT, FAST, FLAG, REFUND, World
from tests.waiting import until

OTHER = "checkout.loyalty"
WHO = {"actor": "ann", "reason": "looked at it"}
SECOND = {**REFUND, "name": "second", "kind": "second.pay"}
BONUS = {**REFUND, "name": "bonus", "kind": "bonus.pay", "independent": True}
WAIT = {**REFUND, "in_doubt": "wait"}
LATE = ("late", "late_failed", "independent_late")
FATES = ("done", "late", "late_failed", "found", "absent", "asked", "failed", "independent", "independent_late")


async def waits(world: World, rollback: UUID) -> bool:
    return await world.state(rollback) == "waiting"


async def adds_up(world: World, rollback: UUID) -> bool:
    async with world.pg.connection() as connection:
        return (await settlement.sums(connection, rollback)).adds_up


async def test_a_late_success_of_an_independent_step_is_left_alone(world: World) -> None:  # hazard 13, P11
    await world.define(REFUND, BONUS)
    await world.flag(OTHER)
    taken = await world.effect(REFUND, "o1")
    bonus = await world.effect(BONUS, "o1", flag=OTHER, status="admitted", lease_seconds=60)
    rollback = await world.kill()
    await world.started()
    await until(lambda: world.is_settled(rollback))
    await world.report(bonus, "succeeded")
    assert await world.value("SELECT count(*) FROM sagas.late") == 0, "nobody is asked to look at it"
    await world.run("INSERT INTO sagas.late (rollback_id, effect_id) VALUES ($1, $2)", rollback, bonus)
    await until(lambda: world.value("SELECT count(*) = 0 FROM sagas.late"))
    assert await world.dispositions(rollback) == {taken: "compensated"}
    assert len(world.payments.refunds) == 1
    assert await adds_up(world, rollback)


async def test_a_later_effect_that_a_look_up_finds_is_in_the_set_for_good(world: World) -> None:  # P16, hazard 13
    await world.define(REFUND, SECOND)
    await world.flag(OTHER)
    found = await world.effect(SECOND, "o1", flag=OTHER, status="in_doubt")
    taken = await world.effect(REFUND, "o1")
    rollback = await world.kill()
    await world.started()
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == {found: "compensated", taken: "compensated"}


async def test_only_what_is_known_to_have_succeeded_takes_what_came_after_it(world: World) -> None:  # hazard 13, P12
    await world.define(WAIT, SECOND)
    await world.flag(OTHER)
    doubtful = await world.effect(WAIT, "o1", status="in_doubt")
    sibling = await world.effect(SECOND, "o1", flag=OTHER, status="admitted", lease_seconds=60)
    rollback = await world.kill()
    await world.started()
    await until(lambda: waits(world, rollback))
    await world.report(sibling, "succeeded")
    await Decisions(world.pg).skip(rollback, [doubtful], **WHO)
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == {doubtful: "skipped"}
    assert world.payments.posts == []


async def test_what_came_after_an_effect_in_doubt_is_taken_once_its_success_is_reported(world: World) -> None:  # hazard 13
    await world.define(WAIT, SECOND)
    await world.flag(OTHER)
    doubtful = await world.effect(WAIT, "o1", status="in_doubt")
    sibling = await world.effect(SECOND, "o1", flag=OTHER, status="admitted", lease_seconds=60)
    rollback = await world.kill()
    await world.started()
    await until(lambda: waits(world, rollback))
    await world.report(doubtful, "succeeded")
    await world.report(sibling, "succeeded")
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == {doubtful: "compensated", sibling: "compensated"}


async def test_a_loose_kind_that_is_independent_is_so_for_the_enumeration_and_for_the_count(
    world: World,
) -> None:  # P12, hazard 13
    loose = {**REFUND, "name": "gift", "kind": "gift.send"}
    await world.define(REFUND)
    document = {name: loose[name] for name in ("kind", "settle_seconds", "currency_code", "compensation")}
    await world.run(
        "INSERT INTO sagas.definitions (environment, name, is_kind, version, document, semantics_hash, created_by) "
        "VALUES ($1, $2, true, '1', $3, '', 'test')",
        ENVIRONMENT,
        loose["kind"],
        {**document, "version": "1", "independent": True},
    )
    await world.flag(OTHER)
    taken = await world.effect(REFUND, "o1")
    await world.effect(loose, "o1", flag=OTHER)
    rollback = await world.kill()
    await world.started()
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == {taken: "compensated"}


async def test_drained_waits_for_what_may_begin_under_another_flag_in_the_same_saga_instance(
    world: World,
) -> None:  # P8, hazards 1 and 13
    await world.define(REFUND, SECOND, BONUS)
    await world.flag(OTHER)
    young: dict[str, Any] = {"flag": OTHER, "status": "admitted", "begun": False, "start_seconds": 30.0, "lease_seconds": 30.0}
    await world.effect(REFUND, "o1")
    sibling = await world.effect(SECOND, "o1", **young)
    await world.effect(BONUS, "o1", **young)
    await world.effect(SECOND, "o2", **young)
    rollback = await world.kill()
    await world.started()
    await until(lambda: world.value("SELECT drained_at FROM sagas.rollbacks WHERE id = $1", rollback))
    row = (await world.rows("SELECT closed_at, drained_at FROM sagas.rollbacks"))[0]
    assert (row["drained_at"] - row["closed_at"]).total_seconds() >= FAST.start_window_seconds * 1.01 + 0.05
    await until(lambda: world.value("SELECT count(*) FROM sagas.dispositions WHERE effect_id = $1", sibling))
    await world.report(sibling, "failed")
    await until(lambda: world.is_settled(rollback))
    assert (await world.dispositions(rollback))[sibling] == "never_happened"


async def test_what_a_person_decides_in_one_rollback_is_news_for_every_other_that_names_it(world: World) -> None:  # hazard 11
    await world.define(WAIT)
    doubtful = await world.effect(WAIT, "o1", status="in_doubt")
    first = await world.kill()
    await world.started()
    await until(lambda: waits(world, first))
    second = await world.kill(closes_epoch=2)
    await until(lambda: waits(world, second))
    await Decisions(world.pg).skip(first, [doubtful], **WHO)
    for rollback in (first, second):
        await until(lambda rollback=rollback: world.is_settled(rollback))
        assert await world.dispositions(rollback) == {doubtful: "skipped"}


async def test_what_never_happened_and_did_is_pending_for_every_rollback_that_names_it(world: World) -> None:  # hazard 12
    await world.define(REFUND)
    effect = await world.effect(REFUND, "o1", status="admitted", lease_seconds=60)
    await world.report(effect, "failed")
    rollback = await world.kill()
    await world.started()
    await until(lambda: world.is_settled(rollback))
    await world.run("UPDATE sagas.effects SET status = 'succeeded' WHERE id = $1", effect)
    assert not await adds_up(world, rollback)


async def test_the_count_says_what_is_missing_beside_what_is_there(world: World) -> None:  # P12, hazard 12
    await world.define(REFUND)
    await world.effect(REFUND, "o1")
    rollback = await world.kill()
    await world.started()
    await until(lambda: world.is_settled(rollback))
    missed = await world.effect(REFUND, "o2")
    async with world.pg.connection() as connection:
        found = await settlement.sums(connection, rollback)
    assert found.missing == [missed]
    assert found.changed_at is not None
    assert found.changed_at.tzinfo is not None


async def test_an_amount_that_none_can_be_holds_up_nobody(world: World) -> None:  # P12, P17
    await world.define(WAIT)
    sane = await world.effect(WAIT, "o1", amount=10**15)
    mad = [await world.effect(WAIT, f"x{n}", amount=amount) for n, amount in enumerate((2**63, 10**15 + 1, -1))]
    rollback = await world.kill()
    await world.started()
    await until(lambda: waits(world, rollback))
    assert await world.dispositions(rollback) == {sane: "compensated", **dict.fromkeys(mad, "waiting")}
    await world.run("UPDATE sagas.dispositions SET amount_minor = $1, currency = 'USD'", 2**62)
    async with world.pg.connection() as connection:
        kinds = (await settlement.sums(connection, rollback)).kinds
        assert kinds == await settlement.counts(connection, rollback)
    assert kinds[0].money["waiting"]["USD"] == 3 * 2**62, "more than PostgreSQL's bigint holds"


def step_of(side: str, fate: str) -> dict[str, Any]:
    extra = {"independent": True} if fate.startswith("independent") else {"in_doubt": "wait"} if fate == "asked" else {}
    return {**REFUND, "name": f"{side}-{fate}", "kind": f"{side}.{fate}", **extra}


async def lay(world: World, side: str, fate: str, instance: str) -> UUID:
    status = {"done": "succeeded", "independent": "succeeded", "failed": "failed"}.get(fate)
    status = status or ("admitted" if fate in LATE else "in_doubt")
    lease = 60.0 if fate in LATE else -1.0
    flag = FLAG if side == "a" else OTHER
    return await world.effect(
        step_of(side, fate), instance, flag=flag, status=status, lease_seconds=lease, captured=fate != "absent"
    )


@pytest.mark.parametrize("kills", [(FLAG,), (FLAG, OTHER), (OTHER, FLAG)])
@pytest.mark.parametrize("reverse", [False, True])
async def test_two_flags_in_one_saga_instance_add_up_whatever_became_of_each_and_in_whatever_order(
    world: World, kills: tuple[str, ...], reverse: bool
) -> None:  # P11, P12, P16, hazards 11 to 13
    await world.define(*(step_of(side, fate) for side in "ab" for fate in FATES))
    await world.flag(OTHER)
    effects: dict[UUID, tuple[str, str, str]] = {}
    for a, b in itertools.product(FATES, FATES):
        for sides in ("ab", "ba"):
            instance = f"{a}-{b}-{sides}"
            for side in sides:
                effects[await lay(world, side, a if side == "a" else b, instance)] = (side, a if side == "a" else b, instance)
    late = sorted((each for each in effects if effects[each][1] in LATE), key=lambda each: effects[each], reverse=reverse)
    rollbacks = [await world.kill(kills[0])]
    await world.started()
    await until(lambda: world.value("SELECT enumerated_at FROM sagas.rollbacks"))
    for number, each in enumerate(late):
        if number == len(late) // 2:
            rollbacks += [await world.kill(flag) for flag in kills[1:]]
        await world.report(each, "failed" if effects[each][1] == "late_failed" else "succeeded")
    people = Decisions(world.pg)

    async def ended() -> bool:
        for rollback in rollbacks:
            if await waits(world, rollback):
                await people.skip(rollback, [each for each in effects if effects[each][1] == "asked"], **WHO)
        return all([await world.is_settled(rollback) for rollback in rollbacks])

    await until(ended)
    states: dict[UUID, str] = {}
    for rollback in rollbacks:
        assert await adds_up(world, rollback)
        states |= await world.dispositions(rollback)
    right = {"failed": "never_happened", "late_failed": "never_happened", "absent": "never_happened", "asked": "skipped"}
    assert {each: states[each] for each in states} == {each: right.get(effects[each][1], "compensated") for each in states}
    killed = {"a" if flag == FLAG else "b" for flag in kills}
    assert {each for each in effects if effects[each][0] in killed} <= set(states)
    if len(kills) == 1:
        assert not [each for each in states if effects[each][0] == "b" and effects[each][1].startswith("independent")]
    assert len(world.payments.refunds) == sum(state == "compensated" for state in states.values())

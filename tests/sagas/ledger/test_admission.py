"""The fence and the admission behind it: P8, P10, hazards 9 and 13."""

from __future__ import annotations

import random

from runtime.queries import Queries
from sagas import fences
from sagas.definitions import parse
from sagas.definitions import store as definitions
from tests.sagas.ledger.world import ENVIRONMENT, FLAG, OTHER_FLAG, World


async def test_an_effect_is_on_record_before_it_is_admitted(world: World) -> None:  # P10
    result = await world.ask("capture:1", subject="c-1", saga={"name": "order", "version": "1", "id": "1"}, step="capture")
    assert (result.outcome, result.epoch, result.attempt, result.start_within_ms) == ("admitted", 1, 1, 2000)
    row = await world.row(result)
    assert (row["status"], row["key"], row["flag"], row["subject"], row["step"]) == (
        "admitted",
        "capture:1",
        FLAG,
        "c-1",
        "capture",
    )
    assert row["payload"] == {"amount_cents": 1299, "currency": "USD"}
    assert str(row["token"]) == result.token
    assert 1.5 < (row["start_until"] - row["admitted_at"]).total_seconds() < 2.5


async def test_after_a_kill_nothing_of_the_old_epoch_is_admitted(world: World) -> None:  # P8
    killed = await world.kill()
    result = await world.ask()
    assert (result.outcome, result.off_variant, result.rollback_id) == ("killed", "off", str(killed.rollback_id))
    assert await world.value("SELECT count(*) FROM sagas.effects") == 0


async def test_without_a_variant_an_effect_counts_as_not_off(world: World) -> None:  # P8
    await world.kill()
    item = world.item()
    del item["variant"]
    assert (await world.admit(item))[0].outcome == "killed"


async def test_the_off_variant_passes_every_fence(world: World) -> None:  # P8
    await world.kill()
    result = await world.ask(variant="off")
    assert result.outcome == "admitted"
    assert (await world.row(result))["is_off"] is True


async def test_a_narrowed_kill_takes_its_scope_and_whoever_does_not_say(world: World) -> None:  # hazard 9
    await world.kill(scope={"region": "eu"})
    eu, us, silent = await world.admit(
        world.item(attributes={"region": "eu"}), world.item(attributes={"region": "us"}), world.item()
    )
    assert (eu.outcome, us.outcome, silent.outcome) == ("killed", "admitted", "killed")


async def test_a_lift_opens_the_flag_again_under_a_later_epoch(world: World) -> None:  # P8
    await world.kill()
    await world.lift()
    result = await world.ask()
    assert (result.outcome, result.epoch) == ("admitted", 3)


async def test_a_kill_stops_the_saga_instances_it_takes_an_effect_of(world: World) -> None:  # hazard 13
    saga = {"name": "order", "version": "1", "id": "4711"}
    assert (await world.ask(saga=saga, step="capture")).outcome == "admitted"
    killed = await world.kill()
    stopped = await world.ask(flag=OTHER_FLAG, saga=saga, step="ship")
    assert (stopped.outcome, stopped.rollback_id) == ("killed", str(killed.rollback_id))
    other = await world.ask(flag=OTHER_FLAG, saga={**saga, "id": "4712"}, step="ship")
    assert other.outcome == "admitted"


async def test_a_batch_answers_each_item_on_its_own(world: World) -> None:
    results = await world.admit(
        world.item("a"),
        world.item("b", flag="checkout.newflow"),
        world.item("c", lease_seconds=-1, token="nonsense"),
        {"kind": "x"},
        world.item("a"),
    )
    assert [result.outcome for result in results] == ["admitted", "unknown_flag", "invalid", "invalid", "in_progress"]
    assert results[1].error is not None
    assert results[1].error["suggestion"] == FLAG
    assert results[3].error is not None
    assert [fault["pointer"] for fault in results[3].error["errors"]] == ["/key", "/flag", "/payload"]


async def test_a_name_too_long_for_an_index_is_refused_by_name_and_its_neighbours_are_admitted(world: World) -> None:
    chance = random.Random(1)  # what does not compress

    def wide(count: int) -> str:
        return "".join(chr(chance.randrange(0x20000, 0x2A6D0)) for _ in range(count))

    saga = {"name": wide(128), "version": wide(128), "id": wide(128)}
    results = await world.admit(
        world.item(wide(128), kind=wide(128), saga=saga, step=wide(128), subject=wide(128)),
        world.item(wide(129)),
        world.item("a", saga={**saga, "id": wide(129)}, subject=wide(512)),
        world.item("b", kind=wide(128), step=wide(129)),
        world.item("c"),
    )
    assert [result.outcome for result in results] == ["admitted", "invalid", "invalid", "invalid", "admitted"]
    pointers = [[fault["pointer"] for fault in (result.error or {})["errors"]] for result in results[1:4]]
    assert pointers == [["/key"], ["/subject", "/saga/id"], ["/step"]]
    killed = await world.kill()
    await world.dispose(results[0], killed, "compensated")


async def test_an_effect_that_cannot_be_written_does_not_fail_its_neighbours(world: World) -> None:
    await world.execute("ALTER TABLE sagas.effects ADD CHECK (key <> 'poison')")
    items = [world.item("poison" if number == 7 else None) for number in range(20)]
    results = await world.admit(*items)
    assert [result.outcome for result in results] == ["admitted"] * 7 + ["invalid"] + ["admitted"] * 12
    assert (results[7].error or {})["code"] == "cannot_be_kept"
    assert await world.value("SELECT count(*) FROM sagas.effects") == 19


async def test_a_step_that_is_independent_goes_on(world: World) -> None:  # hazard 13
    step = {"kind": "ship", "key": "k", "class": "compensatable"}
    definition, faults = parse(
        {
            "saga": "order",
            "version": "1",
            "flag": FLAG,
            "steps": [{**step, "name": "capture"}, {**step, "name": "count", "independent": True}, {**step, "name": "ship"}],
        }
    )
    assert definition is not None, faults
    async with world.pg.transaction() as connection:
        await definitions.put(connection, ENVIRONMENT, definition, actor="tests")
    saga = {"name": "order", "version": "1", "id": "4711"}
    await world.ask(saga=saga, step="capture")
    await world.kill()
    assert (await world.ask(flag=OTHER_FLAG, saga=saga, step="count")).outcome == "admitted"
    assert (await world.ask(flag=OTHER_FLAG, saga=saga, step="ship")).outcome == "killed"


async def test_a_group_of_more_flags_than_it_may_lock_is_split(world: World) -> None:  # hazard 10
    for number in range(100):
        await world.put_flag(f"flag-{number}")
    results = await world.admit(*[world.item(flag=f"flag-{number}") for number in range(100)])
    assert {result.outcome for result in results} == {"admitted"}


async def test_a_fence_follows_its_flags_off_variant_until_it_is_killed(world: World) -> None:  # P4
    async def ensure(off_variant: str) -> None:
        async with world.pg.transaction() as connection:
            await fences.ensure(connection, ENVIRONMENT, [(FLAG, off_variant)])

    await ensure("old")
    await world.kill()
    await ensure("older")
    assert (await world.ask()).off_variant == "old"
    assert (await world.ask(variant="old")).outcome == "admitted"


async def test_every_query_of_the_ledger_is_prepared_against_the_schema(world: World) -> None:
    async with world.pg.connection() as connection:
        for file in ("ledger", "definitions", "connections", "fences"):
            for name, text in Queries.load("sagas", file).items():
                assert await connection.prepare(text), name

"""Several attempts at one effect: what each of them did counts, and it is undone as it was asked for (hazard 2, P15)."""

from __future__ import annotations

import pytest
from rescind.wire import AdmitResult

from sagas.definitions import parse
from sagas.definitions import store as definitions
from tests.sagas.ledger.world import ENVIRONMENT, FLAG, World


async def _two_attempts(world: World) -> tuple[AdmitResult, AdmitResult]:
    """One effect, its first permission given back, its second attempt admitted."""
    first = await world.ask("k", subject="u-1", saga={"name": "order", "version": "1", "id": "4711"}, step="capture")
    await world.report(first, "not_started")
    second = await world.ask("k", subject="u-1", saga={"name": "order", "version": "1", "id": "4711"}, step="capture")
    assert (second.effect_id, second.attempt) == (first.effect_id, 2)
    return first, second


@pytest.mark.parametrize("later", ["failed", "not_started", "unknown"])
@pytest.mark.parametrize("success_first", [True, False])
async def test_the_success_of_an_earlier_attempt_is_the_effects_success_whatever_the_later_one_says(
    world: World, later: str, success_first: bool
) -> None:  # hazard 2, P11
    first, second = await _two_attempts(world)
    news = [(first, "succeeded", {"id": "pi_1"}), (second, later, None)]
    for attempt, outcome, result in news if success_first else reversed(news):
        await world.report(attempt, outcome, result=result)
    row = await world.row(first)
    assert (row["status"], row["result"]) == ("succeeded", {"id": "pi_1"})
    assert (
        await world.ask("k", subject="u-1", saga={"name": "order", "version": "1", "id": "4711"}, step="capture")
    ).result == {"id": "pi_1"}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_two_attempts_with_two_references_are_two_effects_each_of_them_undone(
    world: World, order: tuple[int, int]
) -> None:  # hazard 2, P12
    attempts = await _two_attempts(world)
    for number in order:
        for _ in range(2):  # a repeated report names no third
            await world.report(attempts[number], "succeeded", result={"id": f"pi_{number}"})
    async with world.pg.connection() as connection:
        rows = await connection.fetch("SELECT * FROM sagas.effects WHERE key = 'k' ORDER BY completed_at")
        named = await connection.fetchval("SELECT effect_id FROM sagas.keys WHERE key = 'k'")
    assert [(row["status"], row["result"]["id"], row["undone"]) for row in rows] == [
        ("succeeded", f"pi_{number}", False) for number in order
    ]
    first, second = rows
    assert named == first["id"]
    same = ("flag", "variant", "is_off", "epoch", "attributes", "saga", "saga_version", "saga_instance", "step", "subject")
    assert [first[name] for name in (*same, "payload", "admitted_at")] == [
        second[name] for name in (*same, "payload", "admitted_at")
    ]
    assert second["attempt"] == order[1] + 1
    assert first["evidence"][-1]["second_effect"] == str(second["id"])
    assert second["evidence"][0]["of"] == str(first["id"])
    killed = await world.kill()
    named_by_it = "SELECT count(*) FROM sagas.named WHERE rollback_id = $1 AND key = 'k'"
    assert await world.value(named_by_it, killed.rollback_id) == 2


async def test_a_second_effect_reported_after_the_set_was_closed_arms_its_rollback(world: World) -> None:  # hazard 2, P11
    first, second = await _two_attempts(world)
    await world.report(second, "succeeded", result={"id": "pi_2"})
    killed = await world.kill()
    await world.close_set(killed)
    assert (await world.report(first, "succeeded", result={"id": "pi_1"})).outcome == "killed"
    late = "SELECT count(*) FROM sagas.late AS l JOIN sagas.effects AS e ON e.id = l.effect_id WHERE e.result = $1"
    assert await world.value(late, {"id": "pi_1"}) == 1


async def test_what_differs_beside_the_reference_makes_no_second_effect(world: World) -> None:  # hazard 2
    first, second = await _two_attempts(world)
    await world.report(second, "succeeded", result={"id": "pi_1", "seconds": 1})
    assert (await world.report(first, "succeeded", result={"id": "pi_1", "seconds": 9})).outcome == "recorded"
    assert (await world.report(first, "succeeded")).outcome == "evidence"
    assert await world.value("SELECT count(*) FROM sagas.effects WHERE key = 'k'") == 1


async def test_the_reference_is_the_field_that_the_definition_names(world: World) -> None:  # hazard 2, P15
    step = {"name": "capture", "kind": "payment.capture", "key": "k", "class": "compensatable"}
    refund = {"executor": "refund", "connection": "stripe", "reference": "payment"}
    definition, faults = parse(
        {"saga": "order", "version": "1", "flag": FLAG, "steps": [{**step, "compensation": refund, "currency_code": "USD"}]}
    )
    assert definition is not None, faults
    async with world.pg.transaction() as connection:
        await definitions.put(connection, ENVIRONMENT, definition, actor="tests")
    first, second = await _two_attempts(world)
    await world.report(second, "succeeded", result={"payment": "pi_1", "id": "request-1"})
    await world.report(first, "succeeded", result={"payment": "pi_1", "id": "request-2"})
    assert await world.value("SELECT count(*) FROM sagas.effects WHERE key = 'k'") == 1
    await world.report(first, "succeeded", result={"payment": "pi_2", "id": "request-2"})
    assert await world.value("SELECT count(*) FROM sagas.effects WHERE key = 'k'") == 2


@pytest.mark.parametrize(
    "changed",
    [{"subject": "u-2"}, {"kind_version": "2"}, {"saga": {"name": "order", "version": "2", "id": "4711"}}],
    ids=lambda changed: next(iter(changed)),
)
async def test_a_retry_that_is_undone_in_another_way_is_the_next_generation(
    world: World, changed: dict[str, object]
) -> None:  # P15
    asked = {"subject": "u-1", "kind_version": "1", "saga": {"name": "order", "version": "1", "id": "4711"}}
    first = await world.ask("k", **asked)
    await world.report(first, "failed", error={"code": "card_declined"})
    second = await world.ask("k", **{**asked, **changed})
    assert second.outcome == "admitted"
    assert second.effect_id != first.effect_id
    before, after = await world.row(first), await world.row(second)
    assert (before["subject"], before["kind_version"], before["saga_version"], before["tombstoned"]) == ("u-1", "1", "1", True)
    version = "2" if "saga" in changed else "1"
    now = (changed.get("subject", "u-1"), changed.get("kind_version", "1"), version, 2)
    assert (after["subject"], after["kind_version"], after["saga_version"], after["generation"]) == now


async def test_a_retry_is_recorded_with_what_it_was_served_and_when(world: World) -> None:  # P12, P15
    first = await world.ask("k", variant="on", revision=[1, 1])
    before = await world.row(first)
    await world.report(first, "failed", error={"code": "card_declined"})
    second = await world.ask("k", variant="on-too", revision=[1, 2])
    assert second.effect_id == first.effect_id
    after = await world.row(second)
    assert (after["variant"], after["revision_generation"], after["revision"]) == ("on-too", 1, 2)
    assert after["admitted_at"] > before["admitted_at"]
    assert (await world.ask("k", token=second.token, revision=[1, 3])).token == second.token
    assert (await world.row(second))["revision"] == 2

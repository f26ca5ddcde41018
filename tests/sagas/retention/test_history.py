"""What goes, what is kept by whom, and that nothing is ever silently less (P9, P12)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sagas.instances.world import Server, claim
from tests.sagas.instances.world import World as Instances
from tests.sagas.ledger.world import ENVIRONMENT, FLAG, OTHER_FLAG, World
from tests.sagas.retention.world import History
from tests.waiting import until

EMPTY = dict.fromkeys(("effects", "dispositions", "compensations", "attempts", "members", "instances", "facts", "strays"), 0)


async def test_an_instance_goes_with_all_it_did_and_its_id_still_answers(server: Server, history: History) -> None:
    await server.begin("4711")
    await server.act()
    state, result = await server.ended("4711")
    await history.age()
    await history.sweep()
    assert await history.counts(*EMPTY) == EMPTY
    assert await history.counts("keys", "remains", "instance_remains") == {"keys": 3, "remains": 3, "instance_remains": 1}
    again = await server.begin("4711")
    assert (again.outcome, again.state) == ("exists", "done")
    assert (await server.begin("4711", input={"order_id": "other"})).outcome == "conflict"
    assert await server.ended("4711") == (state, result) == ("done", result)


async def test_an_instance_that_was_undone_goes_with_its_compensations(server: Server, history: History) -> None:
    await server.begin("4711")
    await server.act(lambda task: {"outcome": "failed", "final": True} if task.step == "confirm" else None)
    assert (await server.ended("4711"))[0] == "undone"
    assert (await history.counts("compensations"))["compensations"] == 2
    await history.age()
    await history.sweep()
    assert await history.counts(*EMPTY, "gone") == {**EMPTY, "gone": 0}
    assert (await server.begin("4711")).state == "undone"


async def test_an_instance_that_has_not_ended_keeps_everything(server: Server, history: History) -> None:
    await server.begin("runs")
    await server.begin("waits")
    [task] = [task for task in await server.take(limit=8) if task.instance == "waits"]
    [capture] = (await server.tell(task, then=claim(instance="waits"))).tasks
    await server.tell(capture, "failed", final=True, error={"detail": "no"})
    assert (await server.shown("waits"))["state"] == "undoing", "what has nothing to undo has ended at once"
    before = await history.counts("effects", "instances", "facts")
    await history.age()
    await history.sweep()
    assert await history.counts("effects", "instances", "facts") == before


@pytest.mark.parametrize(("days", "left"), [(None, 3), (30, 0), (200, 3)])
async def test_a_definition_says_for_how_long(
    shop: Instances, server: Server, history: History, days: int | None, left: int
) -> None:
    said = {} if days is None else {"retention_days": days}
    await shop.run("UPDATE sagas.definitions SET document = document || $1::jsonb", said)
    await server.begin("4711")
    await server.act()
    await history.age()
    await history.sweep(history_days=None)
    assert (await history.counts("effects"))["effects"] == left


async def test_loose_effects_go_by_their_kind(world: World, history: History) -> None:
    await world.execute(
        "INSERT INTO sagas.definitions (environment, name, is_kind, version, document, semantics_hash, created_by) "
        "VALUES ($1, 'payment.capture', true, '1', '{\"retention_days\": 3650}', '\\x00', 'test')",
        ENVIRONMENT,
    )
    for kind in ("payment.capture", "mail.confirmation"):
        await world.report(await world.ask(f"of {kind}", kind=kind))
    await history.age()
    await history.sweep()
    assert await history.value("SELECT array_agg(kind) FROM sagas.effects") == ["payment.capture"]


async def test_without_a_setting_and_a_word_of_a_definition_all_is_kept(world: World, history: History) -> None:
    await world.report(await world.ask("k"))
    await history.age()
    await history.sweep(history_days=None)
    assert await history.counts("effects") == {"effects": 1}


async def test_it_counts_from_the_end(world: World, history: History) -> None:
    admitted = await world.ask("k")
    await history.age()
    await world.report(admitted)
    await history.sweep()
    assert await history.counts("effects") == {"effects": 1}, "admitted long ago, and it succeeded just now"


async def test_an_instance_that_a_lift_would_let_go_on_stays(shop: Instances, server: Server, history: History) -> None:  # P17
    await shop.know()
    await server.begin("4711")
    await server.begin("4712", claim=claim(instance="4712"))
    [capture] = (await server.tell(server.tasks[0], then=claim(instance="4712"))).tasks
    rollback = await shop.kill_flags(compensate="none")
    await server.tell(capture)
    assert await server.take(wait_seconds=0) == []
    await until(lambda: shop.is_settled(rollback))
    await history.age()
    await history.sweep()
    assert await history.counts("instances", "effects", "stopped") == {"instances": 2, "effects": 2, "stopped": 2}
    await shop.lift_flag()
    assert sorted(await server.act()) == ["capture", "confirm", "confirm", "reserve"]
    await history.age()
    await history.sweep()
    assert await history.counts("instances", "effects") == {"instances": 0, "effects": 0}


@pytest.mark.parametrize("compensate", ["auto", "hold"])
async def test_an_unfinished_rollback_keeps_all_history_of_its_flag(world: World, history: History, compensate: str) -> None:
    undone, other = await world.ask("k"), await world.ask("later", variant="off")
    for admitted in (undone, other):
        await world.report(admitted)
    killed = await world.kill(compensate=compensate)
    await history.age()
    await history.sweep()
    assert await history.counts("effects") == {"effects": 2}
    await world.close_set(killed)
    await world.dispose(undone, killed, "compensated")
    await world.settle(killed)
    await history.age()
    await history.sweep()
    assert await history.counts("effects", "dispositions") == {"effects": 0, "dispositions": 0}


async def test_what_was_done_beside_a_killed_flag_in_one_instance_stays(world: World, history: History) -> None:  # hazard 13
    saga = {"name": "order", "version": "1", "id": "4711"}
    await world.report(await world.ask("a", saga=saga, step="reserve"))
    await world.report(await world.ask("b", saga=saga, step="mail", flag=OTHER_FLAG))
    killed = await world.kill(OTHER_FLAG)
    await history.age()
    await history.sweep()
    assert await history.counts("effects") == {"effects": 2}
    await world.settle(killed)
    await history.sweep()
    assert await history.counts("effects") == {"effects": 0}


async def test_what_a_person_has_to_decide_stays(server: Server, history: History) -> None:
    await server.begin("4711")
    await server.act(
        lambda task: {"outcome": "failed", "final": True} if task.step == "confirm" or task.verb != "act" else None
    )
    assert (await server.shown("4711"))["state"] == "waiting"
    before = await history.counts("effects", "dispositions", "compensations", "attempts", "members")
    await history.age()
    await history.sweep()
    assert await history.counts("effects", "dispositions", "compensations", "attempts", "members") == before


async def test_sums_of_a_rollback_stay_true(world: World, history: History) -> None:  # P12
    admitted = await world.ask("k")
    await world.report(admitted)
    killed = await world.kill()
    await world.close_set(killed)
    await world.dispose(admitted, killed, "compensated")
    await world.execute("UPDATE sagas.dispositions SET amount_minor = 1299, currency = 'USD'")
    await world.execute(
        "INSERT INTO sagas.members (rollback_id, effect_id) SELECT rollback_id, effect_id FROM sagas.dispositions"
    )
    await world.settle(killed)
    await history.age()
    await history.sweep()
    rows = await history.value("SELECT jsonb_agg(to_jsonb(g) - 'rollback_id') FROM sagas.gone AS g")
    assert rows == [{"kind": "payment.capture", "state": "compensated", "currency": "USD", "number": 1, "amount_minor": 1299}]


async def test_what_a_later_kill_could_have_named_is_counted_by_flag(world: World, history: History) -> None:  # P12
    for key, fields in {"a": {}, "b": {}, "off": {"variant": "off"}}.items():
        await world.report(await world.ask(key, **fields))
    await world.report(await world.ask("failed"), "failed")
    await history.age()
    latest = await history.value("SELECT max(admitted_at) FROM sagas.effects WHERE key = 'b'")
    await history.sweep()
    assert await horizon(history) == [(FLAG, 2, latest)]


async def horizon(history: History) -> list[tuple[Any, ...]]:
    """Flag, number and latest instant of what has gone."""
    async with history.pg.connection() as connection:
        rows = await connection.fetch("SELECT flag, number, admitted_at FROM sagas.horizons ORDER BY flag")
    return [tuple(row) for row in rows]


async def test_bulk_operations_that_have_ended_go(world: World, history: History) -> None:
    await world.execute(
        "INSERT INTO sagas.operations"
        " (id, environment, verb, filter, per_second, reason, actor, estimated, is_exact, cursor, ended_at)"
        " SELECT uuidv7(interval '-100 days'), $1, 'pause', '{}', 1, 'because', 'alex', 0, true, uuidv7(), e.at"
        " FROM (VALUES (clock_timestamp()), (NULL)) AS e (at)",
        ENVIRONMENT,
    )
    await history.sweep()
    assert await history.value("SELECT count(*) FROM sagas.operations") == 2
    await history.age()
    await history.sweep()
    assert await history.value("SELECT count(*) FROM sagas.operations WHERE ended_at IS NULL") == 1
    assert await history.value("SELECT count(*) FROM sagas.operations") == 1

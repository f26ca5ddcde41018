"""Stepwise rollouts on real servers: ordinary revisions that only widen, and that stop when anyone acts (P4, P7, P18, P20)."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import httpx
import pytest
from rescind import wire
from rescind.evaluation import Evaluator, check

from flagd.core.plain import plain_document
from flagd.core.rollout import NotRollable, read_steps, rest_of, step
from flagd.core.ruleform import rules_of
from runtime import tokens
from tests.flagd.oracle import DEFAULT, answer_of, oracle_answer
from tests.flagd.world import PRODUCTION, World, definition, flag

E = f"/v1/environments/{PRODUCTION}"
USERS = [f"user-{number}" for number in range(200)]
FIRST = {"if": [{"==": [{"var": "plan"}, "beta"]}, "on"]}
OFF = definition(targeting=FIRST, defaultVariant="off")


async def start(admin: httpx.AsyncClient, key: str = "f", **body: Any) -> httpx.Response:
    asked = {"variant": "on", "steps": [1, 10, 50, 100], "every_seconds": 3600, "reason": "carefully", **body}
    return await admin.post(f"{E}/flags/{key}/rollout", json=asked)


async def due(world: World) -> None:
    async with world.pg.connection() as connection:
        await connection.execute("UPDATE flagd.rollouts SET next_at = clock_timestamp() WHERE state = 'running'")


async def state(admin: httpx.AsyncClient, key: str = "f") -> Any:
    return (await admin.get(f"{E}/flags/{key}/rollout")).json()


async def taken(world: World, key: str = "f", **context: Any) -> set[str]:
    """Who has the variant: by our evaluator, and the same by flagd's own."""
    replica = await world.replicas.get(PRODUCTION)
    document = plain_document(replica.snapshot)
    for user in (*USERS[:20], None):
        asked = context if user is None else {"targetingKey": user, **context}
        ours = answer_of(replica.evaluator.evaluate(key, asked, DEFAULT))
        assert oracle_answer(document, key, context, user) == ours, user
    return {user for user in USERS if replica.evaluator.boolean(key, False, {"targetingKey": user, **context})}


async def test_every_step_is_a_revision_that_only_adds(admin: httpx.AsyncClient, world: World) -> None:  # P7, P20
    await world.put(flag("f", definition=OFF))
    begun = (await start(admin)).json()
    assert (begun["state"], begun["rest"], begun["percent"], len(begun["done"])) == ("running", "off", 1, 1)
    shown = (await admin.get(f"{E}/flags/f")).json()
    assert (shown["rollout"]["id"], shown["rules"][0]["serve"]) == (begun["id"], "on")
    sets = [await taken(world)]
    await world.scheduler.look()
    assert (await state(admin))["percent"] == 1, "not before its time"
    for percent in (10, 50, 100):
        await due(world)
        await world.scheduler.look()
        assert (await state(admin))["percent"] == percent
        sets.append(await taken(world))
    assert all(before <= after for before, after in itertools.pairwise(sets))
    assert 0 < len(sets[1]) < len(sets[2]) < len(sets[3]) == len(USERS)
    ended = await state(admin)
    assert (ended["state"], ended["next_at"], [one["revision"] for one in ended["done"]]) == (
        "finished",
        None,
        ["1.2", "1.3", "1.4", "1.5"],
    )
    shown = (await admin.get(f"{E}/flags/f")).json()
    assert (shown["rollout"], shown["rules"][1:]) == (None, [{"serve": "on"}])
    assert await taken(world, plan="beta") == set(USERS), "the rules before it stand"
    async with world.pg.connection() as connection:
        rows = await connection.fetch(
            "SELECT actor, reason, detail FROM runtime.audit WHERE action = 'flag.put' AND detail ? 'rollout' ORDER BY id"
        )
    assert [(row["actor"], row["reason"], row["detail"]["percent"]) for row in rows] == [
        (begun["actor"], "carefully", percent) for percent in (1, 10, 50, 100)
    ]


async def test_a_step_is_taken_once_by_any_number_of_servers(  # P18
    admin: httpx.AsyncClient, world: World, other: World
) -> None:
    await world.put(flag("f", definition=OFF))
    await start(admin)
    await due(world)
    await asyncio.gather(*(one.scheduler.look() for one in (world, other) for _ in range(3)))
    await world.scheduler.look()
    assert [one["percent"] for one in (await state(admin))["done"]] == [1, 10]
    assert (await world.replicas.get(PRODUCTION)).revision.n == 3


async def test_it_stops_where_it_is_when_the_flag_is_killed_and_a_lift_does_not_resume_it(  # P4
    admin: httpx.AsyncClient, world: World
) -> None:
    await world.put(flag("f", definition=OFF))
    await start(admin)
    await world.kill("f", scope={"region": "eu"})
    await world.lift("f")
    await due(world)
    await world.scheduler.look()
    stopped = await state(admin)
    assert (stopped["state"], stopped["stopped"], stopped["percent"]) == ("stopped", "killed", 1)
    await world.kill("f")
    killed = await start(admin)
    assert (killed.status_code, killed.json()["code"]) == (409, "killed")
    await world.lift("f")
    assert (await start(admin, steps=[10, 100])).json()["rest"] == "off", "it goes on from there"
    async with world.pg.connection() as connection:
        row = await connection.fetchrow("SELECT object, detail FROM runtime.audit WHERE action = 'rollout.stop'")
    assert (row["object"], row["detail"]["why"]) == ("f", "killed")


async def test_it_stops_when_anyone_writes_or_archives_the_flag(admin: httpx.AsyncClient, world: World) -> None:
    await world.put(flag("f", definition=OFF), flag("g", definition=OFF))
    for key in ("f", "g"):
        await start(admin, key)
    held = (await world.service.flag(PRODUCTION, "f")).stored.flag
    await world.put(flag("f", definition=held.definition, owner="me"))
    await world.archive("g")
    await world.scheduler.look()
    assert [(await state(admin, key))["stopped"] for key in ("f", "g")] == ["edited", "archived"], (
        "without waiting for its time"
    )


async def test_it_stops_when_it_is_told_to(admin: httpx.AsyncClient, world: World) -> None:
    await world.put(flag("f", definition=OFF))
    assert (await admin.get(f"{E}/flags/f/rollout")).json()["code"] == "no_rollout"
    await start(admin)
    assert (await start(admin)).json()["code"] == "rollout_running"
    stopped = await admin.request("DELETE", f"{E}/flags/f/rollout", json={"reason": "enough"})
    assert (stopped.json()["stopped"], stopped.json()["ended_reason"]) == ("asked", "enough")
    assert (await admin.delete(f"{E}/flags/f/rollout")).status_code == 409
    before = (await world.replicas.get(PRODUCTION)).revision
    await due(world)
    await world.scheduler.look()
    assert (await world.replicas.get(PRODUCTION)).revision == before
    assert (await start(admin, "nowhere")).json()["code"] == "unknown_flag"


async def test_a_revoked_authors_rollout_goes_no_further(admin: httpx.AsyncClient, world: World) -> None:  # P20
    await world.put(flag("f", definition=OFF))
    await start(admin)
    async with world.pg.connection() as connection:
        await tokens.revoke(connection, await connection.fetchval("SELECT token_id FROM flagd.rollouts"))
    await due(world)
    await world.scheduler.look()
    async with world.pg.connection() as connection:
        row = await connection.fetchrow("SELECT stopped, faults FROM flagd.rollouts")
    assert (row["stopped"], row["faults"][0]["code"]) == ("refused", "revoked")


async def test_another_flag_can_depend_on_one_that_is_rolled_out(admin: httpx.AsyncClient, world: World) -> None:  # P7
    await world.put(flag("f", definition=OFF))
    await start(admin, steps=[30, 60])
    needs = [{"flag": "f", "variant": "on"}]
    body = {"flag": {"definition": definition(targeting={}), "prerequisites": needs}, "reason": "x"}
    assert (await admin.put(f"{E}/flags/a", json=body)).status_code == 201
    assert await taken(world, "a") == await taken(world)
    await due(world)
    await world.scheduler.look()
    assert await taken(world, "a") == await taken(world) != set()


async def test_every_fault_is_told_at_once(admin: httpx.AsyncClient, world: World) -> None:
    await world.put(flag("f", definition=OFF), flag("d", definition=definition(state="DISABLED")))
    found = (await start(admin, variant=7, steps=[10, 5], every_seconds=0, reson=1)).json()["errors"]
    assert [(one["pointer"], one["code"]) for one in found] == [
        ("/reson", "unknown_field"),
        ("/variant", "missing"),
        ("/steps", "wrong_type"),
        ("/every_seconds", "wrong_type"),
    ]
    assert (await start(admin, variant="blue")).json()["errors"][0]["code"] == "unknown_variant"
    assert (await start(admin, variant="off")).json()["errors"][0]["code"] == "nothing_to_do"
    assert (await start(admin, "d")).json()["errors"][0]["code"] == "disabled"


@pytest.mark.parametrize("steps", [[], [0], [101], [1, 1], [2, 1], ["1"], [True], [0.0001], 7, None, list(range(1, 52))])
def test_steps_that_are_none(steps: object) -> None:
    assert [fault.pointer for fault in read_steps(steps, 60)[2]] == ["/steps"]


@pytest.mark.parametrize(
    "targeting", [{}, FIRST, {"if": [*FIRST["if"], "off"]}, {"if": ["off"]}, {"fractional": [["on", 1], ["off", 99]]}]
)
def test_the_rules_before_a_rollout_stay_and_the_form_can_say_it(targeting: dict[str, Any]) -> None:
    before = definition(targeting=targeting, defaultVariant="off")
    assert rest_of(before, "on") == "off"
    whole = step(before, "on", 100)
    assert whole["targeting"]["if"][-1] == "on"
    for percent in (0.5, 20):
        after = step(before, "on", percent)
        assert check(after) == []
        assert rules_of(after["targeting"]) is not None
        assert step(after, "on", 100) == whole
        evaluator = Evaluator({"f": wire.SnapshotFlag(definition=after)})
        assert evaluator.evaluate("f", {}, DEFAULT).variant == "off", "no key: the rest"
        assert evaluator.evaluate("f", {"plan": "beta"}, DEFAULT).variant == ("on" if "beta" in str(targeting) else "off")


def test_a_split_that_was_there_keeps_its_subjects() -> None:
    split = {"fractional": [{"var": "account"}, ["on", 10], ["off", 90]]}
    after = step(definition(targeting=split), "on", 20)
    assert after["targeting"]["if"][-1] == {"fractional": [{"var": "account"}, ["on", 20], ["off", 80]]}


@pytest.mark.parametrize(
    ("targeting", "default"),
    [
        ({"fractional": [["on", 1], ["off", 1], ["other", 1]]}, "off"),
        ({"if": [{"var": "x"}, "on", {"var": "chosen"}]}, "off"),
        ({"and": [{"var": "x"}, "on"]}, "off"),
        ({}, None),
    ],
)
def test_what_everyone_else_gets_has_to_be_one_variant(targeting: dict[str, Any], default: str | None) -> None:
    made = definition(targeting=targeting, defaultVariant=default, variants={"on": True, "off": False, "other": True})
    with pytest.raises(NotRollable) as refused:
        step(made, "on", 10)
    assert refused.value.fault.code == "not_rollable"


async def test_one_that_an_edit_has_ended_is_in_nobodys_way(admin: httpx.AsyncClient, world: World) -> None:
    await world.put(flag("f", definition=OFF))
    first = (await start(admin)).json()
    held = (await world.service.flag(PRODUCTION, "f")).stored.flag
    await world.put(flag("f", definition=held.definition, owner="me"))
    begun = await start(admin, steps=[10, 100])
    assert (begun.status_code, begun.json()["percent"]) == (201, 10), "without waiting for the scheduler"
    async with world.pg.connection() as connection:
        ended = await connection.fetchrow("SELECT state, stopped FROM flagd.rollouts WHERE id = $1::uuid", first["id"])
        told = await connection.fetchrow("SELECT detail FROM runtime.audit WHERE action = 'rollout.stop'")
    assert (tuple(ended), told["detail"]["why"]) == (("stopped", "edited"), "edited")

"""The generation of bucketing is the environment's: set as a revision, and reaching whoever evaluates as a full snapshot."""

from __future__ import annotations

import httpx
import pytest
from rescind import wire
from rescind.current import Current
from rescind.evaluation import moved

from flagd.core.changes import SetBucketing
from runtime import audit
from runtime.problem import Problem
from tests.flagd.world import PRODUCTION, World, definition, flag
from tests.waiting import until

USERS = [f"user-{n}" for n in range(40)]
SPLIT = definition(targeting={"fractional": [["on", 50], ["off", 50]]})
PATH = f"/v1/environments/{PRODUCTION}/bucketing"


async def test_a_switch_moves_whom_the_other_generation_moves(world: World) -> None:
    await world.put(flag("f", definition=SPLIT))
    replica = await world.replicas.get(PRODUCTION)
    before = [replica.evaluator.boolean("f", False, {"targetingKey": user}) for user in USERS]
    revision = await world.apply([SetBucketing(generation="v2")])
    assert (replica.revision, replica.snapshot.bucketing) == (revision, "v2")
    after = [replica.evaluator.boolean("f", False, {"targetingKey": user}) for user in USERS]
    movers = [user for user, then, now in zip(USERS, before, after, strict=True) if then != now]
    assert movers == moved("f", [50, 50], USERS)
    assert movers


async def test_a_switch_reaches_streams_as_a_full_snapshot_and_holds_for_later_changes(world: World) -> None:  # P7
    await world.put(flag("f", definition=SPLIT))
    replica = await world.replicas.get(PRODUCTION)
    current = Current()
    current.take_snapshot(replica.snapshot)
    subscription = replica.subscribe()
    await world.apply([SetBucketing(generation="v2")])
    event = await anext(subscription)
    assert event.kind == "snapshot"
    current.take_snapshot(replica.snapshot)
    await world.put(flag("g", definition=SPLIT))
    event = await anext(subscription)
    assert event.kind == "change"
    change = wire.Change(
        environment=PRODUCTION,
        previous=event.previous or wire.Revision(),
        revision=event.revision,
        flags={"g": replica.snapshot.flags["g"]},
    )
    current.take_change(change)
    assert current.evaluator is not None
    for key in ("f", "g"):
        ours = [current.evaluator.boolean(key, False, {"targetingKey": user}) for user in USERS]
        assert ours == [replica.evaluator.boolean(key, False, {"targetingKey": user}) for user in USERS]
    assert current.evaluator.generation == "v2"
    replica.leave(subscription)


async def test_another_replica_learns_of_a_switch(world: World, other: World) -> None:
    await world.put(flag("f", definition=SPLIT))
    revision = await world.apply([SetBucketing(generation="v2")])
    replica = await other.replicas.get(PRODUCTION)
    await until(lambda: replica.revision == revision)
    assert replica.evaluator.generation == "v2"


async def test_it_is_set_and_shown_over_http(world: World, admin: httpx.AsyncClient) -> None:  # P20
    answer = await admin.put(PATH, json={"generation": "v2", "reason": "as our other clients do"})
    assert (answer.status_code, answer.json()) == (200, {"bucketing": "v2", "revision": "1.1"})
    listed = (await admin.get("/v1/environments")).json()["environments"]
    assert [(one["name"], one["bucketing"]) for one in listed] == [(PRODUCTION, "v2")]
    async with world.pg.connection() as connection:
        entry = (await audit.newest(connection, environment=PRODUCTION))[0]
    assert (entry.action, entry.object, entry.reason) == ("environment.bucketing", PRODUCTION, "as our other clients do")
    assert entry.detail == {"revision": "1.1", "generation": "v2"}


async def test_what_is_no_generation_is_refused_with_everything_else(admin: httpx.AsyncClient) -> None:
    answer = await admin.put(PATH, json={"generation": "v4", "reason": 7, "when": "now"})
    assert answer.status_code == 422
    assert {fault["pointer"] for fault in answer.json()["errors"]} == {"/generation", "/reason", "/when"}
    assert (await admin.put(PATH, json={})).status_code == 422


async def test_only_an_admin_sets_it(world: World, client: httpx.AsyncClient) -> None:  # P19
    token = await world.token("read", "evaluate")
    answer = await client.put(PATH, json={"generation": "v2"}, headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 403


async def test_an_expected_revision_guards_it(world: World) -> None:
    with pytest.raises(Problem) as refused:
        await world.apply([SetBucketing(generation="v2")], expected_revision=wire.Revision(1, 7))
    assert refused.value.code == "revision_mismatch"

"""Scheduled changes on real servers: each applied once, by whichever server, in the name of its author (P1, P4, P18, P20)."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from rescind import wire

from runtime import tokens
from tests.flagd.world import PRODUCTION, World, definition, flag

E = f"/v1/environments/{PRODUCTION}"
OFF = definition(targeting={}, defaultVariant="off")


def put(key: str, **changed: Any) -> dict[str, Any]:
    return {"op": "put", "flag": {"key": key, "definition": OFF, **changed}}


async def schedule(admin: httpx.AsyncClient, *operations: dict[str, Any], **body: Any) -> Any:
    asked = {"in_seconds": 3600, "operations": list(operations), "reason": "at night", **body}
    made = await admin.post(f"{E}/schedules", json=asked)
    assert made.status_code == 201, made.text
    return made.json()


async def due(world: World, *made: Any) -> None:
    """Let their time come, in the order given."""
    async with world.pg.connection() as connection:
        for one in made:
            await connection.execute("UPDATE flagd.schedules SET at = clock_timestamp() WHERE id = $1::uuid", one["id"])


async def ended(admin: httpx.AsyncClient, made: Any) -> Any:
    return (await admin.get(f"{E}/schedules/{made['id']}")).json()


def codes(schedule: Any) -> list[tuple[str, str]]:
    return [(fault["pointer"], fault["code"]) for fault in schedule["faults"]]


async def test_a_change_is_applied_at_its_time_as_an_ordinary_revision(admin: httpx.AsyncClient, world: World) -> None:  # P20
    await world.put(flag("f"))
    made = await schedule(admin, put("f"), put("new"), {"op": "put_segment", "name": "s", "segment": {"var": "x"}})
    assert (made["state"], made["flags"]) == ("waiting", ["f", "new"])
    await world.scheduler.look()
    assert (await ended(admin, made))["state"] == "waiting"
    shown = (await admin.get(f"{E}/flags/f")).json()["schedules"]
    assert [(one["id"], one["at"]) for one in shown] == [(made["id"], made["at"])]
    await due(world, made)
    await world.scheduler.look()
    done = await ended(admin, made)
    assert (done["state"], done["revision"], done["ended_by"]) == ("applied", "1.2", None)
    replica = await world.replicas.get(PRODUCTION)
    assert (replica.revision, set(replica.snapshot.flags), set(replica.snapshot.evaluators)) == (
        wire.Revision(1, 2),
        {"f", "new"},
        {"s"},
    )
    assert (await admin.get(f"{E}/flags/f")).json()["schedules"] == []
    async with world.pg.connection() as connection:
        rows = await connection.fetch(
            "SELECT action, object, actor, reason, detail FROM runtime.audit WHERE action <> 'environment.create' ORDER BY id"
        )
        committed = await connection.fetchrow("SELECT actor, reason, keys FROM flagd.revisions WHERE revision = 2")
    author = made["actor"]
    assert [(row["action"], row["object"], row["actor"]) for row in rows] == [
        ("flag.put", "f", "test"),
        ("schedule.create", made["id"], author),
        ("flag.put", "f", author),
        ("flag.put", "new", author),
        ("segment.put", "s", author),
    ]
    assert {row["detail"].get("schedule") for row in rows[2:]} == {made["id"]}, "and that a schedule did it"
    assert tuple(committed) == (author, "at night", ["f", "new"])


async def test_each_is_applied_once_and_in_order_by_any_number_of_servers(  # P1, P18
    admin: httpx.AsyncClient, world: World, other: World
) -> None:
    made = [await schedule(admin, put("f", owner=str(number))) for number in range(8)]
    await due(world, *made)
    await asyncio.gather(*(one.scheduler.look() for one in (world, other) for _ in range(3)))
    await world.scheduler.look()
    done = [await ended(admin, one) for one in made]
    assert [one["revision"] for one in done] == [f"1.{number}" for number in range(1, 9)]
    assert (await admin.get(f"{E}/flags/f")).json()["owner"] == "7"


async def test_a_loop_in_every_server_applies_what_is_due(admin: httpx.AsyncClient, world: World, other: World) -> None:
    made = await schedule(admin, put("f"), in_seconds=0)
    await other.scheduler.start()
    try:
        replica = await world.replicas.get(PRODUCTION)
        subscription = replica.subscribe()
        await anext(subscription)
    finally:
        await other.scheduler.stop()
    assert (await ended(admin, made))["state"] == "applied"


async def test_a_schedule_never_lifts_a_kill(admin: httpx.AsyncClient, world: World) -> None:  # P4
    await world.put(flag("f", definition=definition(targeting={})), flag("g", definition=definition(targeting={})))
    turned = await schedule(admin, {"op": "put", "flag": {"key": "f", "definition": definition(defaultVariant="on")}})
    values = definition(variants={"on": False, "off": True})
    inverted = await schedule(admin, {"op": "put", "flag": {"key": "g", "definition": values}})
    archived = await schedule(admin, {"op": "archive", "key": "g"})
    await world.kill("f", "g")
    await due(world, turned, inverted, archived)
    await world.scheduler.look()
    assert (await ended(admin, turned))["state"] == "applied", "an edit stays under the overlay"
    assert [codes(await ended(admin, one)) for one in (inverted, archived)] == [
        [("/operations/0/flag/definition/variants/off", "killed")],
        [("/operations/0/key", "killed")],
    ]
    await world.replicas.refresh(PRODUCTION)
    replica = await world.replicas.get(PRODUCTION)
    assert [replica.evaluator.boolean(key, True) for key in ("f", "g")] == [False, False]


async def test_what_was_edited_by_hand_since_is_not_overwritten(admin: httpx.AsyncClient, world: World) -> None:
    await world.put(flag("f"), flag("calm"))
    first = await schedule(admin, put("f", owner="first"), put("calm"))
    second = await schedule(admin, put("f", owner="second"))
    new = await schedule(admin, put("new"))
    await world.kill("calm")
    await world.lift("calm")
    await due(world, first, second)
    await world.scheduler.look()
    assert [(await ended(admin, one))["state"] for one in (first, second)] == ["applied"] * 2, "it knew of the one before"
    third = await schedule(admin, put("f", owner="third"))
    await world.put(flag("f", owner="by hand"), flag("new"))
    await due(world, third, new)
    await world.scheduler.look()
    assert [codes(await ended(admin, one)) for one in (third, new)] == [[("/operations/0/flag", "edited")]] * 2
    assert (await admin.get(f"{E}/flags/f")).json()["owner"] == "by hand"


async def test_a_refused_one_says_everything_that_is_wrong_and_holds_up_no_other(
    admin: httpx.AsyncClient, world: World
) -> None:
    await world.put(flag("f"), flag("g"))
    gone = await schedule(admin, put("f"), {"op": "archive", "key": "nowhere"}, {"op": "delete_segment", "name": "nowhere"})
    good = await schedule(admin, put("g"))
    await world.archive("f")
    await due(world, gone, good)
    await world.scheduler.look()
    refused = await ended(admin, gone)
    assert (refused["state"], refused["revision"]) == ("refused", None)
    assert codes(refused) == [
        ("/operations/0/flag/key", "key_was_used"),
        ("/operations/1/key", "unknown_flag"),
        ("/operations/2", "unknown_segment"),
    ]
    assert (await ended(admin, good))["state"] == "applied"
    async with world.pg.connection() as connection:
        told = await connection.fetchval("SELECT detail FROM runtime.audit WHERE action = 'schedule.refuse'")
    assert len(told["faults"]) == 3


async def test_a_revoked_authors_schedule_is_refused(admin: httpx.AsyncClient, world: World) -> None:  # P20
    made = await schedule(admin, put("f"))
    async with world.pg.connection() as connection:
        identity = await connection.fetchval("SELECT token_id FROM flagd.schedules")
        await tokens.revoke(connection, identity)
    await due(world, made)
    await world.scheduler.look()
    async with world.pg.connection() as connection:
        row = await connection.fetchrow("SELECT state, faults FROM flagd.schedules")
    assert (row["state"], [fault["code"] for fault in row["faults"]]) == ("refused", ["revoked"])
    assert (await world.replicas.get(PRODUCTION)).snapshot.flags == {}


async def test_one_that_waits_can_be_cancelled_once(admin: httpx.AsyncClient, world: World) -> None:
    made = await schedule(admin, put("f"))
    cancelled = await admin.request("DELETE", f"{E}/schedules/{made['id']}", json={"reason": "not now"})
    assert (cancelled.json()["state"], cancelled.json()["ended_reason"]) == ("cancelled", "not now")
    again = await admin.delete(f"{E}/schedules/{made['id']}")
    assert (again.status_code, again.json()["code"]) == (409, "already_ended")
    await due(world, made)
    await world.scheduler.look()
    assert (await world.replicas.get(PRODUCTION)).snapshot.flags == {}
    for path in ("nonsense", "01a2071f-6899-75e5-98b9-7f36bac62e78"):
        assert (await admin.get(f"{E}/schedules/{path}")).json()["code"] == "unknown_schedule"


async def test_the_list_is_filtered_and_paged(admin: httpx.AsyncClient) -> None:
    made = [await schedule(admin, put(key)) for key in ("a", "b", "a")]
    ids = [one["id"] for one in made]
    first = (await admin.get(f"{E}/schedules", params={"limit": 2})).json()
    assert [one["id"] for one in first["schedules"]] == ids[:0:-1]
    rest = (await admin.get(f"{E}/schedules", params={"limit": 2, "after": first["next"]})).json()
    assert ([one["id"] for one in rest["schedules"]], rest["next"]) == (ids[:1], None)
    of_a = (await admin.get(f"{E}/schedules", params={"flag": "a", "status": "waiting"})).json()["schedules"]
    assert [one["id"] for one in of_a] == [ids[2], ids[0]]
    assert (await admin.get(f"{E}/schedules", params={"status": "gone"})).status_code == 422
    assert (await admin.get("/v1/environments/nowhere/schedules")).json()["code"] == "unknown_environment"


async def test_every_fault_is_told_at_once(admin: httpx.AsyncClient) -> None:
    operations = [{"op": "kill", "key": "f"}, put("f", definition={"state": "ON"})]
    asked = {"at": "2026-11-24T09:00:00", "operations": operations, "reason": 7, "whn": 1}
    found = (await admin.post(f"{E}/schedules", json=asked)).json()["errors"]
    assert {
        ("/at", "wrong_type"),
        ("/operations/0/op", "unknown_operation"),
        ("/reason", "wrong_type"),
        ("/whn", "unknown_field"),
    } < {(one["pointer"], one["code"]) for one in found}
    for when in (
        {},
        {"at": "2026-11-24T09:00:00Z", "in_seconds": 1},
        {"in_seconds": -1},
        {"at": "1999-01-01T00:00:00Z"},
        {"at": 7},
    ):
        assert (await admin.post(f"{E}/schedules", json={**when, "operations": [put("f")]})).status_code == 422, when
    far = await admin.post(f"{E}/schedules", json={"in_seconds": 10**8, "operations": [put("f")]})
    assert [(one["pointer"], one["code"]) for one in far.json()["errors"]] == [("/at", "out_of_range")]


async def test_a_token_that_expires_before_cannot_schedule(client: httpx.AsyncClient, world: World) -> None:
    async with world.pg.transaction() as connection:
        expires_at = await connection.fetchval("SELECT clock_timestamp() + interval '1 hour'")
        text, _ = await tokens.create(connection, "short", None, ["admin"], "test", expires_at)
    client.headers["authorization"] = f"Bearer {text}"
    refused = await client.post(f"{E}/schedules", json={"in_seconds": 7200, "operations": [put("f")]})
    assert [(one["pointer"], one["code"]) for one in refused.json()["errors"]] == [("/at", "token_expires")]
    assert (await client.post(f"{E}/schedules", json={"in_seconds": 60, "operations": [put("f")]})).status_code == 201
    client.headers["authorization"] = f"Bearer {await world.token('read')}"
    assert (await client.post(f"{E}/schedules", json={"in_seconds": 60, "operations": [put("f")]})).status_code == 403


async def test_an_older_postgresql_keeps_it_waiting(admin: httpx.AsyncClient, world: World) -> None:  # P2
    await world.put(flag("f"))
    made = await schedule(admin, put("f"))
    await due(world, made)
    async with world.pg.connection() as connection:
        await connection.execute("UPDATE flagd.environments SET revision = 0")
    await world.scheduler.look()
    assert (await ended(admin, made))["state"] == "waiting"


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
async def test_an_instant_that_utc_cannot_say_is_a_fault(admin: httpx.AsyncClient, world: World, at: str) -> None:
    refused = await admin.post(f"{E}/schedules", json={"at": at, "operations": [put("f")]})
    assert refused.status_code == 422
    assert [(one["pointer"], one["code"]) for one in refused.json()["errors"]] == [("/at", "wrong_type")]


@pytest.mark.parametrize("path", ["schedules/0192d4e0-0000-7000-8000-000000000000", "flags/f", "flags/f/rollout", "segments/s"])
async def test_all_that_is_wrong_with_an_ending_is_told_at_once(admin: httpx.AsyncClient, world: World, path: str) -> None:
    await world.put(flag("f"))
    refused = await admin.request("DELETE", f"{E}/{path}", json={"zz": 1, "reason": 5})
    assert refused.status_code == 422
    assert {(one["pointer"], one["code"]) for one in refused.json()["errors"]} == {
        ("/zz", "unknown_field"),
        ("/reason", "wrong_type"),
    }

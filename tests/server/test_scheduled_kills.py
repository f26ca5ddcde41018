"""Kills in schedules: carried out at their time as a kill is at once, by whoever may still kill (P1, P4, P8, P18, P19, P20)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from runtime.postgres import Postgres
from tests.server.serving import P, Served, definition, serving

FLAG = "checkout.new-flow"
KILL = {"op": "kill", "key": FLAG, "compensate": "hold", "incident": "INC-42"}
ACTS = "SELECT action, object, actor, detail FROM runtime.audit WHERE action IN ('flag.kill', 'schedule.apply') ORDER BY id"
PUT = {"op": "put", "flag": {"key": "search", "definition": definition()}}


@pytest.fixture
async def other(served: Served, database_url: str, redis_url: str) -> AsyncIterator[Served]:
    """A second server on the same database."""
    async with serving(database_url, redis_url) as one:
        yield one


async def schedule(http: httpx.AsyncClient, *operations: Any, **body: Any) -> httpx.Response:
    asked = {"in_seconds": 3600, "operations": list(operations), "reason": "the trial ends", **body}
    return await http.post(f"{P}/schedules", json=asked)


async def due(pg: Postgres, *servers: Served) -> None:
    """Let the time of all that waits come, and every server look at once."""
    async with pg.connection() as connection:
        await connection.execute("UPDATE flagd.schedules SET at = clock_timestamp() WHERE state = 'waiting'")
    await asyncio.gather(*(one.parts.scheduler.look() for one in servers))


async def ended(served: Served, made: httpx.Response) -> Any:
    assert made.status_code == 201, made.text
    return await served.ok("GET", f"{P}/schedules/{made.json()['id']}")


async def test_a_scheduled_kill_fences_opens_a_rollback_and_names_its_author(served: Served, pg: Postgres) -> None:  # P8, P20
    await served.put_flag(FLAG)
    made = await schedule(served.http, PUT, KILL)
    assert made.json()["flags"] == ["search", FLAG]
    assert [one["id"] for one in (await served.ok("GET", f"{P}/flags/{FLAG}"))["schedules"]] == [made.json()["id"]]
    await due(pg, served)
    assert [(one["state"], one["revision"]) for one in [await ended(served, made)]] == [("applied", "1.2")], "one revision (P1)"
    (kill,) = (await served.ok("GET", f"{P}/flags/{FLAG}"))["kills"]
    record = await served.ok("GET", f"/v1/rollbacks/{kill['rollback_id']}")
    asked = (record["reason"], record["incident"], record["compensate"], record["revision"])
    assert asked == ("the trial ends", "INC-42", "hold", "1.2")
    assert (await served.evaluate(FLAG))["value"] is False
    effect = {"key": "late", "kind": "k", "kind_version": "1", "flag": FLAG, "payload": {}, "variant": "on"}
    answer = await served.ok("POST", f"{P}/effects:admit", {"effects": [effect]})
    assert answer["results"][0]["outcome"] == "killed"
    async with pg.connection() as connection:
        rows = await connection.fetch(ACTS)
    assert [(row["action"], row["object"], row["actor"]) for row in rows] == [
        ("flag.kill", FLAG, "admin"),
        ("schedule.apply", made.json()["id"], "admin"),
    ]
    assert rows[1]["detail"] == {"scheduled_by": "admin", "revision": "1.2", "rollbacks": [kill["rollback_id"]]}


async def test_of_several_servers_one_carries_it_out_once(served: Served, other: Served, pg: Postgres) -> None:  # P18
    await served.put_flag(FLAG)
    made = [await schedule(served.http, KILL) for _ in range(3)]
    await due(pg, served, other, served, other)
    await due(pg, served)
    assert {(await ended(other, one))["state"] for one in made} == {"applied"}
    (kill,) = (await other.ok("GET", f"{P}/flags/{FLAG}"))["kills"]
    record = await served.ok("GET", f"/v1/rollbacks/{kill['rollback_id']}")
    assert record["kill_count"] == len(made), "each joined, once"


async def test_what_is_killed_already_stays_under_its_rollback(served: Served, pg: Postgres) -> None:  # P4, P19
    await served.put_flag(FLAG)
    made = await schedule(served.http, {**KILL, "compensate": "auto"})
    killed = await served.kill(FLAG, compensate="hold")
    await due(pg, served)
    assert (await ended(served, made))["state"] == "applied"
    record = await served.ok("GET", f"/v1/rollbacks/{killed['rollback_id']}")
    assert (record["kill_count"], record["compensate"]) == (2, "auto")


async def test_who_may_not_kill_by_then_does_not(served: Served, pg: Postgres) -> None:  # P19, P20
    await served.put_flag(FLAG)
    body = {"name": "leaver", "scopes": ["admin"], "reason": "test"}
    token = await served.ok("POST", "/v1/tokens", body)
    async with served.client(token["token"]) as leaver:
        made = await schedule(leaver, KILL)
    async with pg.connection() as connection:
        await connection.execute("UPDATE runtime.tokens SET scopes = '{read}' WHERE id = $1", token["id"])
    await due(pg, served)
    refused = await ended(served, made)
    assert (refused["state"], [fault["code"] for fault in refused["faults"]]) == ("refused", ["forbidden"])
    assert (await served.ok("GET", f"{P}/flags/{FLAG}"))["kills"] == []


async def test_a_kill_that_cannot_be_is_refused_with_all_beside_it(served: Served, pg: Postgres) -> None:  # P1
    made = await schedule(served.http, PUT, {"op": "kill", "key": "nowhere"})
    await due(pg, served)
    refused = await ended(served, made)
    assert (refused["state"], [fault["code"] for fault in refused["faults"]]) == ("refused", ["unknown_flag"])
    assert (await served.ok("GET", f"{P}/flags"))["flags"] == []


async def test_the_list_is_read_when_it_is_scheduled(served: Served) -> None:  # P4
    flawed = [PUT, {**KILL, "grace_seconds": -1}, {"op": "lift", "key": FLAG}, {"op": "archive", "key": 7}]
    refused = await schedule(served.http, *flawed, reason=None)
    assert {one["pointer"] for one in refused.json()["errors"]} >= {
        "/operations/1/grace_seconds",
        "/operations/2/op",
        "/operations/3/key",
        "/reason",
    }
    assert "only a person" in (await schedule(served.http, {"op": "lift", "key": FLAG})).json()["detail"]

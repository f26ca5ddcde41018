"""PostgreSQL comes back older than what was seen: kills win even then, nothing else goes on before a person says so."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from rescind.wire import Revision

from runtime.postgres import Postgres
from tests.server.processes import rescind
from tests.server.serving import P, Served, serving
from tests.waiting import until

FLAG, OTHER, LOST = "checkout.new-flow", "search", "prices"
GO_BACK = """
UPDATE flagd.environments SET revision = 2 WHERE name = 'production';
DELETE FROM flagd.revisions WHERE revision > 2;
DELETE FROM flagd.kills;
DELETE FROM sagas.rollback_flags;
DELETE FROM sagas.rollbacks;
UPDATE sagas.fences SET closed = false, rollback_id = NULL, epoch = 1;
UPDATE flagd.flags SET epoch = 1, changed_revision = least(changed_revision, 2);
"""


async def restore_to_older(served: Served, pg: Postgres) -> Revision:
    """Three flags, the last one killed, which everyone knows; then PostgreSQL without the kill. Answers what was seen."""
    for key in (FLAG, OTHER, LOST):
        await served.put_flag(key)
    killed = await served.kill(LOST, compensate="none")
    await served.settled(killed)
    seen = Revision.parse(killed["revision"])
    await until(lambda: in_redis(served, seen))
    async with pg.connection() as connection:
        await connection.execute(GO_BACK)
    return seen


async def in_redis(served: Served, revision: Revision) -> bool:
    return await served.parts.replicas.cache.revision("production") == revision


async def is_off(served: Served, key: str) -> bool:
    return (await served.evaluate(key))["value"] is False


async def admit(served: Served, flag: str, key: str = "a") -> Any:
    effect = {"key": key, "kind": "mail", "flag": flag, "payload": {}, "variant": "on"}
    return await served.http.post(f"{P}/effects:admit", json={"effects": [effect]})


async def is_closed(served: Served) -> bool:
    return (await admit(served, OTHER)).status_code == 503


@pytest.mark.parametrize("path", ["kill", "change list"])
async def test_a_kill_in_recovery_is_obeyed_by_every_server(
    served: Served, pg: Postgres, database_url: str, redis_url: str, path: str
) -> None:  # P2, P4
    async with serving(database_url, redis_url) as other:
        await other.parts.replicas.get("production")
        for one in (served, other):
            await one.parts.recovery.stop()  # it is the kill that has to know
        seen = await restore_to_older(served, pg)
        if path == "kill":
            killed = await served.kill(FLAG)
        else:
            body = {"operations": [{"op": "kill", "key": FLAG}], "reason": "bad"}
            killed = (await served.ok("POST", f"{P}/changes", body))["kills"][0]
        revision = Revision.parse(killed["revision"])
        assert revision.generation > seen.generation
        for one in (served, other):
            await until(lambda one=one: is_off(one, FLAG))
            assert await is_off(one, LOST), "a kill that PostgreSQL had lost is laid again"
            await until(lambda one=one: is_closed(one))
        assert (await served.ok("GET", f"{P}/flags/{LOST}"))["killed"] is True


async def test_only_kills_go_through_a_recovery_until_the_doctor_ends_it(served: Served, pg: Postgres) -> None:  # P2
    await restore_to_older(served, pg)
    await served.kill(FLAG)
    await until(lambda: is_closed(served))
    put = {"flag": {"key": OTHER, "definition": {"state": "DISABLED", "variants": {"off": False}}}, "reason": "x"}
    mixed = {"operations": [{"op": "kill", "key": OTHER}, {"op": "archive", "key": FLAG}], "reason": "x"}
    for method, where, body in (
        ("PUT", f"/flags/{OTHER}", put),
        ("POST", "/changes", mixed),
        ("POST", f"/flags/{FLAG}/lift", {"reason": "x"}),
    ):
        refused = await served.http.request(method, P + where, json=body)
        assert (refused.status_code, refused.json()["code"]) == (409, "environment_in_recovery"), refused.text
        assert "rescind doctor --restored" in refused.json()["next_step"]
    done = await asyncio.to_thread(
        rescind, "doctor", "--restored", "--reason", "restored", "-e", "production",
        RESCIND_URL=served.url, RESCIND_TOKEN=served.admin,
    )  # fmt: skip
    assert (done.returncode, "goes on" in done.stdout) == (0, True), done
    (fresh,) = (await admit(served, OTHER)).json()["results"]
    assert fresh["outcome"] == "admitted"
    for key in (FLAG, LOST):
        (dead,) = (await admit(served, key, key)).json()["results"]
        assert dead["outcome"] == "killed"
    await served.ok("POST", f"{P}/flags/{FLAG}/lift", {"reason": "mended", "force": True})
    await served.put_flag(OTHER)
    (alive,) = (await admit(served, FLAG, "b")).json()["results"]
    assert alive["outcome"] == "admitted"
    entries = (await served.ok("GET", "/v1/audit", limit=100))["entries"]
    acts = [
        entry["action"] for entry in entries if entry["action"].startswith("environment.rec") or "restored" in entry["action"]
    ]
    assert acts == ["environment.restored", "environment.recover"]


async def test_a_server_that_is_ahead_enters_recovery_by_itself(served: Served, pg: Postgres, database_url: str) -> None:
    # P5: whoever kills without a server, or by a server of the last release, does not know what was seen
    await restore_to_older(served, pg)
    done = await asyncio.to_thread(rescind, "kill", FLAG, "--reason", "bad", "--direct", RESCIND_DATABASE_URL=database_url)
    assert done.returncode == 0, done
    await until(lambda: is_off(served, FLAG))
    await until(lambda: is_closed(served))
    assert await is_off(served, LOST)
    assert served.parts.replicas.held("production").revision.generation == 2  # type: ignore[union-attr]


async def test_the_doctor_changes_nothing_where_nothing_was_restored(served: Served) -> None:
    await served.put_flag(FLAG)
    answer = await served.ok("POST", f"{P}/restored", {"reason": "a mistake"})
    assert (answer["ended"], answer["revision"], answer["lost"]) == (False, "1.1", [])
    kill_only = await served.token("kill")
    async with served.client(kill_only) as client:
        assert (await client.post(f"{P}/restored", json={"reason": "x"})).status_code == 403

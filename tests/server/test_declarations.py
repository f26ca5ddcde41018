"""Turning on asks who has declared: lifts, change lists and the command line; and recovery believes no absurd revision."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rescind.wire import Revision

from runtime.postgres import Postgres
from tests.server.serving import P, Served, definition
from tests.server.test_cli import FLAG, Line

OFF = {**definition(), "defaultVariant": "off"}
GATED = {"services": ["shop"], "requires_declaration": True}


@pytest.fixture
def line(served: Served) -> Line:
    return Line(served)


async def beat(served: Served, instance: str, **fields: Any) -> Any:
    body = {"instance": instance, "service": "shop", "revision": [1, 0], "service_version": "1.0", **fields}
    return await served.ok("POST", f"{P}/heartbeats", body)


async def turned_on_before_old_code_came_back(served: Served) -> None:
    await beat(served, "pod-1", declared=[FLAG])
    await served.put_flag(FLAG, **GATED)
    await served.kill(FLAG, compensate="none")
    await beat(served, "pod-2")


async def test_a_lift_asks_as_turning_on_does(served: Served) -> None:
    await turned_on_before_old_code_came_back(served)
    needs = [{"flag": FLAG, "variant": "on"}]
    body = {"flag": {"key": "plain", "definition": definition(), "prerequisites": needs}, "reason": "x"}
    await served.ok("PUT", f"{P}/flags/plain", body)
    lift = {"reason": "mended", "force": True}
    refused = (await served.http.post(f"{P}/flags/{FLAG}/lift", json=lift)).json()
    assert (refused["status"], refused["code"]) == (409, "undeclared")
    assert "instance `pod-2` of service `shop`, version 1.0," in refused["detail"]
    assert (await served.ok("GET", f"{P}/flags/{FLAG}"))["killed"] is True
    async with served.client(await served.token("lift")) as client:
        past = await client.post(f"{P}/flags/{FLAG}/lift", json={**lift, "past_gate": True})
        assert past.status_code == 403
    await served.ok("POST", f"{P}/flags/{FLAG}/lift", {**lift, "past_gate": True})
    assert (await served.ok("GET", f"{P}/flags/{FLAG}"))["killed"] is False
    (entry,) = [one for one in (await served.ok("GET", "/v1/audit"))["entries"] if one["action"] == "flag.past_gate"]
    assert (entry["object"], entry["reason"], entry["detail"]["undeclared"][0]["instance"]) == (FLAG, "mended", "pod-2")


async def test_a_lift_asks_for_those_that_depend_on_the_flag(served: Served) -> None:
    await beat(served, "pod-1", declared=["dependent"])
    await served.put_flag("base")
    await served.put_flag("dependent", prerequisites=[{"flag": "base", "variant": "on"}], **GATED)
    await served.kill("base", compensate="none")
    await beat(served, "pod-2")
    refused = (await served.http.post(f"{P}/flags/base/lift", json={"reason": "x", "force": True})).json()
    assert "flag `dependent`: instance `pod-2`" in refused["detail"]
    await beat(served, "pod-2", declared=["dependent"])
    await served.ok("POST", f"{P}/flags/base/lift", {"reason": "x", "force": True})


async def test_a_list_with_a_kill_asks_for_what_it_turns_on_and_never_for_the_kill(served: Served) -> None:
    await served.put_flag(FLAG, definition=OFF, **GATED)
    await beat(served, "pod-1", declared=["killed"])
    await served.put_flag("killed", **GATED)
    await beat(served, "pod-2")
    kill = {"op": "kill", "key": "killed", "compensate": "none"}
    put = {"op": "put", "flag": {"key": FLAG, "definition": definition(), **GATED}}
    answer = await served.http.post(f"{P}/changes", json={"operations": [put, kill], "reason": "x"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (409, "/operations/0/flag")
    await served.ok("POST", f"{P}/changes", {"operations": [kill], "reason": "x"})
    again = {"operations": [put, {**kill, "scope": {"country": "DE"}}], "reason": "x", "past_gate": True}
    await served.ok("POST", f"{P}/changes", again)


async def test_the_command_line_shows_who_has_not_declared_and_sets_the_requirement(served: Served, line: Line) -> None:
    async def asked(*arguments: str, **variables: str) -> Any:
        """The command line, while all three are live: a process takes its time to start."""
        await beat(served, "pod-1", revision=[1, 1], declared=[FLAG], how="push", applied_ago_ms=10.0)
        await beat(served, "pod-2", revision=[1, 0])
        await beat(served, "other", service="other")
        return await line(*arguments, **variables)

    document = {"key": FLAG, "definition": OFF, **GATED}
    assert (await line("set", json.dumps(document), "--reason", "new")).returncode == 0
    shown = await asked("instances", "--flag", FLAG, COLUMNS="80")
    assert max(map(len, shown.stdout.splitlines())) <= 80
    rows = {words[1]: words[2] for words in map(str.split, shown.stdout.splitlines()) if words[:1] == ["shop"]}
    assert rows == {"pod-1": "yes", "pod-2": "no"}
    assert "not declared by 1 live instance" in shown.stdout
    assert "not declared by pod-2 of 2 live instances" in (await asked("get", FLAG)).stdout
    behind = json.loads((await asked("instances", "--behind", "--service", "shop", "--json")).stdout)["instances"]
    assert [(row["instance"], row["behind_count"]) for row in behind] == [("pod-2", 1)]
    kept = json.loads((await asked("get", FLAG, "--rules", "--json")).stdout)
    assert kept["requires_declaration"] is True
    on = json.dumps({**kept, "definition": definition()})
    refused = await asked("set", on, "--reason", "on")
    assert (refused.returncode != 0, "pod-2" in refused.stderr, "--past-gate" in refused.stderr) == (True, True, True), refused
    assert (await asked("set", on, "--reason", "an emergency", "--past-gate")).returncode == 0


async def test_a_forged_revision_puts_nothing_in_recovery_at_the_next_kill(served: Served) -> None:  # P2
    await served.put_flag(FLAG)
    for forged in ([7, 7], [1, 2**53], [2, 0]):
        await beat(served, "forger", revision=forged, proven=forged, proof="0" * 64)
    killed = await served.kill(FLAG, compensate="none")
    assert killed["revision"] == "1.2"
    await served.put_flag("other")


async def test_a_future_that_was_lost_and_is_proven_is_above_everything_at_the_next_kill(served: Served, pg: Postgres) -> None:
    # P2: no server and no cache has seen it, and it is further than what is believed without a proof
    await served.parts.recovery.stop()
    await served.put_flag(FLAG)
    async with pg.connection() as connection:
        await connection.execute("UPDATE flagd.environments SET revision = 50000 WHERE name = 'production'")
        await served.put_flag("other")
        answer = await beat(served, "pod-1", revision=[1, 50001])
        assert answer["proven"] == [1, 50001]
        await connection.execute("UPDATE flagd.environments SET revision = 1 WHERE name = 'production'")
        await connection.execute("DELETE FROM flagd.instances")
        await beat(served, "pod-1", revision=[1, 50001], proven=answer["proven"], proof=answer["proof"])
        row = await connection.fetchrow("SELECT * FROM rollbacks.newest_seen('production', 0, 0)")
    assert Revision(row["generation"], row["revision"]) == Revision(1, 50001)
    killed = await served.kill(FLAG, compensate="none")
    assert Revision.parse(killed["revision"]).generation == 2

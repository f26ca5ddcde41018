"""Kill and lift over HTTP: one revision, winning over everything, repeats that join (P1, P4, P8, P19, P20)."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

from runtime.postgres import Postgres
from tests.server.serving import P, Served, definition
from tests.waiting import until

FLAG = "checkout.new-flow"


async def rollback(served: Served, identity: str) -> Any:
    return await served.ok("GET", f"/v1/rollbacks/{identity}")


async def test_a_kill_is_answered_when_its_fence_has_committed(served: Served, pg: Postgres) -> None:  # P8
    await served.put_flag(FLAG)
    answer = await served.http.post(f"{P}/flags/{FLAG}/kill", json={"reason": "charges twice"})
    assert answer.status_code == 202
    body = answer.json()
    assert {"rollback_id", "revision", "fenced_at"} <= body.keys()
    async with pg.connection() as connection:
        fence = await connection.fetchrow("SELECT epoch, closed, rollback_id::text FROM sagas.fences WHERE flag = $1", FLAG)
    assert dict(fence) == {"epoch": 2, "closed": True, "rollback_id": body["rollback_id"]}


async def test_a_killed_flag_gives_its_off_variant_whatever_its_rules_say(served: Served) -> None:  # P4
    rules = definition({"if": [{"==": [{"var": "plan"}, "gold"]}, "on", "on"]})
    await served.put_flag(FLAG, definition=rules)
    assert (await served.evaluate(FLAG, plan="gold"))["value"] is True
    await served.kill(FLAG)

    async def off() -> bool:
        seen = [await served.evaluate(FLAG, plan=plan, targetingKey=plan) for plan in ("gold", "silver")]
        return [one["value"] for one in seen] == [False, False] and seen[0]["metadata"]["rescind.killed"] is True

    await until(off)


async def test_edits_and_rollouts_do_not_bring_a_killed_flag_back(served: Served) -> None:  # P4
    await served.put_flag(FLAG)
    await served.settled(await served.kill(FLAG))
    await served.put_flag(FLAG, definition={**definition(), "defaultVariant": "on", "metadata": {"rollout": 2}})
    assert (await served.evaluate(FLAG))["value"] is False
    await served.ok("POST", f"{P}/flags/{FLAG}/lift", {"reason": "it was not that"})

    async def on() -> bool:
        return (await served.evaluate(FLAG))["value"] is True

    await until(on)


async def test_a_kill_and_the_changes_beside_it_are_one_revision(served: Served, pg: Postgres) -> None:  # P1
    await served.put_flag(FLAG)
    await served.put_flag("search")
    operations = [
        {"op": "put", "flag": {"key": "search", "definition": definition(), "description": "with the old index"}},
        {"op": "kill", "key": FLAG, "compensate": "hold"},
    ]
    answer = await served.ok("POST", f"{P}/changes", {"operations": operations, "reason": "roll back the release"})
    assert answer["revision"] == "1.3"
    assert [kill["revision"] for kill in answer["kills"]] == ["1.3"]
    async with pg.connection() as connection:
        rows = await connection.fetch("SELECT revision, keys FROM flagd.revisions ORDER BY revision")
        changed = await connection.fetch("SELECT key, changed_revision FROM flagd.flags ORDER BY key")
    assert [row["revision"] for row in rows] == [1, 2, 3]
    assert sorted(rows[-1]["keys"]) == [FLAG, "search"]
    assert {row["changed_revision"] for row in changed} == {3}


async def test_a_change_list_with_a_bad_kill_changes_nothing(served: Served) -> None:  # P1
    await served.put_flag(FLAG)
    operations = [
        {"op": "put", "flag": {"key": "search", "definition": definition()}},
        {"op": "kill", "key": FLAG, "grace_seconds": -1},
        {"op": "kill", "key": FLAG, "since": "yesterday"},
    ]
    answer = await served.http.post(f"{P}/changes", json={"operations": operations, "reason": "x"})
    assert answer.status_code == 422
    assert {fault["pointer"] for fault in answer.json()["errors"]} >= {"/operations/1/grace_seconds", "/operations/2/since"}
    flags = await served.ok("GET", f"{P}/flags")
    assert [(flag["key"], flag["killed"]) for flag in flags["flags"]] == [(FLAG, False)]


async def test_a_kill_is_decided_when_its_person_says_and_never_after_it_was_fenced(served: Served) -> None:
    for key, decided_at in (("a", "2020-01-01T00:00:00+00:00"), ("b", "2099-01-01T00:00:00+00:00")):
        await served.put_flag(key)
        killed = await served.kill(key, decided_at=decided_at)
        record = await served.ok("GET", f"/v1/rollbacks/{killed['rollback_id']}")
        if key == "a":
            assert datetime.fromisoformat(record["decided_at"]) == datetime.fromisoformat(decided_at)
        else:
            assert record["decided_at"] <= record["fenced_at"]


async def test_several_flags_in_one_change_are_one_rollback(served: Served) -> None:
    for key in ("a", "b"):
        await served.put_flag(key)
    operations = [{"op": "kill", "key": key} for key in ("a", "b")]
    answer = await served.ok("POST", f"{P}/changes", {"operations": operations, "reason": "release 12"})
    (kill,) = answer["kills"]
    record = await rollback(served, kill["rollback_id"])
    assert [flag["flag"] for flag in record["flags"]] == ["a", "b"]


async def test_repeating_a_kill_answers_with_the_same_rollback(served: Served) -> None:  # P19, hazard 11
    await served.put_flag(FLAG)
    first = await served.kill(FLAG)
    again = await served.kill(FLAG, incident="INC-7")
    assert (again["rollback_id"], again["revision"]) == (first["rollback_id"], first["revision"])
    assert (again["joined"], again["widened"], again["kill_count"]) == (True, False, 2)


async def test_ten_people_at_once_kill_into_one_rollback(served: Served) -> None:  # P19, hazard 11
    await served.put_flag(FLAG)
    answers = await asyncio.gather(*(served.kill(FLAG) for _ in range(10)))
    assert len({answer["rollback_id"] for answer in answers}) == 1
    assert sorted(answer["kill_count"] for answer in answers) == list(range(1, 11))
    assert len({answer["revision"] for answer in answers}) == 1


async def test_a_narrower_kill_joins_and_narrows_nothing(served: Served) -> None:  # P19
    await served.put_flag(FLAG)
    first = await served.kill(FLAG)
    narrow = await served.kill(FLAG, scope={"country": "DE"}, compensate="none", since="1.1")
    assert narrow["rollback_id"] == first["rollback_id"]
    assert (narrow["widened"], narrow["compensate"]) == (False, "auto")
    record = await rollback(served, first["rollback_id"])
    assert [(flag["scope"], flag["since_revision"]) for flag in record["flags"]] == [({}, None)]


async def test_a_wider_kill_widens_the_rollback_in_a_new_revision(served: Served) -> None:  # P19, hazard 9
    await served.put_flag(FLAG, effect_attributes=["country"])
    narrow = await served.kill(FLAG, scope={"country": "DE"})
    assert (await served.evaluate(FLAG, country="FR"))["value"] is True
    wide = await served.kill(FLAG)
    assert wide["rollback_id"] == narrow["rollback_id"]
    assert (wide["joined"], wide["widened"]) == (True, True)
    assert wide["revision"] != narrow["revision"]
    record = await rollback(served, wide["rollback_id"])
    assert [flag["scope"] for flag in record["flags"]] == [{}, {"country": "DE"}]
    assert [flag["closes_epoch"] for flag in record["flags"]] == [2, 1]


async def test_none_and_hold_are_raised_to_auto_and_never_back(served: Served) -> None:  # P19
    await served.put_flag(FLAG)
    strengths = [(await served.kill(FLAG, compensate=wish))["compensate"] for wish in ("none", "hold", "auto", "none")]
    assert strengths == ["none", "hold", "auto", "auto"]


async def test_an_earlier_since_widens_and_a_later_one_does_not(served: Served) -> None:  # P19
    await served.put_flag(FLAG)
    await served.put_flag(FLAG, description="second")
    await served.put_flag(FLAG, description="third")
    answers = [await served.kill(FLAG, since=since) for since in ("1.2", "1.3", "1.1")]
    assert [answer["widened"] for answer in answers] == [False, False, True]
    record = await rollback(served, answers[0]["rollback_id"])
    assert record["flags"][0]["since_revision"] == "1.1"
    assert (await served.kill(FLAG))["widened"] is True
    assert (await rollback(served, answers[0]["rollback_id"]))["flags"][0]["since_revision"] is None


async def test_a_kill_that_came_during_a_lift_wins(served: Served) -> None:  # hazard 11
    await served.put_flag(FLAG)
    seen = (await served.kill(FLAG, compensate="hold"))["kill_count"]
    await served.kill(FLAG)
    lift = await served.http.post(f"{P}/flags/{FLAG}/lift", json={"reason": "it was fine", "kill_count": seen})
    assert (lift.status_code, lift.json()["code"]) == (409, "killed_again")
    assert (await served.evaluate(FLAG))["value"] is False


async def test_lifting_in_grace_undoes_nothing_and_opens_a_new_epoch(served: Served, pg: Postgres) -> None:  # P17
    await served.put_flag(FLAG)
    killed = await served.kill(FLAG, grace_seconds=3600)
    lifted = await served.ok("POST", f"{P}/flags/{FLAG}/lift", {"reason": "wrong flag"})
    assert lifted["settled"] == [killed["rollback_id"]]
    record = await rollback(served, killed["rollback_id"])
    assert (record["state"], record["outcome"]) == ("settled", "lifted_in_grace")
    assert record["lifted_at"] is not None
    async with pg.connection() as connection:
        fence = await connection.fetchrow("SELECT epoch, closed, opened_revision FROM sagas.fences WHERE flag = $1", FLAG)
    assert dict(fence) == {"epoch": 3, "closed": False, "opened_revision": int(lifted["revision"].split(".")[1])}


async def test_lifting_what_is_not_killed_says_so(served: Served) -> None:
    await served.put_flag(FLAG)
    answer = await served.http.post(f"{P}/flags/{FLAG}/lift", json={"reason": "hm"})
    assert (answer.status_code, answer.json()["code"]) == (409, "not_killed")


async def test_turning_on_needs_more_right_than_turning_off(served: Served) -> None:  # P19, P20
    await served.put_flag(FLAG)
    async with served.client(await served.token("kill")) as oncall:
        killed = await oncall.post(f"{P}/flags/{FLAG}/kill", json={"reason": "bad"})
        assert killed.status_code == 202
        await served.settled(killed.json())
        assert (await oncall.post(f"{P}/flags/{FLAG}/lift", json={"reason": "good again"})).status_code == 403

        async def refused() -> bool:
            entries = (await served.ok("GET", "/v1/audit"))["entries"]
            return any(entry["action"] == "refused" and entry["object"].endswith("/lift") for entry in entries)

        await until(refused)
    async with served.client(await served.token("lift")) as lead:
        assert (await lead.post(f"{P}/flags/{FLAG}/lift", json={"reason": "good again"})).status_code == 200


async def test_a_token_for_one_flag_kills_that_flag_alone(served: Served) -> None:  # P19
    await served.put_flag(FLAG)
    await served.put_flag("search")
    async with served.client(await served.token(f"kill:{FLAG}")) as oncall:
        killed = await oncall.post(f"{P}/flags/{FLAG}/kill", json={"reason": "bad"})
        assert killed.status_code == 202
        assert (await oncall.post(f"{P}/flags/search/kill", json={"reason": "bad"})).status_code == 403
        assert (await oncall.get(f"/v1/rollbacks/{killed.json()['rollback_id']}")).status_code == 200


async def test_every_kill_and_lift_stands_in_the_audit_log_with_name_and_reason(served: Served) -> None:  # P20
    await served.put_flag(FLAG)
    await served.kill(FLAG, incident="INC-9")
    await served.settled(await served.kill(FLAG))
    await served.ok("POST", f"{P}/flags/{FLAG}/lift", {"reason": "mended"})
    entries = (await served.ok("GET", "/v1/audit", environment="production", subject=FLAG))["entries"]
    acts = [(entry["action"], entry["actor"], entry["reason"]) for entry in reversed(entries)]
    assert acts[-3:] == [
        ("flag.kill", "admin", "bad release"),
        ("flag.kill", "admin", "bad release"),
        ("flag.lift", "admin", "mended"),
    ]

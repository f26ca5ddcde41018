"""Explanations over HTTP: from the snapshot that evaluations are answered from, for whoever may read flags."""

from __future__ import annotations

from typing import Any

import httpx
from rescind import wire

from tests.flagd.world import PRODUCTION, World, definition, flag

BASE = f"/v1/environments/{PRODUCTION}/flags"
RULES = {"if": [{"and": ["beta", {"==": [{"var": "country"}, "DE"]}]}, "on", "off"]}


async def explained(client: httpx.AsyncClient, key: str, body: Any) -> httpx.Response:
    return await client.post(f"{BASE}/{key}/explain", json=body)


async def test_the_answer_comes_with_its_rule_and_its_revision(world: World, admin: httpx.AsyncClient) -> None:
    await world.put(flag("f", definition=definition(targeting=RULES)))
    answer = (await explained(admin, "f", {"context": {"country": "DE"}})).json()
    assert (answer["decided"], answer["variant"], answer["value"], answer["reason"]) == ("rule", "on", True, "TARGETING_MATCH")
    assert answer["rule"] == {"number": 1, "pointer": "/targeting/if/0", "name": "beta"}
    assert (answer["environment"], answer["revision"], answer["pointer"]) == (PRODUCTION, "1.1", "/targeting/if/1")
    assert (await explained(admin, "f", {})).json()["variant"] == "off"


async def test_a_narrowed_kill_is_named_with_its_rollback(world: World, admin: httpx.AsyncClient) -> None:  # P4
    await world.put(flag("f", definition=definition(targeting=RULES)))
    await world.kill("f", scope={"tenant": "a"})
    await world.replicas.refresh(PRODUCTION)
    answer = (await explained(admin, "f", {"context": {"country": "DE"}})).json()
    assert (answer["decided"], answer["variant"]) == ("kill", "off")
    (kill,) = answer["kills"]
    assert (kill["scope"], kill["in_scope"], kill["absent"]) == ({"tenant": "a"}, True, ["tenant"])
    assert kill["rollback_id"]


async def test_everything_that_is_wrong_with_the_question_is_said(world: World, admin: httpx.AsyncClient) -> None:
    await world.put(flag("checkout"))
    answer = await explained(admin, "checkout", {"context": 7, "user": "x"})
    assert answer.status_code == 422
    assert {fault["pointer"] for fault in answer.json()["errors"]} == {"/context", "/user"}
    missing = await explained(admin, "chekout", {"context": {}})
    assert (missing.status_code, missing.json()["code"], missing.json()["suggestion"]) == (404, "unknown_flag", "checkout")


async def test_it_takes_the_right_to_evaluate(world: World, client: httpx.AsyncClient) -> None:  # P19
    await world.put(flag("f"))
    assert (await explained(client, "f", {})).status_code == 401
    for scope, status in (("effects", 403), ("read", 200), ("evaluate", 200)):
        client.headers["authorization"] = f"Bearer {await world.token(scope)}"
        assert (await explained(client, "f", {})).status_code == status


async def needing(world: World) -> None:
    """`q` needs `p`, `r` needs `q`: each has one rule of its own."""
    rules = {"targeting": {"if": [{"==": [{"var": "plan"}, "pro"]}, "on"]}, "defaultVariant": "off"}
    needs = {name: [wire.Prerequisite(flag=name, variant="on")] for name in ("p", "q")}
    shown = definition(targeting={"if": [{"==": [{"var": "country"}, "DE"]}, "on", "off"]})
    q, r = flag("q", definition=definition(**rules), prerequisites=needs["p"]), flag("r", prerequisites=needs["q"])
    await world.put(flag("p", definition=shown), q, r)


async def test_a_flag_shut_by_a_kill_of_what_it_needs_says_so(world: World, admin: httpx.AsyncClient) -> None:  # P4, P7
    await needing(world)
    await world.kill("p")
    await world.replicas.refresh(PRODUCTION)
    for key, needed in (("q", "p"), ("r", "q")):
        answer = (await explained(admin, key, {"context": {"plan": "pro", "country": "DE"}})).json()
        assert (answer["decided"], answer["variant"], answer["kills"]) == ("prerequisite", "off", [])
        name = f"needs {needed} to serve on"
        assert answer["rule"] == {"number": 1, "pointer": "/$prerequisites/if/0", "name": name}


async def test_a_rule_has_the_number_and_the_place_at_which_it_was_written(world: World, admin: httpx.AsyncClient) -> None:
    await needing(world)
    answer = (await explained(admin, "q", {"context": {"plan": "pro", "country": "DE"}})).json()
    assert (answer["decided"], answer["variant"], answer["pointer"]) == ("rule", "on", "/targeting/if/1")
    assert answer["rule"] == {"number": 1, "pointer": "/targeting/if/0", "name": None}
    assert [one["pointer"] for one in answer["findings"]] == ["/$prerequisites/if", "/targeting/if"]
    answer = (await explained(admin, "q", {"context": {"plan": "free", "country": "DE"}})).json()
    assert (answer["decided"], answer["variant"]) == ("default", "off")
    answer = (await explained(admin, "q", {"context": {"plan": "pro"}})).json()
    assert (answer["decided"], answer["variant"], answer["rule"]["name"]) == ("prerequisite", "off", "needs p to serve on")

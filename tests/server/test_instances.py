"""Saga instances through the whole server: started, worked, decided on and seen over HTTP, each way with its right."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.serving import P, Served
from tests.waiting import until

I = f"{P}/sagas/order/instances"  # noqa: E741
FLAG = "checkout.new-flow"
STEP = {"kind": "shop.step", "compensation": {"executor": "worker"}, "settle_seconds": 0, "arguments": ["order"]}
SAGA = {
    "flag": FLAG,
    "steps": [{**STEP, "name": name, "key": f"{name}:{{order}}"} for name in ("reserve", "capture")],
    "waits": [{"name": "boss", "before": "capture", "approval": True}],
}
CLAIM = {
    "worker": "w", "saga": "order", "versions": ["1"], "steps": ["reserve", "capture"], "acts": ["reserve", "capture"],
    "wait_seconds": 5,
}  # fmt: skip


@pytest.fixture
async def shop(served: Served) -> Served:
    """A server with the flag and the saga."""
    await served.put_flag(FLAG)
    await served.ok("PUT", f"{P}/sagas/order/versions/1", {"document": SAGA, "reason": "test"})
    return served


def order(name: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "version": "1", "input": {"order": name}, "variant": "on", **fields}


async def report(served: Served, task: dict[str, Any], **fields: Any) -> Any:
    one = {"id": task["id"], "token": task["token"], "outcome": "succeeded", "verb": task["verb"], **fields}
    return await served.ok("POST", f"{P}/tasks:report", {"worker": "w", "reports": [one], "claim": CLAIM})


async def stands(served: Served, name: str, state: str) -> bool:
    return bool((await served.ok("GET", f"{I}/{name}"))["state"] == state)


async def test_an_instance_goes_from_its_start_to_its_result(shop: Served) -> None:
    begun = await shop.ok("POST", f"{I}:start", {"instances": [order("o1"), {"id": 1}], "claim": CLAIM})
    assert [one["outcome"] for one in begun["results"]] == ["started", "invalid"]
    [reserve] = begun["tasks"]
    assert (await report(shop, reserve, proof={"shelf": 7})) == {"results": ["recorded"], "tasks": []}
    waiting = await shop.ok("GET", f"{I}/o1")
    assert [wait["name"] for wait in waiting["waits"]] == ["boss"]
    approved = await shop.ok("POST", f"{I}/o1/approvals/boss", {"approve": True, "reason": "looks right"})
    assert approved == {"id": "o1", "verb": "approve", "changed": True, "state": "running", "paused": False}
    [capture] = (await shop.ok("POST", f"{P}/tasks:claim", CLAIM))["tasks"]
    await report(shop, capture, proof={"id": "pi"})
    [ended] = (await shop.ok("POST", f"{I}:await", {"ids": ["o1"]}))["ended"]
    assert (ended["state"], ended["result"]) == ("done", {"reserve": {"shelf": 7}, "capture": {"id": "pi"}})
    assert (await shop.ok("POST", f"{I}:await", {"ids": ["o9"]}))["unknown"] == ["o9"]


async def test_a_killed_flag_begins_nothing_and_ends_what_runs(shop: Served) -> None:  # P8
    begun = await shop.ok("POST", f"{I}:start", {"instances": [order("o1")], "claim": CLAIM})
    killed = await shop.kill(FLAG)
    refused = await shop.http.post(I, json=order("o2"))
    assert (refused.status_code, refused.json()["code"]) == (409, "killed")
    await report(shop, begun["tasks"][0])
    assert await stands(shop, "o1", "killed")
    [undo] = (await shop.ok("POST", f"{P}/tasks:claim", CLAIM))["tasks"]
    await report(shop, undo)
    assert (await shop.settled(killed))["counts"]["shop.step"]["compensated"] == 1


async def test_a_cancelled_one_is_undone_and_no_rollback_is_listed_for_it(shop: Served) -> None:
    begun = await shop.ok("POST", f"{I}:start", {"instances": [order("o1")], "claim": CLAIM})
    await report(shop, begun["tasks"][0])
    assert (await shop.ok("POST", f"{I}/o1/cancel", {"reason": "customer called"}))["state"] == "undoing"
    [undo] = (await shop.ok("POST", f"{P}/tasks:claim", CLAIM))["tasks"]
    assert undo["verb"] == "undo"
    await report(shop, undo)
    await until(lambda: stands(shop, "o1", "undone"))
    assert (await shop.ok("GET", "/v1/rollbacks"))["rollbacks"] == []
    effect = (await shop.ok("GET", f"{P}/effects", saga_instance="o1"))["effects"][0]
    hidden = await shop.http.post(f"/v1/rollbacks/{effect['rollback_id']}/cancel", json={"reason": "x"})
    assert hidden.status_code == 404


async def test_instances_are_found_by_what_they_are(shop: Served) -> None:
    for number in range(5):
        await shop.ok("POST", I, order(f"o{number}", subject=f"c{number % 2}"))
    await shop.ok("POST", f"{I}/o3/cancel", {"reason": "x"})
    await until(lambda: stands(shop, "o3", "undone"))
    assert [one["id"] for one in (await shop.ok("GET", I, subject="c1"))["instances"]] == ["o3", "o1"]
    assert [one["id"] for one in (await shop.ok("GET", I, status="undone"))["instances"]] == ["o3"]
    first = await shop.ok("GET", I, limit=2)
    rest = await shop.ok("GET", I, after=first["next"])
    assert [one["id"] for one in first["instances"] + rest["instances"]] == ["o4", "o3", "o2", "o1", "o0"]
    assert (await shop.http.get(I, params={"status": "asleep"})).status_code == 422


async def test_each_way_asks_for_its_right(shop: Served) -> None:  # P19
    await shop.ok("POST", I, order("o1"))
    ways = {
        "effects": [(I, order("o2")), (f"{I}:start", {"instances": []}), (f"{I}:await", {"ids": [], "wait_seconds": 0})],
        "work:order": [(f"{P}/tasks:claim", {**CLAIM, "wait_seconds": 0})],
        "compensate": [(f"{I}/o1/pause", {"reason": "x"}), (f"{I}/o1/approvals/boss", {"approve": True, "reason": "x"})],
    }
    for scope, requests in ways.items():
        for other in ways:
            async with shop.client(await shop.token(other)) as client:
                answers = [(await client.post(path, json=body)).status_code for path, body in requests]
            assert answers == [200 if other == scope else 403] * len(requests), (scope, other)


async def test_what_is_not_there_is_said_with_what_was_probably_meant(shop: Served) -> None:
    await shop.ok("POST", I, order("o100"))
    for method, path, body, code, suggestion in (
        ("GET", f"{I}/o101", None, "unknown_instance", "o100"),
        ("POST", f"{I}/o100/cancle", {"reason": "x"}, "not_found", "cancel"),
        ("POST", f"{I}/o100/approvals/bos", {"approve": True, "reason": "x"}, "unknown_wait", "boss"),
        ("POST", f"{P}/sagas/ordr/instances", order("o1"), "unknown_saga", "order"),
        ("POST", I, order("o1", version="2"), "unknown_version", None),
    ):
        answer = await shop.http.request(method, path, json=body)
        assert (answer.status_code, answer.json()["code"], answer.json().get("suggestion")) == (404, code, suggestion), path


@pytest.mark.parametrize("scope", ["work:order", "work", "work:other"])
async def test_a_report_is_answered_alike_on_both_ways(shop: Served, scope: str) -> None:
    begun = await shop.ok("POST", f"{I}:start", {"instances": [order("o1"), order("o2")], "claim": CLAIM})
    async with shop.client(await shop.token(scope)) as worker:
        told = []
        for task, headers in zip(begun["tasks"], ({}, {"idempotency-key": "one"}), strict=True):
            one = {"id": task["id"], "token": task["token"], "outcome": "succeeded", "verb": "act"}
            body = {"worker": "w", "reports": [one, {**one, "token": task["id"]}, {**one, "id": "no"}]}
            told += [(await worker.post(f"{P}/tasks:report", json=body, headers=headers)).json() for _ in range(2)]
    counted = "lost" if scope == "work:other" else "recorded"
    assert told == [{"results": [counted, "lost", "lost"], "tasks": []}] * 4


async def test_a_worker_that_acts_nothing_is_given_no_steps(shop: Served) -> None:  # P21
    await shop.ok("POST", I, order("o1"))
    old = {name: value for name, value in CLAIM.items() if name != "acts"} | {"wait_seconds": 0.2}
    assert (await shop.ok("POST", f"{P}/tasks:claim", old))["tasks"] == []
    assert len((await shop.ok("POST", f"{P}/tasks:claim", CLAIM))["tasks"]) == 1


async def test_a_verb_for_many_is_previewed_begun_watched_and_needs_its_right(shop: Served) -> None:  # P19
    for number in range(3):
        await shop.ok("POST", I, order(f"o{number}", subject="ann" if number else "bob"))
    asked = {"verb": "pause", "saga": "order", "filter": {"subject": "ann"}, "reason": "looking", "per_second": 1000}
    preview = await shop.ok("POST", f"{P}/operations", {**asked, "dry_run": True})
    assert preview == {"dry_run": True, "estimated": 2, "is_exact": True, "sample": ["o2", "o1"]}
    assert (await shop.ok("GET", f"{P}/operations"))["operations"] == []
    begun = await shop.ok("POST", f"{P}/operations", asked)

    async def over() -> bool:
        return bool((await shop.ok("GET", f"{P}/operations/{begun['id']}"))["state"] == "done")

    await until(over)
    [listed] = (await shop.ok("GET", f"{P}/operations"))["operations"]
    assert (listed["done"], listed["refused"], listed["left"]) == (2, {}, 0)
    everywhere = (await shop.ok("GET", f"{P}/saga-instances", paused="true"))["instances"]
    assert [(one["saga"], one["id"]) for one in everywhere] == [("order", "o2"), ("order", "o1")]
    assert (await shop.ok("POST", f"{P}/operations/{begun['id']}/cancel", {"reason": "x"}))["changed"] is False
    async with shop.client(await shop.token("read", "effects")) as client:
        answers = [await client.post(f"{P}/operations", json=asked), await client.get(f"{P}/operations")]
    assert [one.status_code for one in answers] == [403, 200]
    wrong = await shop.http.post(f"{P}/operations", json={**asked, "filter": {"state": "done"}})
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/filter")

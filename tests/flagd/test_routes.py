"""Flags, changes, environments and instances over HTTP: what people write, and how they are answered."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest
from rescind import wire

from tests.flagd.world import PRODUCTION, World, definition, flag

BASE = f"/v1/environments/{PRODUCTION}"
NEW = {"definition": definition(), "owner": "checkout", "services": ["web"], "effect_attributes": ["region"]}


@pytest.fixture
async def admin(world: World, client: httpx.AsyncClient) -> httpx.AsyncClient:
    """The client with an admin's token."""
    client.headers["authorization"] = f"Bearer {await world.token('admin', environment=None)}"
    return client


def codes(answer: httpx.Response) -> dict[str, str]:
    return {fault["pointer"]: fault.get("code", "invalid") for fault in answer.json()["errors"]}


async def test_a_flag_is_put_read_listed_and_archived(world: World, admin: httpx.AsyncClient) -> None:
    created = await admin.put(f"{BASE}/flags/f", json={"flag": NEW, "reason": "a start"})
    assert created.status_code == 201
    assert (created.json()["revision"], created.json()["killed"], created.json()["kills"]) == ("1.1", False, [])
    assert created.json()["effect_attributes"] == ["region"]
    replaced = await admin.put(f"{BASE}/flags/f", json={"flag": {**NEW, "key": "f", "tier": 1}})
    assert (replaced.status_code, replaced.json()["revision"]) == (200, "1.2")
    read = await admin.get(f"{BASE}/flags/f")
    assert read.json() == replaced.json()
    assert read.headers["etag"] == '"1.2"'
    listed = (await admin.get(f"{BASE}/flags")).json()
    assert (listed["flags"], listed["next"]) == ([read.json()], None)
    assert (await admin.delete(f"{BASE}/flags/f?reason=done")).json() == {"revision": "1.3"}
    assert (await admin.get(f"{BASE}/flags/f")).status_code == 404


async def test_lists_come_in_pages(world: World, admin: httpx.AsyncClient) -> None:
    await world.put(*(flag(f"flag-{number}") for number in range(5)))
    found: list[str] = []
    after = ""
    while after is not None:
        page = (await admin.get(f"{BASE}/flags", params={"limit": 2, "after": after})).json()
        found += [one["key"] for one in page["flags"]]
        after = page["next"]
    assert found == [f"flag-{number}" for number in range(5)]


async def test_a_killed_flag_says_so(world: World, admin: httpx.AsyncClient) -> None:  # P4
    await world.put(flag("f"))
    await world.kill("f")
    answer = (await admin.get(f"{BASE}/flags/f")).json()
    assert (answer["killed"], answer["revision"], answer["epoch"]) == (True, "1.2", 2)
    assert (answer["kills"][0]["off_variant"], answer["kills"][0]["reason"]) == ("off", "bad")
    assert answer["definition"] == definition(), "the rules stay"


async def test_every_fault_of_a_flag_is_told_at_once(admin: httpx.AsyncClient) -> None:
    flawed = {"definition": {"state": "ON", "variants": {"on": True}}, "tier": "gold", "ownr": "me"}
    answer = await admin.put(f"{BASE}/flags/f", json={"flag": flawed, "raison": "x", "expected_revision": "soon"})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(codes(answer)) == {
        "/raison",
        "/expected_revision",
        "/flag/ownr",
        "/flag/tier",
        "/flag/definition/state",
        "/flag/off_variant",
    }


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b"[" * 100_000, 400), (b"[]", 422), (b"", 422), (b'{"flag": 7}', 422), (b"x" * (1024 * 1024 + 1), 413)],
)
async def test_a_bad_body_is_refused(admin: httpx.AsyncClient, body: bytes, status: int) -> None:
    answer = await admin.put(f"{BASE}/flags/f", content=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Traceback" not in answer.text


async def test_if_match_speaks_of_the_flag_and_expected_revision_of_the_environment(
    world: World, admin: httpx.AsyncClient
) -> None:
    await world.put(flag("f"))
    await world.put(flag("g"))
    body = {"flag": NEW}
    matched = await admin.put(f"{BASE}/flags/f", json=body, headers={"if-match": '"1.1"'})
    stale = await admin.put(f"{BASE}/flags/f", json=body, headers={"if-match": '"1.1"'})
    absent = await admin.put(f"{BASE}/flags/h", json=body, headers={"if-match": '"1.1"'})
    late = await admin.put(f"{BASE}/flags/f", json={**body, "expected_revision": "1.1"})
    assert [one.status_code for one in (matched, stale, absent, late)] == [200, 412, 412, 409]


async def test_a_change_list_is_one_revision_or_nothing(world: World, admin: httpx.AsyncClient) -> None:  # P1
    await world.put(flag("old"))
    operations: list[Any] = [{"op": "put", "flag": {"key": "new", **NEW}}, {"op": "archive", "key": "old"}]
    answer = await admin.post(f"{BASE}/changes", json={"operations": operations, "reason": "x", "expected_revision": "1.1"})
    assert (answer.status_code, answer.json()) == (200, {"revision": "1.2"})
    failing = [{"op": "put", "flag": {"key": "newer", **NEW}}, {"op": "archive", "key": "nwe"}]
    refused = await admin.post(f"{BASE}/changes", json={"operations": failing})
    assert (refused.status_code, codes(refused)) == (422, {"/operations/1/key": "unknown_flag"})
    assert {one["key"] for one in (await admin.get(f"{BASE}/flags")).json()["flags"]} == {"new"}


async def test_a_kill_in_a_change_list_is_pointed_to_its_endpoint(admin: httpx.AsyncClient) -> None:
    answer = await admin.post(f"{BASE}/changes", json={"operations": [{"op": "kill", "key": "f"}]})
    assert (answer.status_code, answer.json()["code"]) == (422, "kill_has_its_own_endpoint")
    assert f"POST {BASE}/flags/<key>/kill" in answer.json()["next_step"]


async def test_a_flagd_document_goes_in_and_comes_out(world: World, admin: httpx.AsyncClient) -> None:
    rule = {"if": [{"$ref": "isFree"}, "off", "on"]}
    document = {
        "flags": {"f": definition(targeting=rule), "g": definition()},
        "$evaluators": {"isFree": {"==": [{"var": "plan"}, "free"]}},
        "metadata": {"team": "checkout"},
    }
    answer = await admin.post(f"{BASE}/import?reason=move", json=document)
    assert (answer.status_code, answer.json()) == (200, {"revision": "1.1", "flags": 2})
    exported = (await admin.get(f"{BASE}/export")).json()
    assert {name: exported[name] for name in document} == document
    replica = await world.replicas.get(PRODUCTION)
    assert replica.evaluator.boolean("f", True, {"plan": "free"}) is False
    put = await admin.put(f"{BASE}/flags/h", json={"flag": {"definition": definition(targeting=rule)}})
    assert put.status_code == 201, "a flag may refer to the environment's evaluators"


async def test_an_import_with_faults_writes_nothing(world: World, admin: httpx.AsyncClient) -> None:  # P1
    await world.put(flag("f"))
    await world.kill("f")
    bad = {"flags": {"g": definition(), "bad": {"state": "ON"}}}
    assert set(codes(await admin.post(f"{BASE}/import", json=bad))) >= {"/flags/bad/state", "/flags/bad/variants"}
    traitor = {"flags": {"g": definition(), "f": definition(variants={"on": False, "off": True})}}
    refused = await admin.post(f"{BASE}/import", json=traitor)
    assert (refused.status_code, codes(refused)) == (409, {"/flags/f/variants/off": "killed"})
    assert [one["key"] for one in (await admin.get(f"{BASE}/flags")).json()["flags"]] == ["f"]


async def test_environments_are_created_once_and_listed_for_those_who_may_see_them(
    world: World, admin: httpx.AsyncClient
) -> None:
    created = [await admin.put("/v1/environments/staging", json={"reason": "x"}) for _ in range(2)]
    assert [one.status_code for one in created] == [201, 200]
    assert (await admin.put("/v1/environments/Not-Good")).status_code == 422
    names = [one["name"] for one in (await admin.get("/v1/environments")).json()["environments"]]
    assert names == [PRODUCTION, "staging"]
    bound = {"authorization": f"Bearer {await world.token('read', environment='staging')}"}
    listed = (await admin.get("/v1/environments", headers=bound)).json()["environments"]
    assert [(one["name"], one["revision"]) for one in listed] == [("staging", "1.0")]


async def test_who_may_not_is_told_so(world: World, client: httpx.AsyncClient) -> None:
    await world.put(flag("f"))
    reader = {"authorization": f"Bearer {await world.token('read')}"}
    await world.service.create_environment("staging", actor="test")
    assert (await client.get(f"{BASE}/flags")).status_code == 401
    assert (await client.get(f"{BASE}/flags", headers=reader)).status_code == 200
    assert (await client.get("/v1/environments/staging/flags", headers=reader)).status_code == 403
    for method, path in (("PUT", "/flags/f"), ("DELETE", "/flags/f"), ("POST", "/changes"), ("POST", "/import")):
        assert (await client.request(method, BASE + path, headers=reader, json={})).status_code == 403


async def test_unknown_names_are_404_with_a_suggestion(world: World, admin: httpx.AsyncClient) -> None:
    await world.put(flag("checkout.new-flow"))
    near = await admin.get(f"{BASE}/flags/checkout.new-flwo")
    assert (near.status_code, near.json()["suggestion"]) == (404, "checkout.new-flow")
    assert (await admin.delete(f"{BASE}/flags/checkout.new-flwo")).json()["suggestion"] == "checkout.new-flow"
    assert (await admin.get("/v1/environments/producton/flags")).json()["suggestion"] == PRODUCTION
    for absurd in ("a%00b", "x" * 5000, "%F0%9F%98%80"):
        assert (await admin.get(f"{BASE}/flags/{absurd}")).status_code == 404
        assert (await admin.get(f"/v1/environments/{absurd}/instances")).status_code == 404
        assert (await admin.get(f"/v1/environments/{absurd}/snapshot")).status_code == 404


async def test_messagepack_is_spoken_when_asked(world: World, admin: httpx.AsyncClient) -> None:
    headers = {"accept": "application/msgpack", "content-type": "application/msgpack"}
    body = msgspec.msgpack.encode({"flag": NEW})
    answer = await admin.put(f"{BASE}/flags/f", content=body, headers=headers)
    assert answer.headers["content-type"] == "application/msgpack"
    assert msgspec.msgpack.decode(answer.content)["key"] == "f"


async def test_a_heartbeat_is_an_acknowledgement(world: World, client: httpx.AsyncClient) -> None:
    await world.put(flag("f"))
    killed = await world.kill("f")
    await world.replicas.refresh(PRODUCTION, killed)
    client.headers["authorization"] = f"Bearer {await world.token('evaluate', 'effects')}"
    beat = wire.InstanceBeat(instance="i", service="web", revision=killed, begun=["e1"])
    answer = await client.post(f"{BASE}/heartbeats", content=wire.encode(beat))
    assert answer.status_code == 200
    assert msgspec.json.decode(answer.content, type=wire.InstanceBeatAnswer).revision == killed
    assert world.acknowledged == [beat]
    behind = wire.InstanceBeat(instance="j", service="web", revision=wire.Revision(1, 1))
    await client.post(f"{BASE}/heartbeats", content=wire.encode(behind))
    rows = (await client.get(f"{BASE}/instances")).json()["instances"]
    assert [(row["instance"], row["revision"], row["behind"], row["live"]) for row in rows] == [
        ("i", "1.2", False, True),
        ("j", "1.1", True, True),
    ]


@pytest.mark.parametrize(
    "beat",
    [
        {"instance": "", "service": "s", "revision": [1, 1]},
        {"instance": "a\x00b", "service": "s", "revision": [1, 1]},
        {"instance": "i" * 300, "service": "s", "revision": [1, 1]},
        {"instance": "i", "service": "s", "revision": [1, 2**60]},
        {"instance": "i", "service": "s", "revision": [1, -1]},
        {"instance": "i", "service": "s"},
        [],
    ],
)
async def test_an_absurd_heartbeat_is_refused(admin: httpx.AsyncClient, beat: Any) -> None:
    assert (await admin.post(f"{BASE}/heartbeats", json=beat)).status_code == 422

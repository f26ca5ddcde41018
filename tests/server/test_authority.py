"""No way in without a token, none with the wrong one, and a revoked token is refused within a second (P19, P20)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import httpx

from runtime import audit
from runtime.settings import Settings
from server.app import build
from server.parts import Parts
from tests.server.serving import P, Served, admin_token
from tests.waiting import CEILING_SECONDS, until

OPEN = {("GET", "/healthz"), ("GET", "/readyz")}
FOR_ANY_TOKEN = {("GET", "/v1/self"), ("GET", "/v1/environments")}
"""Who am I; and the environments, of which each token is shown its own."""
REFUSALS = 20
BARE = [
    ("POST", "/ofrep/v1/evaluate/flags/a"),
    ("GET", f"{P}/stream"),
    ("GET", f"{P}/snapshot"),
    ("GET", "/metrics"),
    ("GET", "/docs/openapi.json"),
]


async def ways_in(served: Served) -> list[tuple[str, str]]:
    """Every method and path that the server answers, with names of things that exist."""
    await served.put_flag("a")
    rollback = (await served.kill("a"))["rollback_id"]
    names = {"environment": "production", "key": "a", "rollback": rollback}
    schema = await served.ok("GET", "/docs/openapi.json")
    ways = list(BARE)
    for path, methods in schema["paths"].items():
        filled = "/".join(names.get(part[1:-1], "x") if part.startswith("{") else part for part in path.split("/"))
        ways += [(method.upper(), filled) for method in methods if method in ("get", "put", "post", "delete", "patch")]
    return ways


async def ask(client: httpx.AsyncClient, method: str, path: str) -> int:
    return (await client.request(method, path, json={} if method != "GET" else None)).status_code


async def test_every_way_in_asks_for_a_token(served: Served) -> None:
    ways = await ways_in(served)
    assert len(ways) > 20
    async with served.client(None) as nobody, served.client("rsc_0123456789abcdef_" + "0" * 64) as stranger:
        for client in (nobody, stranger):
            answers = {(method, path): await ask(client, method, path) for method, path in ways}
            assert {way: status for way, status in answers.items() if status != 401} == {}


async def test_only_health_is_open(served: Served) -> None:
    async with served.client(None) as nobody:
        for method, path in OPEN:
            assert await ask(nobody, method, path) == 200


async def test_every_way_in_refuses_a_token_without_the_right(served: Served) -> None:
    ways = await ways_in(served)
    async with served.client(await served.token("define:nothing")) as weak:
        answers = {way: await ask(weak, *way) for way in ways if way not in FOR_ANY_TOKEN}
    assert {way: status for way, status in answers.items() if status != 403} == {}


async def test_every_way_in_refuses_a_token_of_another_environment(served: Served) -> None:
    ways = [way for way in await ways_in(served) if "/environments/production" in way[1]]
    scopes = ("read", "evaluate", "effects", "kill", "lift", "compensate", "work", "define")
    async with served.client(await served.token(*scopes, environment="development")) as elsewhere:
        answers = {way: await ask(elsewhere, *way) for way in ways}
    assert {way: status for way, status in answers.items() if status != 403} == {}


async def test_rollbacks_and_audit_of_another_environment_are_not_shown(served: Served) -> None:
    await served.put_flag("a")
    rollback = (await served.kill("a"))["rollback_id"]
    async with served.client(await served.token("read", environment="development")) as elsewhere:
        assert (await elsewhere.get(f"/v1/rollbacks/{rollback}")).status_code == 403
        assert (await elsewhere.get("/v1/rollbacks")).json()["rollbacks"] == []
        assert {entry["environment"] for entry in (await elsewhere.get("/v1/audit")).json()["entries"]} <= {"development"}
        assert (await elsewhere.get("/v1/audit", params={"environment": "production"})).status_code == 403


async def test_a_refusal_is_on_record_before_a_stopping_server_lets_go_of_postgresql(
    database_url: str, redis_url: str
) -> None:  # P20
    admin = await admin_token(database_url)
    parts = await Parts.open(Settings(database_url=database_url, redis_url=redis_url, log_level="warning"))
    transport = httpx.ASGITransport(app=build(parts))  # type: ignore[arg-type]
    written = []

    async def count() -> None:
        async with parts.pg.connection() as connection:
            written.append(sum(entry.action == "refused" for entry in await audit.newest(connection)))

    parts.finish_before_close(count)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        asked = {"name": "weak", "scopes": ["read"], "environment": "production", "reason": "x"}
        made = await http.post("/v1/tokens", json=asked, headers={"authorization": f"Bearer {admin}"})
        weak = {"authorization": f"Bearer {made.json()['token']}"}
        asks = [http.post("/v1/tokens", json=asked, headers=weak) for _ in range(REFUSALS)]
        assert {answer.status_code for answer in await asyncio.gather(*asks)} == {403}
    await parts.close()
    assert written == [REFUSALS]


async def test_a_revoked_token_is_refused_everywhere(served: Served) -> None:
    text = await served.token("read", "evaluate")
    identity = text.split("_")[1]
    ways: list[dict[str, Any]] = [
        {"method": "GET", "url": f"{P}/flags"},
        {"method": "GET", "url": f"{P}/snapshot"},
        {"method": "POST", "url": "/ofrep/v1/evaluate/flags/a", "json": {"context": {}}},
    ]
    async with served.client(text) as client:
        assert [(await client.request(**way)).status_code for way in ways] == [200, 200, 404]
        await served.ok("POST", f"/v1/tokens/{identity}/revoke", {"reason": "it leaked"})

        async def refused() -> bool:
            return {(await client.request(**way)).status_code for way in ways} == {401}

        await until(refused)


async def revoked_while_open(served: Served, text: str, open_request: Coroutine[Any, Any, Any]) -> Any:
    """What comes of a request whose token, of which it is the first use, is revoked after it was let in."""
    opened = asyncio.ensure_future(open_request)
    await until(lambda: served.parts.verifier.cached(text) is not None or opened.done())
    assert not opened.done()
    await served.ok("POST", f"/v1/tokens/{text.split('_')[1]}/revoke", {"reason": "it leaked"})
    async with asyncio.timeout(CEILING_SECONDS):
        return await opened


async def held_rollback(served: Served) -> str:
    """A rollback that does not settle by itself."""
    await served.put_flag("a")
    effect = {"key": "k", "kind": "mail", "flag": "a", "variant": "on", "payload": {}}
    await served.ok("POST", f"{P}/effects:admit", {"effects": [effect]})
    return str((await served.kill("a", compensate="hold"))["rollback_id"])


async def test_a_worker_whose_token_is_revoked_while_it_waits_gets_no_task(served: Served) -> None:
    text = await served.token("work:order")
    ask = {"worker": "w", "saga": "order", "versions": ["1"], "steps": ["reserve"], "wait_seconds": 30}
    async with served.client(text) as worker:
        answer = await revoked_while_open(served, text, worker.post(f"{P}/tasks:claim", json=ask))
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


async def test_waiting_for_a_rollback_ends_with_the_token(served: Served) -> None:
    rollback, text = await held_rollback(served), await served.token("read")
    async with served.client(text) as reader:
        waiting = reader.get(f"/v1/rollbacks/{rollback}", params={"wait": "settled", "timeout_seconds": 30})
        answer = await revoked_while_open(served, text, waiting)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


async def test_following_a_rollback_ends_with_the_token(served: Served) -> None:
    rollback, text = await held_rollback(served), await served.token("read")

    async def follow(reader: httpx.AsyncClient) -> bytes:
        async with reader.stream("GET", f"/v1/rollbacks/{rollback}/events") as stream:
            return b"".join([part async for part in stream.aiter_bytes()])

    async with served.client(text) as reader:
        told = await revoked_while_open(served, text, follow(reader))
    assert told.startswith(b"event: rollback\n")
    assert b'"state":"settled"' not in told


async def test_tokens_are_made_listed_and_revoked_by_admins_alone(served: Served) -> None:  # P20
    text = await served.token("kill")
    async with served.client(text) as oncall:
        body = {"name": "more", "scopes": ["admin"], "reason": "please"}
        assert (await oncall.post("/v1/tokens", json=body)).status_code == 403
        assert (await oncall.get("/v1/tokens")).status_code == 403
        me = (await oncall.get("/v1/self")).json()
        assert (me["environment"], me["scopes"]) == ("production", ["kill"])
    listed = (await served.ok("GET", "/v1/tokens"))["tokens"]
    assert {token["name"] for token in listed} == {"admin", "kill"}
    assert all("secret" not in field for token in listed for field in token)
    entries = (await served.ok("GET", "/v1/audit"))["entries"]
    assert "token.create" in {entry["action"] for entry in entries}

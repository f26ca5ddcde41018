"""What is wrong is said at once, by name and place, and nothing of it is done."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from tests.server.conftest import Stoppable
from tests.server.serving import P, Served, definition
from tests.waiting import until

SAGA = {
    "saga": "order",
    "version": "1",
    "flag": "checkout.new-flow",
    "steps": [{"name": "send", "kind": "mail", "key": "mail:{order}", "compensation": {"executor": "worker"}}],
}
SMTP = {"connection": {"type": "smtp", "host": "127.0.0.1", "port": 25, "sender": "shop@example.com"}, "reason": "x"}
TOKEN = {"name": "x", "scopes": ["read"], "environment": "prodution", "reason": "x"}


def claim(saga: str) -> dict[str, object]:
    return {"worker": "w", "saga": saga, "versions": ["1"], "steps": ["send"], "limit": 1, "wait_seconds": 0}


UNKNOWN = [
    ("POST", f"{P}/flags/checkout/kill", {"reason": "x"}, "unknown_flag", "checkout.new-flow"),
    ("POST", f"{P}/flags/chekout.new-flow/lift", {"reason": "x"}, "unknown_flag", "checkout.new-flow"),
    ("GET", f"{P}/flags/chekout.new-flow/kill-preview", None, "unknown_flag", "checkout.new-flow"),
    ("GET", f"{P}/flags/chekout.new-flow", None, "unknown_flag", "checkout.new-flow"),
    ("POST", "/v1/environments/prodction/flags/a/kill", {"reason": "x"}, "unknown_environment", "production"),
    ("GET", "/v1/rollbacks/0192aaaa-0000-7000-8000-000000000000", None, "unknown_rollback", None),
    ("GET", "/v1/rollbacks/nonsense", None, "unknown_rollback", None),
    ("PUT", "/v1/environments/prodution/sagas/order/versions/1", SAGA, "unknown_environment", "production"),
    ("PUT", "/v1/environments/prodution/kinds/mail/versions/1", {"class": "irreversible"}, "unknown_environment", "production"),
    ("PUT", "/v1/environments/prodution/connections/mail", SMTP, "unknown_environment", "production"),
    ("DELETE", "/v1/environments/prodution/connections/mail", None, "unknown_environment", "production"),
    ("POST", "/v1/environments/prodution/tasks:claim", claim("order"), "unknown_environment", "production"),
    ("POST", f"{P}/tasks:claim", claim("ordr"), "unknown_saga", "order"),
    ("POST", "/v1/tokens", TOKEN, "unknown_environment", "production"),
    ("POST", "/v1/tokens/0123/revoke", {"reason": "x"}, "unknown_token", None),
]
KILL_FAULTS = [
    ({}, "", "reason"),
    ({"reason": ""}, "/reason", "length"),
    ({"reason": "x", "compensate": "maybe"}, "/compensate", "maybe"),
    ({"reason": "x", "grace_seconds": -1}, "/grace_seconds", ">= 0"),
    ({"reason": "x", "grace_seconds": "soon"}, "/grace_seconds", "float"),
    ({"reason": "x", "scope": {"country": ["DE"]}}, "/scope/*", "array"),
    ({"reason": "x", "scope": []}, "/scope", "object"),
    ({"reason": "x", "since": "yesterday"}, "/since", "yesterday"),
    ({"reason": "x", "fault_at": "noon"}, "/fault_at", "datetime"),
    ({"reason": "x", "resaon": "typo"}, "", "resaon"),
    (["a", "list"], "", "object"),
    ({"reason": "x", "incident": "INC\0"}, "/incident", "NUL"),
    ({"reason": "x", "scope": {"a": "b\0"}}, "/scope/a", "NUL"),
    ({"reason": "x", "since": 2**63}, "/since", "out of range"),
    ({"reason": "x", "since": f"1.{2**63}"}, "/since", "out of range"),
    ({"reason": "x", "since": "0001-01-01T00:00:00Z"}, "/since", "out of range"),
    ({"reason": "x", "fault_at": "0001-01-01T00:00:00+14:00"}, "/fault_at", "1970"),
    ({"reason": "x", "decided_at": "9999-12-31T23:59:59Z"}, "/decided_at", "9000"),
]


@pytest.mark.parametrize(("method", "path", "body", "code", "suggestion"), UNKNOWN)
async def test_an_unknown_name_is_404_with_the_nearest_one(
    served: Served, method: str, path: str, body: object, code: str, suggestion: str | None
) -> None:
    await served.put_flag("checkout.new-flow")
    await served.ok("PUT", f"{P}/sagas/order/versions/1", SAGA)
    answer = await served.http.request(method, path, json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert (answer.json()["code"], answer.json().get("suggestion")) == (code, suggestion)


async def test_an_unknown_rollback_is_404_with_the_one_that_was_probably_meant(served: Served) -> None:
    await served.put_flag("a")
    identity = (await served.kill("a"))["rollback_id"]
    mistyped = identity[:-2] + ("0" if identity[-2] != "0" else "1") + identity[-1]
    for method, tail in (("GET", ""), ("GET", "/report"), ("GET", "/events"), ("POST", "/pause")):
        for meant in (mistyped, identity[:-1], identity[:20]):
            answer = await served.http.request(method, f"/v1/rollbacks/{meant}{tail}", json={"reason": "x"})
            assert (answer.status_code, answer.json()["suggestion"]) == (404, identity)
    far = (await served.http.get("/v1/rollbacks/ffffffff-ffff-4fff-bfff-ffffffffffff")).json()
    assert "suggestion" not in far
    assert identity in far["next_step"]


async def test_what_a_token_may_not_see_is_not_suggested_to_it(served: Served) -> None:
    await served.put_flag("a")
    identity = (await served.kill("a"))["rollback_id"]
    for token in (await served.token("read", environment="development"), await served.token("evaluate")):
        async with served.client(token) as other:
            answer = await other.get(f"/v1/rollbacks/{identity[:-1]}")
        assert answer.status_code == 404
        assert identity not in answer.text


async def test_a_worker_may_ask_before_its_saga_is_registered(served: Served) -> None:
    waiting = asyncio.create_task(served.http.post(f"{P}/tasks:claim", json={**claim("order"), "wait_seconds": 1}))
    await served.ok("PUT", f"{P}/sagas/order/versions/1", SAGA)
    assert (await waiting).json() == {"tasks": []}


@pytest.mark.parametrize(("body", "pointer", "word"), KILL_FAULTS)
async def test_a_kill_that_makes_no_sense_is_refused_with_the_place(
    served: Served, body: object, pointer: str, word: str
) -> None:
    await served.put_flag("a")
    answer = await served.http.post(f"{P}/flags/a/kill", json=body)
    assert answer.status_code == 422, answer.text
    (fault,) = answer.json()["errors"]
    assert fault["pointer"] == pointer
    assert word in fault["detail"]
    assert (await served.ok("GET", f"{P}/flags/a"))["killed"] is False


async def test_every_fault_of_a_flag_is_told_at_once(served: Served) -> None:
    flag = {"definition": {**definition(), "state": "on", "defaultVariant": "blue"}, "off_variant": 7, "colour": "red"}
    answer = await served.http.put(f"{P}/flags/a", json={"flag": flag, "reason": "x"})
    assert answer.status_code == 422
    pointers = {fault["pointer"] for fault in answer.json()["errors"]}
    assert {"/flag/definition/state", "/flag/definition/defaultVariant", "/flag/off_variant", "/flag/colour"} <= pointers


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b'{"reason": "x"', b"[" * 5000])
async def test_what_is_no_json_is_400(served: Served, content: bytes) -> None:
    await served.put_flag("a")
    answer = await served.http.post(f"{P}/flags/a/kill", content=content, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", f"{P}/flags/a/kill"), ("PUT", f"{P}/flags/a"), ("POST", "/v1/tokens"), ("POST", "/ofrep/v1/evaluate/flags/a")],
)
async def test_a_body_over_its_limit_is_413(served: Served, method: str, path: str) -> None:
    content = b'{"reason": "' + b"x" * (9 * 1024 * 1024) + b'"}'
    answer = await served.http.request(method, path, content=content, headers={"x-rescind-environment": "production"})
    assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")


async def test_a_path_and_a_method_that_do_not_exist_are_problems_too(served: Served) -> None:
    for method, path, status in (("GET", "/v1/nonsense", 404), ("DELETE", "/v1/self", 405), ("GET", f"{P}/flags/a/kill", 405)):
        answer = await served.http.request(method, path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


async def test_waiting_for_verified_is_refused_at_once_where_nothing_measures_health(served: Served) -> None:
    await served.put_flag("a")
    killed = await served.kill("a")
    answer = await served.http.get(f"/v1/rollbacks/{killed['rollback_id']}", params={"wait": "verified"})
    assert (answer.status_code, answer.json()["code"]) == (422, "nothing_measures_health")


async def test_messagepack_is_read_and_answered_where_it_is_asked_for(served: Served) -> None:
    await served.put_flag("a")
    headers = {"content-type": "application/msgpack", "accept": "application/msgpack"}
    answer = await served.http.post(f"{P}/flags/a/kill", content=msgspec.msgpack.encode({"reason": "x"}), headers=headers)
    assert answer.status_code == 202
    assert msgspec.msgpack.decode(answer.content)["rollback_id"]


async def test_a_repeated_request_with_its_idempotency_key_is_answered_and_not_done_again(served: Served) -> None:
    await served.put_flag("a")
    sent = {"json": {"reason": "x"}, "headers": {"idempotency-key": "once"}}
    first, second = [await served.http.post(f"{P}/flags/a/kill", **sent) for _ in range(2)]  # type: ignore[arg-type]
    assert first.json() == second.json()
    assert (await served.kill("a"))["kill_count"] == 2
    other = await served.http.post(f"{P}/flags/a/kill", json={"reason": "y"}, headers={"idempotency-key": "once"})
    assert other.status_code == 422


async def test_with_postgresql_away_writes_are_503_and_evaluation_goes_on(stoppable: Stoppable) -> None:  # P5, P6
    served = stoppable.served
    await served.put_flag("a")
    assert (await served.evaluate("a"))["value"] is True
    await asyncio.to_thread(stoppable.postgres.stop)
    answer = await served.http.post(f"{P}/flags/a/kill", json={"reason": "x"})
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert int(answer.headers["retry-after"]) >= 1
    assert "Traceback" not in answer.text
    assert (await served.evaluate("a"))["value"] is True
    assert (await served.http.get("/healthz")).status_code == 200
    assert (await served.http.get("/readyz")).json()["postgresql"] == "away"
    await asyncio.to_thread(stoppable.postgres.start)

    async def killed() -> bool:
        return (await served.http.post(f"{P}/flags/a/kill", json={"reason": "x"})).status_code == 202

    await until(killed)


async def test_with_redis_away_a_kill_is_fenced_and_reaches_everyone(stoppable: Stoppable) -> None:  # P5
    served = stoppable.served
    await served.put_flag("a")
    await asyncio.to_thread(stoppable.valkey.stop)
    assert (await served.kill("a"))["rollback_id"]

    async def off() -> bool:
        return (await served.evaluate("a"))["value"] is False

    await until(off)
    ready = await served.http.get("/readyz")
    assert (ready.status_code, ready.json()["redis"]) == (200, "away")

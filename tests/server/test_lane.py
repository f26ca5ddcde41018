"""The short way in answers as the framework does, and leaves to it whatever is not plain."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.serving import P, serving

FLAG = "checkout.new-flow"


def item(key: str, **more: Any) -> dict[str, Any]:
    return {"key": key, "kind": "payment.capture", "flag": FLAG, "variant": "on", "payload": {"amount_cents": 1}, **more}


async def test_a_batch_is_answered_alike_on_both_ways(database_url: str, redis_url: str) -> None:
    async with serving(database_url, redis_url) as served:
        await served.put_flag(FLAG)
        long_way = {"idempotency-key": "one"}
        plain = await served.http.post(f"{P}/effects:admit", json={"effects": [item("a"), {"key": 1}, item("b", flag="no")]})
        body = {"effects": [item("c"), {"key": 1}, item("d", flag="no")]}
        full, repeated = [await served.http.post(f"{P}/effects:admit", json=body, headers=long_way) for _ in range(2)]
        assert repeated.headers["idempotent-replayed"] == "true", "this is kept by what stands on the long way"
        assert repeated.json() == full.json()
        outcomes = [[one["outcome"] for one in answer.json()["results"]] for answer in (plain, full)]
        assert outcomes[0] == outcomes[1] == ["admitted", "invalid", "unknown_flag"]
        admitted = plain.json()["results"][0]
        report = {"effect_id": admitted["effect_id"], "token": admitted["token"], "outcome": "succeeded"}
        reported = await served.http.post(f"{P}/effects:report", json={"reports": [report]})
        assert reported.json() == {"results": [{"outcome": "recorded"}]}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("effects:admit", b"{", 400),
        ("effects:admit", b'{"effects": 1}', 422),
        ("effects:admit", b'{"effects": [' + b"{}," * 256 + b"{}]}", 413),
        ("effects:report", b'{"reports": [' + b"{}," * 256 + b"{}]}", 413),
        ("heartbeats", b'{"instance": "", "service": "s", "revision": [1, 1]}', 422),
        ("heartbeats", b"[" * 100_000, 400),
        ("counts", b'{"run": "", "service": "s", "windows": [1]}', 422),
        ("counts", b"[]", 422),
    ],
)
async def test_what_has_faults_is_refused_as_the_framework_refuses(
    database_url: str, redis_url: str, path: str, body: bytes, status: int
) -> None:
    async with serving(database_url, redis_url) as served:
        await served.put_flag(FLAG)
        json = {"content-type": "application/json"}
        plain = await served.http.post(f"{P}/{path}", content=body, headers=json)
        full = await served.http.post(f"{P}/{path}", content=body, headers={**json, "idempotency-key": "one"})
        assert (plain.status_code, full.status_code) == (status, status)
        assert plain.json() == full.json()
        assert plain.headers["content-type"] == "application/problem+json"


async def test_who_may_not_is_refused_on_the_short_way_too(database_url: str, redis_url: str) -> None:
    async with serving(database_url, redis_url) as served:
        await served.put_flag(FLAG)
        token = await served.token("read")
        elsewhere = await served.token("effects", environment="development")
        for one in (token, elsewhere, "rsc_nobody_nothing"):
            async with served.client(one) as http:
                for _ in range(2):  # a token is known from its second use on
                    answer = await http.post(f"{P}/effects:admit", json={"effects": [item("a")]})
                    assert answer.status_code == (401 if one.startswith("rsc_nobody") else 403)
        assert (await served.ok("GET", f"{P}/effects"))["effects"] == []


@pytest.mark.parametrize("way", ["short", "full"])
async def test_an_acknowledgement_gives_back_what_its_sender_may_hold_alone(
    database_url: str, redis_url: str, way: str
) -> None:  # P2
    headers = {} if way == "short" else {"accept": "application/json, application/msgpack;q=0"}
    beat = {"instance": "pod-1", "service": "checkout", "revision": [1, 2], "begun": []}
    async with serving(database_url, redis_url) as served:
        await served.put_flag(FLAG)
        admitted = await served.ok("POST", f"{P}/effects:admit", {"effects": [item("a")], "instance": "pod-1"})
        await served.kill(FLAG)

        async def statuses(*scopes: str) -> tuple[int, str]:
            """Of the beat, and of the effect after it; the first use of a token takes the full way."""
            async with served.client(await served.token(*scopes)) as http:
                await http.get("/v1/self")
                answer = await http.post(f"{P}/heartbeats", json=beat, headers=headers)
            [effect] = (await served.ok("GET", f"{P}/effects"))["effects"]
            assert effect["effect_id"] == admitted["results"][0]["effect_id"]
            return answer.status_code, effect["status"]

        assert await statuses("read") == (403, "admitted")
        assert await statuses("effects") == (403, "admitted")
        assert (await served.ok("GET", f"{P}/instances"))["instances"] == []
        assert await statuses("evaluate") == (200, "admitted")
        assert await statuses("evaluate", "effects") == (200, "failed")


async def test_a_beat_on_the_short_way_counts(database_url: str, redis_url: str) -> None:
    async with serving(database_url, redis_url) as served:
        await served.put_flag(FLAG)
        beat = {"instance": "i-1", "service": "checkout", "revision": [1, 1]}
        for _ in range(2):
            answer = await served.ok("POST", f"{P}/heartbeats", beat)
            assert answer["revision"] == [1, 1]
        (listed,) = (await served.ok("GET", f"{P}/instances"))["instances"]
        assert listed["instance"] == "i-1"

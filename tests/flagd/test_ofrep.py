"""OFREP's single evaluation, against a real server (P6, P7, and its OpenAPI document for the answers)."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from runtime import tokens
from tests.flagd.world import PRODUCTION, World, definition, flag
from tests.waiting import until

PATH = "/ofrep/v1/evaluate/flags/"


async def ask(client: httpx.AsyncClient, token: str, key: str, context: Any = None, **headers: str) -> httpx.Response:
    body = {"context": {"targetingKey": "u"} if context is None else context}
    return await client.post(PATH + key, json=body, headers={"authorization": f"Bearer {token}", **headers})


async def test_an_evaluation_answers_value_variant_and_reason(world: World, client: httpx.AsyncClient) -> None:  # P7
    await world.put(flag("f", definition=definition(metadata={"team": "checkout"})))
    token = await world.token("evaluate")
    free = await ask(client, token, "f", {"targetingKey": "u", "plan": "free"})
    assert free.status_code == 200
    assert free.json() == {
        "key": "f",
        "reason": "TARGETING_MATCH",
        "variant": "off",
        "value": False,
        "metadata": {"team": "checkout"},
    }
    assert (await ask(client, token, "f", {"targetingKey": "u", "plan": "paid"})).json()["value"] is True


async def test_a_killed_flag_gives_its_off_variant_and_says_so(world: World, client: httpx.AsyncClient) -> None:  # P4, P7
    await world.put(flag("f"))
    await world.replicas.refresh(PRODUCTION, await world.kill("f"))
    answer = (await ask(client, await world.token("evaluate"), "f", {"targetingKey": "u", "plan": "paid"})).json()
    assert (answer["value"], answer["variant"], answer["reason"]) == (False, "off", "STATIC")
    assert answer["metadata"]["rescind.killed"] is True


async def test_a_disabled_flag_leaves_the_value_to_the_caller(world: World, client: httpx.AsyncClient) -> None:
    await world.put(flag("f", definition=definition(state="DISABLED")))
    answer = await ask(client, await world.token("evaluate"), "f")
    assert (answer.status_code, answer.json()) == (200, {"key": "f", "reason": "DISABLED", "variant": ""})


async def test_an_unknown_flag_is_404_with_its_key_and_a_suggestion(world: World, client: httpx.AsyncClient) -> None:
    await world.put(flag("checkout.new-flow"))
    answer = await ask(client, await world.token("evaluate"), "checkout.new-flwo")
    assert answer.status_code == 404
    assert (answer.json()["key"], answer.json()["errorCode"]) == ("checkout.new-flwo", "FLAG_NOT_FOUND")
    assert "'checkout.new-flow'" in answer.json()["errorDetails"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "PARSE_ERROR"),
        (b"{", "PARSE_ERROR"),
        (b'{"context": {"a": "\xff"}}', "PARSE_ERROR"),
        (b'{"context": {"a": ' + b"[" * 100_000, "PARSE_ERROR"),
        (b"[]", "INVALID_CONTEXT"),
        (b"{}", "INVALID_CONTEXT"),
        (b'{"context": 7}', "INVALID_CONTEXT"),
        (b'{"context": {"targetingKey": 7}}', "INVALID_CONTEXT"),
    ],
)
async def test_a_bad_body_is_400_in_ofreps_terms(world: World, client: httpx.AsyncClient, body: bytes, code: str) -> None:
    await world.put(flag("f"))
    token = await world.token("evaluate")
    answer = await client.post(PATH + "f", content=body, headers={"authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.json()["errorCode"], answer.json()["key"]) == (400, code, "f")
    assert "Traceback" not in answer.text


async def test_a_body_over_its_limit_is_413(world: World, client: httpx.AsyncClient) -> None:
    await world.put(flag("f"))
    headers = {"authorization": f"Bearer {await world.token('evaluate')}"}
    body = json.dumps({"context": {"targetingKey": "x" * 1024 * 1024}}).encode()

    async def in_pieces() -> Any:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    for content in (body, in_pieces()):
        answer = await client.post(PATH + "f", content=content, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_who_may_not_evaluate_is_told_so(world: World, client: httpx.AsyncClient) -> None:
    await world.put(flag("f"))
    missing = await client.post(PATH + "f", json={"context": {}})
    wrong = await ask(client, "rsc_" + "0" * 16 + "_" + "0" * 64, "f")
    lacking = await ask(client, await world.token("read"), "f")
    nameless = await ask(client, await world.token("admin", environment=None), "f")
    assert [one.status_code for one in (missing, wrong, lacking, nameless)] == [401, 401, 403, 400]
    assert missing.headers["www-authenticate"] == "Bearer"
    assert (await client.get(PATH + "f")).status_code == 405


async def test_an_api_key_and_an_admins_header_do_as_well(world: World, client: httpx.AsyncClient) -> None:
    await world.put(flag("f"))
    body = {"context": {"targetingKey": "u"}}
    by_key = await client.post(PATH + "f", json=body, headers={"x-api-key": await world.token("evaluate")})
    admin = await world.token("admin", environment=None)
    named = await ask(client, admin, "f", **{"x-rescind-environment": PRODUCTION})
    unknown = await ask(client, admin, "f", **{"x-rescind-environment": "producton"})
    assert [one.status_code for one in (by_key, named, unknown)] == [200, 200, 404]
    assert unknown.json()["suggestion"] == PRODUCTION


async def test_a_revoked_token_is_refused_within_a_second(world: World, client: httpx.AsyncClient) -> None:
    await world.put(flag("f"))
    token = await world.token("evaluate")
    assert (await ask(client, token, "f")).status_code == 200
    async with world.pg.connection() as connection:
        await tokens.revoke(connection, token.split("_")[1])

    async def refused() -> bool:
        return (await ask(client, token, "f")).status_code == 401

    await until(refused)


async def test_a_rule_that_fails_or_is_unknown_never_raises(world: World, client: httpx.AsyncClient) -> None:  # P6
    await world.put(flag("f"))
    async with world.pg.transaction() as connection:
        await connection.execute(
            "UPDATE flagd.flags SET changed_revision = 2, document = replace(document::text, '\"==\"', '\"tomorrow\"')::json"
        )
        await connection.execute("UPDATE flagd.environments SET revision = 2")
    await world.replicas.refresh(PRODUCTION)
    answer = await ask(client, await world.token("evaluate"), "f")
    assert (answer.status_code, answer.json()["variant"]) == (200, "off")

"""Every kind of answer against OFREP's own OpenAPI document (0.3.0), and against what the released clients need beside it.

The document's `oneOf` over the kinds of values can hold for none: a flag left to the caller has no `value`, and so fits every
other kind too. It is read as `anyOf`.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from jsonschema import Draft202012Validator

from runtime import tokens
from tests.flagd.world import PRODUCTION, VALUES, World, definition, flag

DOCUMENT = yaml.safe_load((Path(__file__).parent / "data/ofrep/openapi.yaml").read_text(encoding="utf-8"))
SINGLE = "/ofrep/v1/evaluate/flags/{key}"
BULK = "/ofrep/v1/evaluate/flags"
REASONS = {"STATIC", "DEFAULT", "TARGETING_MATCH", "SPLIT", "CACHED", "DISABLED", "UNKNOWN", "STALE", "ERROR"}
"""OpenFeature's own set (specification, section types)."""
SPLIT = {"fractional": [["on", 50], ["off", 50]]}


def components() -> Any:
    """The document's schemas, with the one repair."""
    found = copy.deepcopy(DOCUMENT["components"])
    kinds = found["schemas"]["evaluationSuccess"]["allOf"][1]
    kinds["anyOf"] = kinds.pop("oneOf")
    return found


def faults(path: str, answer: httpx.Response) -> list[str]:
    """What is wrong with an answer by the document; the answers that it gives no body to may have any."""
    told = DOCUMENT["paths"][path]["post"]["responses"][str(answer.status_code)]
    if "content" not in told:
        return []
    schema = {**told["content"]["application/json"]["schema"], "components": components()}
    return [f"{list(fault.path)}: {fault.message}" for fault in Draft202012Validator(schema).iter_errors(answer.json())]


def lacks(item: Any) -> list[str]:
    """What a released client would miss in one flag's answer."""
    if "errorCode" in item:
        return [] if item.get("errorDetails") else ["errorDetails"]
    return [] if isinstance(item.get("variant"), str) and item["reason"] in REASONS else ["variant or reason"]


async def put_every_kind(world: World) -> None:
    """A flag of every kind of value and of every kind of outcome."""
    plain = [
        flag(kind, definition=definition(variants={"on": value, "off": value}, targeting={}, metadata={"team": "a", "n": 1.5}))
        for kind, value in VALUES.items()
    ]
    odd = {
        "disabled": definition(state="DISABLED"),
        "defaulted": definition(targeting={"if": [{"==": [{"var": "plan"}, "never"]}, "on", None]}),
        "code-default": definition(defaultVariant=None, targeting={"if": [False, "on", None]}),
        "split": definition(targeting=SPLIT),
        "fails": definition(targeting={"cat": ["no", "-such"]}),
    }
    await world.put(*plain, *(flag(key, definition=one) for key, one in odd.items()), flag("killed"))
    await world.replicas.refresh(PRODUCTION, await world.kill("killed"))


async def ask(client: httpx.AsyncClient, token: str, path: str, content: bytes) -> httpx.Response:
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    return await client.post(path, content=content, headers=headers)


async def test_every_kind_of_flag_is_answered_as_the_document_says(world: World, client: httpx.AsyncClient) -> None:
    await put_every_kind(world)
    token = await world.token("evaluate")
    bodies = (b'{"context":{"targetingKey":"u"}}', b'{"context":{}}')
    for body in bodies:
        whole = await ask(client, token, BULK, body)
        assert (whole.status_code, faults(BULK, whole)) == (200, [])
        assert len(whole.json()["flags"]) == 12
        for item in whole.json()["flags"]:
            one = await ask(client, token, SINGLE.format(key=item["key"]), body)
            assert (one.json(), faults(SINGLE, one), lacks(item)) == (item, [], [])
            assert one.status_code == (400 if "errorCode" in item else 200)


async def test_values_come_as_what_they_are(world: World, client: httpx.AsyncClient) -> None:
    await put_every_kind(world)
    token = await world.token("evaluate")
    answers = {kind: await ask(client, token, SINGLE.format(key=kind), b'{"context":{}}') for kind in VALUES}
    assert {kind: answer.json()["value"] for kind, answer in answers.items()} == VALUES
    assert b'"value":2.0' in answers["whole"].content
    assert b'"value":7,' in answers["integer"].content


async def test_a_rule_that_needs_a_targeting_key_says_so_and_no_other_does(world: World, client: httpx.AsyncClient) -> None:
    narrow = {"if": [{"==": [{"var": "country"}, "DE"]}, SPLIT, "off"]}
    inner = {"if": [{"==": [{"fractional": [["a", 1], ["b", {"+": [1, 0]}]]}, "a"]}, "on", "off"]}
    named = {"fractional": [{"var": "email"}, ["on", 1], ["off", 1]]}
    targetings = {"narrow": narrow, "inner": inner, "named": named, "killed": SPLIT}
    await world.put(*(flag(key, definition=definition(targeting=one)) for key, one in targetings.items()))
    await world.replicas.refresh(PRODUCTION, await world.kill("killed"))
    token = await world.token("evaluate")

    async def codes(context: bytes) -> list[str | None]:
        answers = [await ask(client, token, SINGLE.format(key=key), b'{"context":' + context + b"}") for key in targetings]
        assert [fault for answer in answers for fault in faults(SINGLE, answer)] == []
        return [answer.json().get("errorCode") for answer in answers]

    missing = "TARGETING_KEY_MISSING"
    assert await codes(b'{"country":"DE"}') == [missing, missing, None, None]
    assert await codes(b'{"country":"DE","targetingKey":""}') == [missing, missing, None, None]
    assert await codes(b'{"country":"FR"}') == [None, missing, None, None]
    assert await codes(b'{"country":"DE","targetingKey":"u"}') == [None, None, None, None]


@pytest.mark.parametrize("path", [SINGLE, BULK])
async def test_every_refusal_is_as_the_document_says_and_has_details(
    world: World, client: httpx.AsyncClient, path: str
) -> None:
    await world.put(flag("f"))
    at, token = path.format(key="f"), await world.token("evaluate")
    answers = [
        await ask(client, token, at, b"{"),
        await ask(client, token, at, b'{"context":7}'),
        await ask(client, "rsc_none", at, b'{"context":{}}'),
        await ask(client, await world.token("read"), at, b'{"context":{}}'),
        await ask(client, token, at, b'{"context":{"a":"' + b"x" * 1024 * 1024 + b'"}}'),
    ]
    assert [one.status_code for one in answers] == [400, 400, 401, 403, 413]
    for one in answers:
        assert one.status_code == 413 or faults(path, one) == []
        assert (one.json()["errorDetails"] != "", "errorCode" in one.json()) == (True, True)


async def test_an_unknown_flag_and_an_unforeseen_error_are_as_the_document_says(
    world: World, client: httpx.AsyncClient
) -> None:
    await world.put(flag("f"))
    missing = await ask(client, await world.token("evaluate"), SINGLE.format(key="no%20such"), b'{"context":{}}')
    assert (missing.status_code, missing.json()["key"], faults(SINGLE, missing)) == (404, "no such", [])
    token = await world.token("evaluate")
    async with world.pg.connection() as connection:
        await connection.execute("ALTER TABLE runtime.tokens RENAME COLUMN scopes TO gone")
        try:
            for path in (SINGLE.format(key="f"), BULK):
                broken = await ask(client, token, path, b'{"context":{}}')
                assert (broken.status_code, faults(BULK, broken)) == (500, [])
                assert "gone" not in broken.text
        finally:
            await connection.execute("ALTER TABLE runtime.tokens RENAME COLUMN gone TO scopes")
            await tokens.listing(connection)

"""OFREP's bulk evaluation, against a real server (P4, P6, P7)."""

from __future__ import annotations

from typing import Any

import httpx

from tests.flagd.world import PRODUCTION, World, definition, flag

PATH = "/ofrep/v1/evaluate/flags"


async def ask(client: httpx.AsyncClient, token: str, context: Any = None, query: str = "", **headers: str) -> httpx.Response:
    body = {"context": {"targetingKey": "u"} if context is None else context}
    return await client.post(PATH + query, json=body, headers={"authorization": f"Bearer {token}", **headers})


async def test_all_flags_are_answered_and_again_only_when_something_changed(
    world: World, client: httpx.AsyncClient
) -> None:  # P7
    whole = definition(variants={"on": 10, "off": 0.5})
    await world.put(flag("a"), flag("b", definition=whole), flag("c", definition=definition(state="DISABLED")))
    token = await world.token("evaluate")
    first = await ask(client, token, {"targetingKey": "u", "plan": "free"})
    assert first.status_code == 200
    assert [one["key"] for one in first.json()["flags"]] == ["a", "b", "c"]
    assert first.json()["flags"][2] == {"key": "c", "reason": "DISABLED", "variant": ""}
    assert b'"value":10.0' in (await ask(client, token)).content
    tag = first.headers["etag"]
    turned = {"plan": "free", "targetingKey": "u"}
    again = await ask(client, token, turned, **{"if-none-match": tag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    other = await ask(client, token, {"targetingKey": "v"}, **{"if-none-match": tag})
    assert other.status_code == 200
    await world.put(flag("d"))
    assert (await ask(client, token, turned, **{"if-none-match": tag})).status_code == 200


async def test_a_kill_is_in_the_next_bulk_answer(world: World, client: httpx.AsyncClient) -> None:  # P4, P7
    await world.put(flag("a"))
    token = await world.token("evaluate")
    tag = (await ask(client, token)).headers["etag"]
    revision = await world.kill("a")
    answer = await ask(client, token, query=f"?flagConfigEtag={revision}", **{"if-none-match": tag})
    (only,) = answer.json()["flags"]
    assert (only["value"], only["variant"], only["metadata"]["rescind.killed"]) == (False, "off", True)
    assert answer.headers["rescind-revision"] == f"{PRODUCTION}.{revision}"


async def test_a_flag_that_reads_the_clock_changes_the_tag_without_a_revision(world: World, client: httpx.AsyncClient) -> None:
    timed = {"if": [{"<": [{"%": [{"var": "$flagd.timestamp"}, 2]}, 1]}, "on", "off"]}
    await world.put(flag("a", definition=definition(targeting=timed)))
    token = await world.token("evaluate")
    seen: dict[str, bytes] = {}
    while len(seen) < 2:
        answer = await ask(client, token)
        assert seen.setdefault(answer.headers["etag"], answer.content) == answer.content

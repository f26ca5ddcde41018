"""Browsers ask OFREP from pages of other origins, where an operator has named them, and nothing else of the server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.server.serving import P, Served, serving

SHOP = "https://shop.example"
BULK = "/ofrep/v1/evaluate/flags"


@pytest.fixture
async def served(database_url: str, redis_url: str) -> AsyncIterator[Served]:
    """A server that is open to one origin."""
    async with serving(database_url, redis_url, allowed_origins=(SHOP,)) as one:
        await one.put_flag("f")
        yield one


def preflight(origin: str) -> dict[str, str]:
    headers = "authorization,content-type,if-none-match"
    return {"origin": origin, "access-control-request-method": "POST", "access-control-request-headers": headers}


async def test_a_page_of_a_named_origin_may_ask_and_read_the_tag(served: Served) -> None:
    async with served.client(await served.token("evaluate")) as page:
        asked = await page.options(BULK, headers=preflight(SHOP))
        assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (204, SHOP)
        allowed = asked.headers["access-control-allow-headers"].split(", ")
        assert set(preflight(SHOP)["access-control-request-headers"].split(",")) <= set(allowed)
        answer = await page.post(BULK, json={"context": {}}, headers={"origin": SHOP})
        assert (answer.status_code, answer.headers["access-control-allow-origin"], answer.headers["vary"]) == (
            200,
            SHOP,
            "origin",
        )
        assert "etag" in answer.headers["access-control-expose-headers"]
        target = answer.json()["eventStreams"][0]["endpoint"]["requestUri"]
        async with page.stream("GET", target, headers={"origin": SHOP}) as stream:
            assert (stream.status_code, stream.headers["access-control-allow-origin"]) == (200, SHOP)
        refused = await page.post(BULK, json={}, headers={"origin": SHOP})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (400, SHOP)


async def test_no_other_page_may_and_nothing_but_ofrep(served: Served) -> None:
    async with served.client(await served.token("evaluate")) as page:
        answers: list[httpx.Response] = []
        for origin in ("https://evil.example", "null", "https://shop.example.evil.example"):
            answers.append(await page.options(BULK, headers=preflight(origin)))
            answers.append(await page.post(BULK, json={"context": {}}, headers={"origin": origin}))
        answers.append(await page.options(f"{P}/flags", headers=preflight(SHOP)))
        answers.append(await page.get(f"{P}/snapshot", headers={"origin": SHOP}))
        answers.append(await page.post(BULK, json={"context": {}}))
        assert [one for one in answers if "access-control-allow-origin" in one.headers] == []

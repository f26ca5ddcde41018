"""OFREP's event stream, by a real server: who may read it, what it says, and when it ends (OFREP 0.3.0, ADR 0008)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from flagd.http.ofrep import OfrepApp, events, grants
from flagd.http.ofrep.events import EventStreams
from runtime import tokens
from runtime.clock import Clock
from runtime.principal import digest
from tests.flagd.world import PRODUCTION, World, flag, served
from tests.waiting import until

BULK = "/ofrep/v1/evaluate/flags"


async def bulk(client: httpx.AsyncClient, token: str, query: str = "", **headers: str) -> httpx.Response:
    body = {"context": {"targetingKey": "u"}}
    return await client.post(BULK + query, json=body, headers={"authorization": f"Bearer {token}", **headers})


async def offered(client: httpx.AsyncClient, token: str) -> str:
    """The request target of the stream that a bulk answer offers."""
    (stream,) = (await bulk(client, token)).json()["eventStreams"]
    assert (stream["type"], list(stream["endpoint"])) == ("sse", ["requestUri"])
    return str(stream["endpoint"]["requestUri"])


class Reader:
    """What an EventSource makes of a stream."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def next(self) -> dict[str, str]:
        """The fields of the next event with data; {} at the end."""
        fields: dict[str, str] = {}
        async for line in self._lines:
            if not line:
                if "data" in fields:
                    return fields
                fields = {}
            elif not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value
        return {}

    async def comment(self) -> None:
        """Wait for a line that only says that the peer is alive."""
        async for line in self._lines:
            if line.startswith(":"):
                return


@contextlib.asynccontextmanager
async def reading(client: httpx.AsyncClient, target: str, last: str = "") -> AsyncIterator[Reader]:
    async with client.stream("GET", target, headers={"last-event-id": last} if last else {}) as response:
        assert response.status_code == 200, await response.aread()
        yield Reader(response)


async def test_a_change_is_told_as_refetch_evaluation_with_the_revision_as_etag(
    world: World, client: httpx.AsyncClient
) -> None:
    await world.put(flag("f"))
    token = await world.token("evaluate")
    async with reading(client, await offered(client, token)) as reader:
        assert reader.response.headers["content-type"] == "text/event-stream"
        first = await reader.next()
        assert (first["event"], first["id"], json.loads(first["data"])) == (
            "message",
            "1.1",
            {"type": "refetchEvaluation", "etag": "1.1"},
        )
        revision = await world.put(flag("g"))
        event = await reader.next()
        assert (event["id"], json.loads(event["data"])["etag"]) == (str(revision), str(revision))


async def test_a_kill_at_one_replica_reaches_a_reader_of_another_and_what_it_asks_then(
    world: World, other: World, client: httpx.AsyncClient
) -> None:  # P4
    await world.put(flag("f"))
    token = await world.token("evaluate")
    async with served(other) as peer, reading(peer, await offered(client, token), last="1.1") as reader:
        killed = await world.kill("f")
        etag = json.loads((await reader.next())["data"])["etag"]
        assert etag == str(killed)
        for asked in (client, peer):
            (answer,) = (await bulk(asked, token, f"?flagConfigEtag={etag}")).json()["flags"]
            assert (answer["value"], answer["metadata"]["rescind.killed"]) == (False, True)


async def test_one_who_comes_back_is_told_only_what_was_missed(world: World, client: httpx.AsyncClient) -> None:
    await world.put(flag("f"))
    target = await offered(client, await world.token("evaluate"))
    replica = await world.replicas.get(PRODUCTION)
    async with reading(client, target, last="1.1") as reader:
        await until(lambda: replica.subscriber_count == 1)
        for _ in range(events.QUIET_BEATS):
            replica.beat()
        await reader.comment()
        await world.put(flag("g"))
        assert (await reader.next())["id"] == "1.2"
    for last in ("1.1", "7.9", "rubbish"):
        async with reading(client, target, last=last) as reader:
            assert (await reader.next())["id"] == "1.2"


async def test_a_stream_ends_with_its_token(world: World, client: httpx.AsyncClient) -> None:
    await world.put(flag("f"))
    token = await world.token("evaluate")
    target = await offered(client, token)
    async with reading(client, target) as reader:
        await reader.next()
        async with world.pg.connection() as connection:
            await tokens.revoke(connection, token.split("_")[1])
        assert await reader.next() == {}
    refused = await client.get(target)
    assert (refused.status_code, refused.json()["errorCode"]) == (401, "GENERAL")


@pytest.mark.parametrize("changed", ["mac", "slot", "environment", "token", "rubbish", "none"])
async def test_only_a_grant_that_was_given_opens_a_stream(world: World, client: httpx.AsyncClient, changed: str) -> None:
    await world.put(flag("f"))
    await world.service.create_environment("staging", actor="test")
    target = await offered(client, await world.token("evaluate"))
    other = (await world.token("evaluate")).split("_")[1]
    token_id, slot, mac, environment = grant_of(target).split(".")
    forged = {
        "mac": f"{token_id}.{slot}.{mac[::-1]}.{environment}",
        "slot": f"{token_id}.{int(slot) + 1}.{mac}.{environment}",
        "environment": f"{token_id}.{slot}.{mac}.staging",
        "token": f"{other}.{slot}.{mac}.{environment}",
        "rubbish": "\u00e9" * 2_000,
        "none": "",
    }[changed]
    refused = await client.get(events.PATH, params={"grant": forged})
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
    assert grant_of(target) not in refused.text
    assert (await client.post(target)).status_code == 405


def grant_of(target: str) -> str:
    return parse_qs(urlsplit(target).query)["grant"][0]


class Later(Clock):
    """A clock that tests move on."""

    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)


async def test_a_grant_stays_the_same_for_an_hour_and_opens_streams_for_two(world: World) -> None:
    await world.put(flag("f"))
    clock = Later()
    streams = EventStreams(world.replicas, world.verifier, clock, "https://flags.example/base/")
    token = await world.token("evaluate")

    def url() -> str:
        (stream,) = json.loads(streams.offered(token, PRODUCTION))
        return str(stream["url"])

    first = url()
    assert first.startswith("https://flags.example/base/ofrep/v1/events?grant=")
    assert url() == first
    app = OfrepApp(world.replicas, world.verifier, streams)
    status = await answered(app, first)
    clock.seconds += grants.SLOT_SECONDS
    assert (status, await answered(app, first), url() == first) == (200, 200, False)
    clock.seconds += grants.SLOT_SECONDS
    assert await answered(app, first) == 401


async def answered(app: OfrepApp, url: str) -> int:
    """The status with which a stream begins, to one who leaves at once."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"method": "GET", "path": events.PATH, "query_string": urlsplit(url).query.encode(), "headers": []}
    async with asyncio.timeout(60):
        await app(scope, receive, send)
    return int(sent[0]["status"])


def test_a_grant_is_read_as_it_was_written() -> None:
    kept = digest("secret")
    text = grants.sign(kept, "0" * 16, "a b/\u00e9.%2", 5)
    grant = grants.read(text)
    assert grant is not None
    assert (grant.environment, grant.slot) == ("a b/\u00e9.%2", 5)
    assert [grants.is_good(grant, kept, slot) for slot in (3, 4, 5, 6, 7)] == [False, True, True, True, False]
    assert not grants.is_good(grant, digest("another"), 5)


async def test_streams_are_bounded_and_those_that_end_make_room(world: World) -> None:
    await world.put(flag("f"))
    world.events = EventStreams(world.replicas, world.verifier, world.clock, streams_max=1)
    async with served(world) as client:
        target = await offered(client, await world.token("evaluate"))
        async with reading(client, target) as reader:
            await reader.next()
            refused = await client.get(target)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        await until(lambda: world.events.open_count == 0)
        async with reading(client, target) as reader:
            assert (await reader.next())["id"] == "1.1"


async def test_the_tag_of_a_bulk_answer_covers_the_stream_that_it_offers(world: World, client: httpx.AsyncClient) -> None:
    await world.put(flag("f"))
    first, second = await world.token("evaluate"), await world.token("evaluate")
    one, two = await bulk(client, first), await bulk(client, second)
    assert one.json()["eventStreams"] != two.json()["eventStreams"]
    assert one.headers["etag"] != two.headers["etag"]
    again = await bulk(client, first, **{"if-none-match": one.headers["etag"]})
    assert again.status_code == 304

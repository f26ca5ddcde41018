"""OFREP's bulk evaluation, against a real server (P4, P6, P7)."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from rescind import wire

from flagd.http.ofrep import bulk
from flagd.http.ofrep.answers import AT_ONCE, Answers
from flagd.replica import Replica
from runtime.clock import Clock
from runtime.postgres import Postgres
from runtime.principal import Principal
from tests.flagd.world import PRODUCTION, World, definition, flag, served

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


def tag_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    tag = answer.headers["etag"]
    assert tag.startswith('"')
    return str(tag)


async def post(client: httpx.AsyncClient, token: str, context: str) -> httpx.Response:
    """With the context as it is written."""
    headers = {"authorization": f"Bearer {token}"}
    return await client.post(PATH, content=b'{"context":' + context.encode() + b"}", headers=headers)


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        ('{"a":{"x":1,"y":[{"p":1,"q":2}]},"b":2}', '{"b":2,"a":{"y":[{"q":2,"p":1}],"x":1}}', True),
        ('{"a":"\u00e9\U0001f600"}', '{"a":"\\u00e9\\ud83d\\ude00"}', True),
        ('{"a":1,"a":2}', '{ "a" : 2 }', True),
        ('{"a":1e2}', '{"a":100.0}', True),
        ('{"a":1}', '{"a":1.0}', False),
        ('{"a":1}', '{"a":"1"}', False),
        ('{"a":1}', '{"a":true}', False),
        ('{"a":null}', "{}", False),
        ('{"a":""}', '{"a":null}', False),
        ('{"a":"\u00e9"}', '{"a":"e\u0301"}', False),
        ('{"a":[1,2]}', '{"a":[2,1]}', False),
        ('{"a":9007199254740993}', '{"a":9007199254740992}', False),
        ('{"a":123456789012345678901234567890}', '{"a":123456789012345678901234567891}', False),
    ],
)
async def test_the_tag_is_of_the_context_and_not_of_how_it_is_written(
    world: World, client: httpx.AsyncClient, first: str, second: str, is_same: bool
) -> None:
    await world.put(flag("a"))
    token = await world.token("evaluate")
    assert (tag_of(await post(client, token, first)) == tag_of(await post(client, token, second))) is is_same


@pytest.mark.parametrize("context", ['{"a":NaN}', '{"a":1e999}', '{"a":"\\ud800"}', '{"a":-Infinity}', "[" * 2_000])
async def test_what_is_no_context_has_no_tag(world: World, client: httpx.AsyncClient, context: str) -> None:
    await world.put(flag("a"))
    answer = await post(client, await world.token("evaluate"), context)
    assert (answer.status_code, "etag" in answer.headers) == (400, False)
    assert answer.json()["errorDetails"]


async def test_absurd_contexts_are_answered_or_refused_and_never_fail(world: World, client: httpx.AsyncClient) -> None:
    await world.put(flag("a", definition=definition(targeting={"fractional": [{"var": "x"}, ["on", 1], ["off", 1]]})))
    await world.replicas.refresh(PRODUCTION, await world.kill("a", scope={"x": "y"}))
    token = await world.token("evaluate")
    digits = ['{"x":' + "9" * count + "}" for count in (300, 5_000)]
    depths = ['{"x":' + "[" * depth + "]" * depth + "}" for depth in (50, *range(900, 1_010, 2))]
    wide = "{" + ",".join(f'"{number}":{number}.5' for number in range(50_000)) + "}"
    for context in (*digits, *depths, wide):
        answer = await post(client, token, context)
        assert answer.status_code in (200, 400), (context[:20], len(context), answer.text[:200])


async def test_a_narrowed_kill_and_its_lift_change_the_tag(world: World, client: httpx.AsyncClient) -> None:  # P4
    await world.put(flag("a"))
    token = await world.token("evaluate")
    tags = [tag_of(await ask(client, token))]
    killed = await world.kill("a", scope={"country": "DE"})
    inside, outside = ({"targetingKey": "u", "country": country} for country in ("DE", "FR"))
    query = f"?flagConfigEtag={killed}"
    answers = [await ask(client, token, context, query) for context in (inside, outside)]
    assert [answer.json()["flags"][0]["value"] for answer in answers] == [False, True]
    tags.append(tag_of(await ask(client, token)))
    await world.replicas.refresh(PRODUCTION, await world.lift("a"))
    tags.append(tag_of(await ask(client, token)))
    assert len(set(tags)) == 3


class Still(Clock):
    """A clock that tests move on."""

    seconds = 1_800_000_000.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)


TIME = {"<": [{"var": "$flagd.timestamp"}, 1_800_000_100]}


@pytest.mark.parametrize(
    ("targeting", "evaluators"),
    [
        ({"if": [TIME, "on", "off"]}, {}),
        ({"if": [{"$ref": "early"}, "on", "off"]}, {"early": TIME}),
        ({"if": [{"<": [{"var": {"cat": ["$fla", "gd.timestamp"]}}, 1_800_000_100]}, "on", "off"]}, {}),
        ({"if": [{"<": [{"var": [{"cat": ["$fla", "gd.timestamp"]}]}, 1_800_000_100]}, "on", "off"]}, {}),
    ],
)
def test_the_tag_is_over_time_where_a_flag_reads_the_clock(targeting: Any, evaluators: Any) -> None:
    flags = {
        "a": wire.SnapshotFlag(definition=definition(targeting=targeting)),
        "b": wire.SnapshotFlag(definition=definition()),
    }
    clock = Still()
    snapshot = wire.Snapshot(environment=PRODUCTION, revision=wire.Revision(1, 1), flags=flags, evaluators=evaluators)
    replica, answers = Replica(snapshot, clock), Answers(PRODUCTION)
    principal = Principal(id="0", name="t", environment=PRODUCTION, scopes=frozenset({"evaluate"}))

    def answered(asked: str = "") -> tuple[int, str, bytes]:
        status, headers, body = bulk.answer(replica, answers, principal, {}, b"[]", asked)
        return status, dict(headers)[b"etag"].decode(), body

    status, early, body = answered()
    assert (status, json.loads(body)["flags"][0]["variant"]) == (200, "on")
    clock.seconds += 99
    assert answered(early)[0] == 304
    clock.seconds += 1
    status, late, body = answered(early)
    assert (status, late == early, json.loads(body)["flags"][0]["variant"]) == (200, False, "off")


def test_the_tag_is_of_the_tokens_scopes() -> None:
    replica = Replica(wire.Snapshot(environment=PRODUCTION, revision=wire.Revision(1, 1)))
    tags = set()
    for scopes in (["evaluate"], ["evaluate", "read"], ["read", "evaluate"], ["admin"]):
        principal = Principal(id="0", name="t", environment=PRODUCTION, scopes=frozenset(scopes))
        _, headers, _ = bulk.answer(replica, Answers(PRODUCTION), principal, {}, b"[]", "")
        tags.add(dict(headers)[b"etag"])
    assert len(tags) == 3


@pytest.mark.parametrize("context", [{}, {"targetingKey": "u"}])
async def test_many_flags_are_made_ready_without_holding_up_the_others(context: dict[str, Any]) -> None:
    flags = {f"f{number}": wire.SnapshotFlag(definition=definition()) for number in range(10 * AT_ONCE)}
    replica = Replica(wire.Snapshot(environment=PRODUCTION, revision=wire.Revision(1, 1), flags=flags))
    answers = Answers(PRODUCTION)
    preparing = asyncio.create_task(answers.prepare(replica, context))
    turns = 0
    while not preparing.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns >= 10
    assert answers.all(replica, context).count(b'"key"') == len(flags)
    again = asyncio.create_task(answers.prepare(replica, context))
    await asyncio.sleep(0)
    assert again.done()


@pytest.mark.parametrize("tag", ["{}", "W/{}", '"other", {}', "*"])
async def test_every_form_of_if_none_match_is_read(world: World, client: httpx.AsyncClient, tag: str) -> None:
    await world.put(flag("a"))
    token = await world.token("evaluate")
    known = tag_of(await ask(client, token))
    answer = await ask(client, token, **{"if-none-match": tag.format(known)})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", known)


async def test_flag_config_etag_brings_a_replica_that_is_behind_up_to_it(pg: Postgres, redis_url: str, world: World) -> None:
    await world.put(flag("a"))
    deaf = World(pg, redis_url)  # its replicas hear no bell
    token = await world.token("evaluate")
    async with served(deaf) as client:
        assert (await ask(client, token)).json()["flags"][0]["value"] is True
        killed = await world.kill("a")
        await asyncio.gather(*(ask(client, token, query="?flagConfigEtag=1.1") for _ in range(3)))
        assert (await deaf.replicas.get(PRODUCTION)).revision == wire.Revision(1, 1)
        answer = await ask(client, token, query=f'?flagConfigEtag="{killed}"&flagConfigLastModified=1771622898')
        assert answer.json()["flags"][0]["value"] is False
        await world.replicas.refresh(PRODUCTION, await world.lift("a"))
        answer = await ask(client, token, query="?flagConfigLastModified=2026-02-20T21:28:18Z")
        assert answer.json()["flags"][0]["value"] is True
    await deaf.redis.close()


@pytest.mark.parametrize("absurd", ["99999999.1", "rubbish", "-1.-1", "1." + "9" * 4_000, "%00", '"'])
async def test_a_flag_config_etag_that_never_was_changes_nothing(world: World, client: httpx.AsyncClient, absurd: str) -> None:
    await world.put(flag("a"))
    answer = await ask(client, await world.token("evaluate"), query=f"?flagConfigEtag={absurd}")
    assert (answer.status_code, answer.headers["rescind-revision"]) == (200, f"{PRODUCTION}.1.1")


async def test_a_revision_that_cannot_be_had_now_is_no_older_answer(world: World) -> None:  # P2
    await world.put(flag("a"))
    token = await world.token("evaluate")
    async with served(world) as client:
        assert (await ask(client, token)).status_code == 200
        async with world.pg.connection() as connection, connection.transaction():
            await connection.execute("LOCK TABLE flagd.environments")
            behind = await ask(client, token, query="?flagConfigEtag=1.2")
            assert (behind.status_code, behind.headers["retry-after"]) == (503, "1")
            assert behind.json()["errorDetails"]
            assert (await ask(client, token, query="?flagConfigEtag=1.1")).status_code == 200

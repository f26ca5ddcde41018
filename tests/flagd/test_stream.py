"""The stream and the snapshot, by a real server and many readers (P1, P2)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
from rescind import wire

from flagd.broadcast import AT_ONCE_MAX, QUEUE_MAX, Broadcast, Subscription, sse
from flagd.http.stream import StreamApp, due
from runtime import tokens
from tests.flagd.world import PRODUCTION, World, flag
from tests.waiting import until

BASE = f"/v1/environments/{PRODUCTION}"
Event = tuple[str, str, Any]
READERS = 100


class Reader:
    """One SDK's end of a stream."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self._lines = response.aiter_lines()

    async def next(self) -> Event:
        """The next event: its name, its id, its data."""
        fields: dict[str, str] = {}
        async for line in self._lines:
            if not line and fields:
                return fields["event"], fields["id"], msgspec.json.decode(fields["data"])
            name, _, value = line.partition(": ")
            fields[name] = value
        return "end", "", None

    async def change(self) -> Event:
        """The next event that is no heartbeat."""
        while (event := await self.next())[0] == "heartbeat":
            pass
        return event


@contextlib.asynccontextmanager
async def reading(client: httpx.AsyncClient, token: str, last: str = "", query: str = "") -> AsyncIterator[Reader]:
    headers = {"authorization": f"Bearer {token}", **({"last-event-id": last} if last else {})}
    async with client.stream("GET", f"{BASE}/stream{query}", headers=headers) as response:
        yield Reader(response)


async def test_a_stream_begins_with_the_snapshot_and_goes_on_with_changes(world: World, client: httpx.AsyncClient) -> None:
    await world.put(flag("f"))
    async with reading(client, await world.token("evaluate")) as reader:
        name, identity, data = await reader.next()
        assert (name, identity) == ("snapshot", "1.1")
        assert msgspec.convert(data, wire.Snapshot).flags["f"].epoch == 1
        await world.put(flag("g"))
        name, identity, data = await reader.change()
        change = msgspec.convert(data, wire.Change)
        assert (name, identity, list(change.flags), change.kill) == ("change", "1.2", ["g"], False)
        killed = await world.kill("f")
        await world.replicas.refresh(PRODUCTION, killed)
        change = msgspec.convert((await reader.change())[2], wire.Change)
        assert (change.previous, change.revision, change.kill) == (wire.Revision(1, 2), killed, True)
        assert change.flags["f"].definition["defaultVariant"] == "off"
        await world.archive("g")
        assert msgspec.convert((await reader.change())[2], wire.Change).removed == ["g"]


async def test_a_stream_resumes_where_it_was(world: World, client: httpx.AsyncClient) -> None:  # P2
    await world.put(flag("f"))
    token = await world.token("evaluate")
    async with reading(client, token, last="1.1") as reader:
        assert (await reader.next())[:2] == ("heartbeat", "1.1")
        await world.put(flag("g"))
        assert (await reader.change())[:2] == ("change", "1.2")
    for behind in ("1.1", "7.9", "rubbish"):
        async with reading(client, token, last=behind) as reader:
            assert (await reader.next())[:2] == ("snapshot", "1.2")


async def test_an_import_of_evaluators_comes_as_a_whole_snapshot(world: World, client: httpx.AsyncClient) -> None:
    await world.put(flag("f"))
    admin = {"authorization": f"Bearer {await world.token('admin', environment=None)}"}
    async with reading(client, await world.token("read")) as reader:
        await reader.next()
        document = {"flags": {}, "$evaluators": {"isFree": {"==": [{"var": "plan"}, "free"]}}}
        assert (await client.post(f"{BASE}/import", json=document, headers=admin)).status_code == 200
        name, identity, data = await reader.change()
        assert (name, identity, list(data["evaluators"]), list(data["flags"])) == ("snapshot", "1.2", ["isFree"], ["f"])


async def test_a_change_goes_only_to_whom_it_follows(world: World) -> None:  # P1
    replica = await world.replicas.get(PRODUCTION)
    await world.put(flag("f"))
    follows = sse("change", wire.Revision(1, 2), b"{}", wire.Revision(1, 1))
    assert due(follows, wire.Revision(1, 1), replica) is follows
    assert due(follows, wire.Revision(1, 0), replica) is replica.event
    assert due(follows, wire.Revision(1, 2), replica) is None


async def test_a_kill_reaches_many_streams_as_the_same_bytes(world: World, client: httpx.AsyncClient) -> None:
    await world.put(flag("f"))
    replica = await world.replicas.get(PRODUCTION)
    subscriptions = [replica.subscribe() for _ in range(1000)]
    killed = await world.kill("f")
    await world.replicas.refresh(PRODUCTION, killed)
    events = [await anext(subscription) for subscription in subscriptions]
    assert {id(event.frame) for event in events} == {id(events[0].frame)}
    assert events[0].revision == killed


async def test_many_readers_over_http_all_get_the_kill(world: World, client: httpx.AsyncClient) -> None:
    await world.put(flag("f"))
    token = await world.token("evaluate")
    async with contextlib.AsyncExitStack() as stack:
        limits = httpx.Limits(max_connections=READERS + 1)
        many = await stack.enter_async_context(httpx.AsyncClient(base_url=client.base_url, limits=limits, timeout=60))
        readers = [await stack.enter_async_context(reading(many, token)) for _ in range(READERS)]
        await asyncio.gather(*(reader.next() for reader in readers))
        killed = await world.kill("f")
        events = await asyncio.gather(*(reader.change() for reader in readers))
    assert {(name, identity) for name, identity, _ in events} == {("change", str(killed))}


def at_hand(subscription: Subscription) -> wire.Revision | None:
    """The revision of what a subscriber gets without a turn of the loop."""
    step = subscription.__anext__()
    try:
        step.send(None)
    except StopIteration as done:
        revision: wire.Revision = done.value.revision
        return revision
    step.close()
    return None


async def test_a_kill_goes_to_everyone_before_anything_else_has_its_turn() -> None:
    """Acknowledgements of those who have it would come between it and the others."""
    for is_kill in (False, True):
        broadcast = Broadcast()
        subscriptions = [broadcast.subscribe() for _ in range(3 * AT_ONCE_MAX)]
        broadcast.send(sse("change", wire.Revision(1, 2), b"{}", wire.Revision(1, 1), is_kill=is_kill))
        reached = [subscription for subscription in subscriptions if at_hand(subscription)]
        assert len(reached) == (len(subscriptions) if is_kill else AT_ONCE_MAX)
        broadcast.close()


async def test_a_kill_hurries_on_what_is_under_way_before_it() -> None:  # P2
    broadcast = Broadcast()
    subscriptions = [broadcast.subscribe() for _ in range(3 * AT_ONCE_MAX)]
    broadcast.send(sse("change", wire.Revision(1, 2), b"{}", wire.Revision(1, 1)))
    broadcast.send(sse("change", wire.Revision(1, 3), b"{}", wire.Revision(1, 2), is_kill=True))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for subscription in subscriptions:
        assert [at_hand(subscription), at_hand(subscription)] == [wire.Revision(1, 2), wire.Revision(1, 3)]


async def test_a_reader_that_is_too_slow_is_let_go(world: World) -> None:
    broadcast = Broadcast()
    subscription = broadcast.subscribe()
    for n in range(QUEUE_MAX + 1):
        broadcast.send(sse("heartbeat", wire.Revision(1, n), b"{}"))
    assert subscription.was_slow
    assert len(broadcast) == 0
    assert [event async for event in subscription] == []


async def test_a_stream_that_hangs_in_a_write_is_cut_off(world: World) -> None:
    await world.put(flag("f"))
    token = await world.token("evaluate")
    stuck = asyncio.Event()
    never = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await never.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            stuck.set()
            await never.wait()

    headers = [(b"authorization", f"Bearer {token}".encode())]
    scope = {"type": "http", "method": "GET", "path": f"{BASE}/stream", "headers": headers, "query_string": b"instance=i"}
    app = StreamApp(world.replicas, world.verifier, world.instances)
    serving = asyncio.create_task(app(scope, receive, send))
    await stuck.wait()
    replica = await world.replicas.get(PRODUCTION)
    for _ in range(QUEUE_MAX + 1):
        replica.beat()
    await asyncio.wait_for(serving, 60)
    assert replica.subscriber_count == 0


async def test_a_heartbeat_says_the_revision(world: World, client: httpx.AsyncClient) -> None:
    await world.put(flag("f"))
    async with reading(client, await world.token("evaluate")) as reader:
        await reader.next()
        (await world.replicas.get(PRODUCTION)).beat()
        name, identity, data = await reader.next()
        assert (name, identity) == ("heartbeat", "1.1")
        assert msgspec.convert(data, wire.Heartbeat) == wire.Heartbeat(revision=wire.Revision(1, 1), interval_seconds=5.0)


async def test_a_revocation_ends_open_streams(world: World, client: httpx.AsyncClient) -> None:
    token = await world.token("evaluate")
    async with reading(client, token) as reader:
        await reader.next()
        async with world.pg.connection() as connection:
            await tokens.revoke(connection, token.split("_")[1])
        while (await asyncio.wait_for(reader.next(), 60))[0] != "end":
            pass


async def test_an_instance_on_the_stream_is_listed_as_connected(world: World, client: httpx.AsyncClient) -> None:
    await world.instances.beat(PRODUCTION, wire.InstanceBeat(instance="i", service="s", revision=wire.Revision(1, 0)))

    async def connected() -> bool:
        return (await world.instances.listing(PRODUCTION))[0].connected

    assert not await connected()
    async with reading(client, await world.token("evaluate"), query="?instance=i&service=s") as reader:
        await reader.next()
        assert await connected()
    await until(lambda: not_yet(connected))


async def not_yet(predicate: Any) -> bool:
    return not await predicate()


async def test_the_snapshot_has_an_etag(world: World, client: httpx.AsyncClient) -> None:
    await world.put(flag("f"))
    headers = {"authorization": f"Bearer {await world.token('read')}"}
    first = await client.get(f"{BASE}/snapshot", headers=headers)
    assert (first.status_code, first.headers["etag"]) == (200, '"1.1"')
    assert msgspec.json.decode(first.content, type=wire.Snapshot) == (await world.replicas.get(PRODUCTION)).snapshot
    again = await client.get(f"{BASE}/snapshot", headers={**headers, "if-none-match": 'W/"0.0", "1.1"'})
    assert (again.status_code, again.content) == (304, b"")
    await world.put(flag("g"))
    assert (await client.get(f"{BASE}/snapshot", headers={**headers, "if-none-match": '"1.1"'})).status_code == 200


async def test_a_snapshot_of_at_least_a_revision_looks_at_postgresql(world: World, client: httpx.AsyncClient) -> None:  # P3
    await world.put(flag("f"))
    headers = {"authorization": f"Bearer {await world.token('evaluate')}"}
    replica = await world.replicas.get(PRODUCTION)
    await world.replicas.stop()
    killed = await world.kill("f")
    for hint in ("", "1.1", "rubbish"):
        answer = await client.get(f"{BASE}/snapshot", params={"at_least": hint}, headers=headers)
        assert answer.headers["etag"] == '"1.1"', hint
    looks = replica.look_count
    asking = [client.get(f"{BASE}/snapshot", params={"at_least": hint}, headers=headers) for hint in ["1.2", "9.9"] * 10]
    answers = await asyncio.gather(*asking)
    assert {answer.headers["etag"] for answer in answers} == {f'"{killed}"'}
    assert replica.look_count - looks < len(asking) / 2, "they share looks"


async def test_streams_are_for_those_who_may_read_this_environment(world: World, client: httpx.AsyncClient) -> None:
    await world.service.create_environment("staging", actor="test")
    elsewhere = {"authorization": f"Bearer {await world.token('evaluate', environment='staging')}"}
    admin = {"authorization": f"Bearer {await world.token('admin', environment=None)}"}
    for path in ("stream", "snapshot"):
        assert (await client.get(f"{BASE}/{path}")).status_code == 401
        assert (await client.get(f"{BASE}/{path}", headers=elsewhere)).status_code == 403
        unknown = await client.get(f"/v1/environments/stagin/{path}", headers=admin)
        assert (unknown.status_code, unknown.json()["suggestion"]) == (404, "staging")
        assert (await client.post(f"{BASE}/{path}", headers=admin)).status_code == 405

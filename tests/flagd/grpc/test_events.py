"""`EventStream`: what clients that keep answers are told, so that they drop what changed (P4)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from rescind import wire

from flagd.core.changed import changed_flags
from flagd.grpc.events import FLAGS_PER_EVENT_MAX, changes
from tests.flagd.grpc.serving import Client, json_of, v1, v2
from tests.flagd.world import PRODUCTION, World, definition, flag


async def event(stream: Any) -> tuple[str, dict[str, str]]:
    """Type of the next event, and what became of each flag that it names."""
    read = json_of(await stream.read())
    flags = read.get("data", {}).get("flags", {})
    assert all((one["flagKey"], one["source"]) == (key, PRODUCTION) for key, one in flags.items())
    return read["type"], {key: one["type"] for key, one in flags.items()}


def opened(clients: Client, version: str) -> Any:
    return (
        clients.v1.EventStream(v1.EventStreamRequest()) if version == "v1" else clients.v2.EventStream(v2.EventStreamRequest())
    )


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_a_stream_says_that_it_is_there_and_then_whatever_changes(world: World, clients: Client, version: str) -> None:
    await world.put(flag("f"), flag("g"))
    stream = opened(clients, version)
    assert await event(stream) == ("provider_ready", {})
    assert await event(stream) == ("configuration_change", {"f": "update", "g": "update"})
    await world.put(flag("h"))
    assert await event(stream) == ("configuration_change", {"h": "write"})
    await world.replicas.refresh(PRODUCTION, await world.kill("f"))  # P4
    assert await event(stream) == ("configuration_change", {"f": "update"})
    await world.replicas.refresh(PRODUCTION, await world.kill("h", scope={"region": "eu"}))
    assert await event(stream) == ("configuration_change", {"h": "update"})
    await world.archive("g")
    assert await event(stream) == ("configuration_change", {"g": "delete"})
    stream.cancel()


async def test_a_stream_of_an_empty_environment_names_no_flag(world: World, clients: Client) -> None:
    stream = opened(clients, "v2")
    assert await event(stream) == ("provider_ready", {})
    await world.put(flag("f"))
    assert await event(stream) == ("configuration_change", {"f": "write"})
    stream.cancel()


async def test_a_stream_is_told_that_the_server_is_still_there(world: World, clients: Client) -> None:
    stream = opened(clients, "v2")
    await event(stream)
    (await world.replicas.get(PRODUCTION)).beat()
    assert await event(stream) == ("keep_alive", {})
    stream.cancel()


def held(**changed: Any) -> wire.SnapshotFlag:
    return wire.SnapshotFlag(definition=definition(**changed))


def snapshot(**changed: Any) -> wire.Snapshot:
    return wire.Snapshot(
        **{"environment": "e", "revision": wire.Revision(1, 1), "flags": {"f": held(), "g": held()}, **changed}
    )


@pytest.mark.parametrize(
    ("after", "told"),
    [
        ({}, {}),
        ({"evaluators": {"x": {}}}, {"f": "update", "g": "update"}),
        ({"metadata": {"a": True}}, {"f": "update", "g": "update"}),
        ({"bucketing": "v2"}, {"f": "update", "g": "update"}),
        ({"flags": {"f": held(variants={"on": 1, "off": False})}}, {"g": "delete", "f": "update"}),
        ({"flags": {"f": msgspec.structs.replace(held(), epoch=9), "g": held()}}, {}),
    ],
)
def test_every_flag_whose_answer_may_be_another_is_named(after: dict[str, Any], told: dict[str, str]) -> None:
    assert changed_flags(snapshot(), snapshot(**after)) == told


def test_many_flags_come_in_several_events() -> None:
    told = {f"flag-{number}": "update" for number in range(FLAGS_PER_EVENT_MAX + 1)}
    read = [v2.EventStreamResponse.FromString(one) for one in changes(told, "e")]  # type: ignore[arg-type]
    assert [len(json_of(one)["data"]["flags"]) for one in read] == [FLAGS_PER_EVENT_MAX, 1]
    assert changes({}, "e") == []

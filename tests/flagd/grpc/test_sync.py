"""`flagd.sync.v1`: the environment as a document, whole and as a stream (P2, P4, P7)."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from grpc import aio

from flagd.broadcast import QUEUE_MAX
from tests.flagd.grpc.serving import Client, end_of, served, sync
from tests.flagd.world import PRODUCTION, World, definition, flag
from tests.waiting import until


async def document(call: Any) -> dict[str, Any]:
    """The document of an answer, or of a stream's next message."""
    message = await (call.read() if hasattr(call, "read") else call)
    return json.loads(message.flag_configuration)


async def test_the_document_has_every_flag_and_names_the_flag_set_and_its_revision(world: World, clients: Client) -> None:
    revision = await world.put(flag("f", definition=definition(metadata={"team": "a"})), flag("g"))
    assert await document(clients.sync.FetchAllFlags(sync.FetchAllFlagsRequest())) == {
        "flags": {"f": definition(metadata={"team": "a"}), "g": definition()},
        "metadata": {"flagSetId": PRODUCTION, "version": str(revision)},
    }


async def test_a_stream_begins_with_the_present_document_and_follows_every_revision(world: World, clients: Client) -> None:
    await world.put(flag("f"))
    stream = clients.sync.SyncFlags(sync.SyncFlagsRequest(provider_id="test"))
    first = await document(stream)
    assert list(first["flags"]) == ["f"]
    for number in range(3):
        revision = await world.put(flag(f"g{number}"))
        following = await document(stream)
        assert (following["metadata"]["version"], f"g{number}" in following["flags"]) == (str(revision), True)
    stream.cancel()


async def test_a_kill_arrives_in_plain_terms(world: World, clients: Client) -> None:  # P4, P7
    await world.put(flag("f"), flag("narrow", definition=definition(targeting={})))
    stream = clients.sync.SyncFlags(sync.SyncFlagsRequest())
    await document(stream)
    await world.replicas.refresh(PRODUCTION, await world.kill("f"))
    killed = (await document(stream))["flags"]["f"]
    assert (killed["state"], killed["defaultVariant"], "targeting" in killed) == ("ENABLED", "off", False)
    await world.replicas.refresh(PRODUCTION, await world.kill("narrow", scope={"region": "eu"}))
    assert (await document(stream))["flags"]["narrow"]["targeting"]["if"][1] == "off"
    stream.cancel()


async def test_nothing_is_added_to_the_contexts_of_clients(world: World, clients: Client) -> None:  # P7
    await world.put(flag("f"))
    stream = clients.sync.SyncFlags(sync.SyncFlagsRequest())
    message = await stream.read()
    assert (message.HasField("sync_context"), dict(message.sync_context)) == (True, {})
    metadata = await clients.sync.GetMetadata(sync.GetMetadataRequest())
    assert (metadata.HasField("metadata"), dict(metadata.metadata)) == (True, {})
    stream.cancel()


@pytest.mark.parametrize(
    ("header", "field", "status"),
    [
        (None, "", None),
        (None, f"flagSetId={PRODUCTION}", None),
        (f"flagSetId={PRODUCTION}", "flagSetId=elsewhere", None),
        (None, "flagSetId=staging", "NOT_FOUND"),
        (None, "flagSetId=", "NOT_FOUND"),
        ("flagSetId=staging", f"flagSetId={PRODUCTION}", "NOT_FOUND"),
        (None, "source=flags.json", "INVALID_ARGUMENT"),
        (None, "flags.json", "INVALID_ARGUMENT"),
    ],
)
async def test_a_selector_must_name_the_environment_and_the_header_wins(
    world: World, clients: Client, header: str | None, field: str, status: str | None
) -> None:
    await world.put(flag("f"))
    metadata = None if header is None else (("flagd-selector", header),)
    fetch = clients.sync.FetchAllFlags(sync.FetchAllFlagsRequest(selector=field), metadata=metadata)
    stream = clients.sync.SyncFlags(sync.SyncFlagsRequest(selector=field), metadata=metadata)
    if status is None:
        assert list((await document(fetch))["flags"]) == list((await document(stream))["flags"]) == ["f"]
    else:
        assert [(await end_of(fetch))[0], (await end_of(stream))[0]] == [status, status]
    stream.cancel()


async def test_a_client_that_leaves_is_forgotten(world: World, clients: Client) -> None:
    await world.put(flag("f"))
    stream = clients.sync.SyncFlags(sync.SyncFlagsRequest())
    await document(stream)
    assert clients.listeners["sync"].stream_count == 1
    stream.cancel()
    await until(lambda: clients.listeners["sync"].stream_count == 0)
    assert (await world.replicas.get(PRODUCTION)).subscriber_count == 0


async def test_a_reader_that_does_not_read_is_cut_off_and_others_go_on(world: World, clients: Client) -> None:
    """HTTP/2 takes some megabytes before it pushes back; from then on a bounded number of events waits."""
    await world.put(flag("f"))
    async with served(world, **{"grpc.http2.bdp_probe": 0}) as slow:
        stuck = slow.sync.SyncFlags(sync.SyncFlagsRequest())
        await document(stuck)
        for number in range(2 * QUEUE_MAX):
            await world.put(flag("big", definition=definition(metadata={"x": "y" * 200_000 + str(number)})))
            if not slow.listeners["sync"].stream_count:
                break
        assert slow.listeners["sync"].stream_count == 0
        assert (await world.replicas.get(PRODUCTION)).subscriber_count == 0
        stream = clients.sync.SyncFlags(sync.SyncFlagsRequest())
        assert set((await document(stream))["flags"]) == {"big", "f"}
        stream.cancel()
        assert (await drained(stuck))[0] == "RESOURCE_EXHAUSTED"


async def drained(stream: Any) -> tuple[str, str]:
    """How a stream ends, once what it holds was read."""
    with contextlib.suppress(aio.AioRpcError):
        while await stream.read() is not aio.EOF:
            pass
    return (await stream.code()).name, await stream.details()

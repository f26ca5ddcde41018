"""A listener's limits and its end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from flagd.grpc import Listener, Place, Tls, sync_services
from flagd.grpc.streams import STREAMS_MAX
from runtime.errors import SettingsError
from server.running import bind
from tests.flagd.grpc.serving import LOOPBACK, Client, end_of, sync, v2
from tests.flagd.world import PRODUCTION, World, flag


async def test_at_a_stop_streams_end_with_a_status_that_makes_clients_come_back(world: World, clients: Client) -> None:
    await world.put(flag("f"))
    streams = [clients.sync.SyncFlags(sync.SyncFlagsRequest()), clients.v2.EventStream(v2.EventStreamRequest())]
    for stream in streams:
        await stream.read()
    await streams[1].read()
    stopping = [asyncio.create_task(listener.stop()) for listener in clients.listeners.values()]
    assert [(await end_of(stream))[0] for stream in streams] == ["UNAVAILABLE"] * 2
    await asyncio.gather(*stopping)
    assert (await world.replicas.get(PRODUCTION)).subscriber_count == 0


async def test_streams_are_bounded_and_evaluations_go_on(world: World, clients: Client) -> None:
    await world.put(flag("f"))
    streams = [clients.v2.EventStream(v2.EventStreamRequest()) for _ in range(STREAMS_MAX)]
    assert [await end_of(stream) for stream in streams] == [("OK", "")] * STREAMS_MAX
    assert (await end_of(clients.v2.EventStream(v2.EventStreamRequest())))[0] == "RESOURCE_EXHAUSTED"
    assert (await clients.v2.ResolveBoolean(v2.ResolveBooleanRequest(flag_key="f"))).value is True
    for stream in streams:
        stream.cancel()


async def test_a_request_over_its_limit_is_refused(world: World, clients: Client) -> None:
    request = v2.ResolveBooleanRequest(flag_key="f")
    request.context.update({"x": "y" * 1024 * 1024})
    assert (await end_of(clients.v2.ResolveBoolean(request)))[0] == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize("text", [None, "no certificate"])
async def test_certificates_that_are_none_are_said_in_a_sentence(world: World, tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "certificate.pem"
    if text is not None:
        path.write_text(text)
    place = Place(host="127.0.0.1", environment=PRODUCTION, tls=Tls(certificate=path, key=path))
    listener = Listener(bind("127.0.0.1", 0), place, sync_services, world.replicas, world.verifier)
    with pytest.raises(SettingsError, match=str(path) if text is None else "certificate"):
        await listener.start()


async def test_one_that_never_started_stops_and_gives_its_port_back(world: World) -> None:
    reserved = bind("127.0.0.1", 0)
    port = reserved.getsockname()[1]
    await Listener(reserved, LOOPBACK, sync_services, world.replicas, world.verifier).stop()
    bind("127.0.0.1", port).close()

"""Listeners over a world, and clients of them by the stubs that flagd's own release brings: they share no code with ours."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from grpc import aio
from msgspec import Struct
from openfeature.schemas.protobuf.flagd.evaluation.v1 import evaluation_pb2 as v1
from openfeature.schemas.protobuf.flagd.evaluation.v1 import evaluation_pb2_grpc as v1_grpc
from openfeature.schemas.protobuf.flagd.evaluation.v2 import evaluation_pb2 as v2
from openfeature.schemas.protobuf.flagd.evaluation.v2 import evaluation_pb2_grpc as v2_grpc
from openfeature.schemas.protobuf.flagd.sync.v1 import sync_pb2 as sync
from openfeature.schemas.protobuf.flagd.sync.v1 import sync_pb2_grpc as sync_grpc

from flagd.grpc import Listener, Place, evaluation_services, sync_services
from flagd.grpc.services import Services
from server.running import bind
from tests.flagd.world import PRODUCTION, World

LOOPBACK = Place(host="127.0.0.1", environment=PRODUCTION)
Metadata = Sequence[tuple[str, str]]

__all__ = ["LOOPBACK", "Client", "end_of", "json_of", "listening", "served", "sync", "v1", "v2"]


class Client(Struct, frozen=True):
    """The released stubs of all three services, each on the listener that has it."""

    v1: v1_grpc.ServiceStub
    v2: v2_grpc.ServiceStub
    sync: sync_grpc.FlagSyncServiceStub
    listeners: dict[str, Listener]


@contextlib.asynccontextmanager
async def listening(
    world: World, services: Services, place: Place = LOOPBACK, port: int = 0
) -> AsyncIterator[tuple[Listener, int]]:
    """A listener that serves, and its port."""
    reserved = bind("127.0.0.1", port)
    port = reserved.getsockname()[1]
    listener = Listener(reserved, place, services, world.replicas, world.verifier)
    await listener.start()
    try:
        yield listener, port
    finally:
        await listener.stop()


@contextlib.asynccontextmanager
async def served(world: World, place: Place = LOOPBACK, **channel: Any) -> AsyncIterator[Client]:
    """Both listeners, and a client of each."""
    async with (
        listening(world, evaluation_services, place) as (evaluation, at),
        listening(world, sync_services, place) as (other, by),
    ):
        async with connected(at, **channel) as evaluating, connected(by, **channel) as syncing:
            yield Client(
                v1_grpc.ServiceStub(evaluating),
                v2_grpc.ServiceStub(evaluating),
                sync_grpc.FlagSyncServiceStub(syncing),
                {"evaluation": evaluation, "sync": other},
            )


def connected(port: int, credentials: grpc.ChannelCredentials | None = None, **options: Any) -> aio.Channel:
    """A channel to a port of this machine, not shared with any other."""
    target, given = f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1), *options.items()]
    return aio.insecure_channel(target, given) if credentials is None else aio.secure_channel(target, credentials, given)


async def end_of(call: Any) -> tuple[str, str]:
    """The name of the status that a call, or the next message of a stream, ends in, and what it says; OK for an answer."""
    try:
        await (call.read() if hasattr(call, "read") else call)
    except aio.AioRpcError as error:
        return error.code().name, error.details() or ""
    return "OK", ""


def json_of(message: Any) -> dict[str, Any]:
    """A message as JSON values; fields that are not there are missing."""
    return MessageToDict(message, preserving_proto_field_name=True)

"""The methods of the three services, bound to a listener's gate and streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import grpc

from flagd.grpc import answers
from flagd.grpc.events import EventFeed, News
from flagd.grpc.gate import Context, Gate, Method, guarded
from flagd.grpc.messages import EVALUATION_V1, EVALUATION_V2, SYNC, Package
from flagd.grpc.streams import Streams
from flagd.grpc.sync import Documents, SyncFeed
from flagd.grpc.values import plain, struct

Services = Callable[[Gate, Streams], list[grpc.GenericRpcHandler]]


def sync_services(gate: Gate, streams: Streams) -> list[grpc.GenericRpcHandler]:
    """`flagd.sync.v1.FlagSyncService`."""
    documents = Documents()

    async def sync_flags(request: Any, context: Context) -> None:
        admitted = await gate.admit(context, request.selector)
        subscription = admitted.replica.subscribe()
        await streams.serve(admitted, subscription, SyncFeed(admitted.replica, documents), context)

    async def fetch_all_flags(request: Any, context: Context) -> Any:
        admitted = await gate.admit(context, request.selector)
        return SYNC["FetchAllFlagsResponse"](flag_configuration=documents.text(admitted.replica))

    async def get_metadata(request: Any, context: Context) -> Any:
        await gate.admit(context)
        return SYNC["GetMetadataResponse"](metadata=struct({}))

    methods = {"FetchAllFlags": fetch_all_flags, "GetMetadata": get_metadata}
    return [_handler(SYNC, "FlagSyncService", methods, {"SyncFlags": sync_flags})]


def evaluation_services(gate: Gate, streams: Streams) -> list[grpc.GenericRpcHandler]:
    """`flagd.evaluation.v1.Service` and `flagd.evaluation.v2.Service`."""
    news = News()

    async def event_stream(request: Any, context: Context) -> None:
        admitted = await gate.admit(context)
        subscription = admitted.replica.subscribe()
        await streams.serve(admitted, subscription, EventFeed(admitted.replica, news), context)

    def resolve(package: Package, name: str) -> Method:
        async def method(request: Any, context: Context) -> Any:
            admitted = await gate.admit(context)
            return answers.resolve(package, name, admitted.replica, request.flag_key, plain(request.context))

        return method

    async def resolve_all(request: Any, context: Context) -> Any:
        admitted = await gate.admit(context)
        return answers.resolve_all(EVALUATION_V1, admitted.replica, plain(request.context))

    def methods(package: Package) -> dict[str, Method]:
        return {f"Resolve{name}": resolve(package, name) for name in answers.KINDS}

    events = {"EventStream": event_stream}
    return [
        _handler(EVALUATION_V1, "Service", {**methods(EVALUATION_V1), "ResolveAll": resolve_all}, events),
        _handler(EVALUATION_V2, "Service", methods(EVALUATION_V2), events),
    ]


def _handler(
    package: Package, service: str, methods: Mapping[str, Method], streams: Mapping[str, Method]
) -> grpc.GenericRpcHandler:
    """A service of the package. Streams write encoded messages, which many of them share."""
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        name: grpc.unary_unary_rpc_method_handler(
            guarded(method),
            request_deserializer=package[f"{name}Request"].FromString,
            response_serializer=package[f"{name}Response"].SerializeToString,
        )
        for name, method in methods.items()
    }
    for name, method in streams.items():
        handlers[name] = grpc.unary_stream_rpc_method_handler(
            guarded(method), request_deserializer=package[f"{name}Request"].FromString, response_serializer=bytes
        )
    return grpc.method_handlers_generic_handler(f"{package.name}.{service}", handlers)

"""flagd's messages: names and field numbers are the contract with every released client, written here as facts.

Made into classes without generated code, in a descriptor pool of our own: the released providers register the same symbols
in the process's default pool, where a second registration is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from google.protobuf import struct_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from msgspec import Struct

STRUCT: Final = ".google.protobuf.Struct"
VALUE_TYPES: Final = {"Boolean": "bool", "String": "string", "Float": "double", "Int": "int64", "Object": STRUCT}
"""What each `Resolve<name>` answers."""
_SCALARS: Final = {
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "string": FieldDescriptorProto.TYPE_STRING,
    "double": FieldDescriptorProto.TYPE_DOUBLE,
    "int64": FieldDescriptorProto.TYPE_INT64,
}


class Field(Struct, frozen=True):
    """One field. `optional`: its absence can be told from its zero. `oneof`: at most one of those that name it is set."""

    name: str
    type: str
    number: int
    optional: bool = False
    oneof: str = ""
    repeated: bool = False


class Package(Struct, frozen=True, kw_only=True):
    """A package's message classes, by name."""

    name: str
    classes: Mapping[str, type[Any]]

    def __getitem__(self, name: str) -> type[Any]:
        return self.classes[name]


def _sync() -> dict[str, list[Field]]:
    request = [Field("provider_id", "string", 1), Field("selector", "string", 2)]
    configuration = Field("flag_configuration", "string", 1)
    return {
        "SyncFlagsRequest": request,
        "SyncFlagsResponse": [configuration, Field("sync_context", STRUCT, 2, optional=True)],
        "FetchAllFlagsRequest": request,
        "FetchAllFlagsResponse": [configuration],
        "GetMetadataRequest": [],
        "GetMetadataResponse": [Field("metadata", STRUCT, 2)],
    }


def _evaluation(*, optional: bool) -> dict[str, list[Field]]:
    """The messages of both versions; in v2 value and variant are `optional`."""
    messages: dict[str, list[Field]] = {
        "EventStreamRequest": [],
        "EventStreamResponse": [Field("type", "string", 1), Field("data", STRUCT, 2)],
        "AnyFlag": [
            Field("reason", "string", 1),
            Field("variant", "string", 2, optional),
            Field("bool_value", "bool", 3, oneof="value"),
            Field("string_value", "string", 4, oneof="value"),
            Field("double_value", "double", 5, oneof="value"),
            Field("object_value", STRUCT, 6, oneof="value"),
            Field("metadata", STRUCT, 7),
        ],
    }
    for name, type_name in VALUE_TYPES.items():
        messages[f"Resolve{name}Request"] = [Field("flag_key", "string", 1), Field("context", STRUCT, 2)]
        messages[f"Resolve{name}Response"] = [
            Field("value", type_name, 1, optional),
            Field("reason", "string", 2),
            Field("variant", "string", 3, optional),
            Field("metadata", STRUCT, 4),
        ]
    return messages


def _resolve_all(package: str) -> dict[str, list[Field]]:
    """Of v1 alone. A map is a repeated entry of key and value."""
    entry = f".{package}.ResolveAllResponse.FlagsEntry"
    return {
        "ResolveAllRequest": [Field("context", STRUCT, 1)],
        "ResolveAllResponse": [Field("flags", entry, 1, repeated=True), Field("metadata", STRUCT, 2)],
    }


def _message(name: str, fields: Iterable[Field]) -> DescriptorProto:
    message = DescriptorProto(name=name)
    fields = list(fields)
    oneofs = list(dict.fromkeys(field.oneof for field in fields if field.oneof))
    oneofs += [f"_{field.name}" for field in fields if field.optional]  # protobuf's own form of `optional`, always last
    for oneof in oneofs:
        message.oneof_decl.add(name=oneof)
    for field in fields:
        added = message.field.add(name=field.name, number=field.number, label=FieldDescriptorProto.LABEL_OPTIONAL)
        if field.repeated:
            added.label = FieldDescriptorProto.LABEL_REPEATED
        if field.type in _SCALARS:
            added.type = _SCALARS[field.type]
        else:
            added.type, added.type_name = FieldDescriptorProto.TYPE_MESSAGE, field.type
        if field.optional or field.oneof:
            added.oneof_index = oneofs.index(field.oneof or f"_{field.name}")
            added.proto3_optional = field.optional
    return message


def _package(pool: DescriptorPool, name: str, messages: Mapping[str, Iterable[Field]]) -> Package:
    file = FileDescriptorProto(name=f"rescind/{name}.proto", package=name, syntax="proto3")
    file.dependency.append(struct_pb2.DESCRIPTOR.name)
    for message_name, fields in messages.items():
        message = file.message_type.add()
        message.CopyFrom(_message(message_name, fields))
        if message_name == "ResolveAllResponse":
            entry = _message("FlagsEntry", [Field("key", "string", 1), Field("value", f".{name}.AnyFlag", 2)])
            entry.options.map_entry = True
            message.nested_type.add().CopyFrom(entry)
    pool.AddSerializedFile(file.SerializeToString())
    return Package(
        name=name,
        classes={one: GetMessageClass(pool.FindMessageTypeByName(f"{name}.{one}")) for one in messages},
    )


_POOL: Final = DescriptorPool()
_POOL.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
SYNC: Final = _package(_POOL, "flagd.sync.v1", _sync())
EVALUATION_V1: Final = _package(
    _POOL, "flagd.evaluation.v1", {**_evaluation(optional=False), **_resolve_all("flagd.evaluation.v1")}
)
EVALUATION_V2: Final = _package(_POOL, "flagd.evaluation.v2", _evaluation(optional=True))
StructMessage: Final[type[Any]] = GetMessageClass(_POOL.FindMessageTypeByName("google.protobuf.Struct"))

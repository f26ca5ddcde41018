"""JSON values in protobuf's form (google/protobuf/struct.proto), there and back.

Numbers travel as doubles: a whole one that a double holds exactly is read as an integer, as a JSON reader would have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flagd.grpc.messages import StructMessage

EXACT_MAX = 2**53


def plain(struct: Any) -> dict[str, Any]:
    """The object that a `Struct` holds; its depth is bounded by protobuf's own reader."""
    return {name: _plain(value) for name, value in struct.fields.items()}


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    match kind:
        case "struct_value":
            return plain(value.struct_value)
        case "list_value":
            return [_plain(item) for item in value.list_value.values]
        case "number_value":
            number: float = value.number_value
            return int(number) if number.is_integer() and -EXACT_MAX < number < EXACT_MAX else number
        case None | "null_value":
            return None
        case _:
            return getattr(value, kind)


def struct(value: Mapping[str, Any]) -> Any:
    """A `Struct` of this object of JSON values."""
    message = StructMessage()
    message.update(value)
    return message

"""Names and numbers of flagd's messages: those of the release, in a pool that does not meet it."""

from __future__ import annotations

from typing import Any

import pytest

from flagd.grpc import messages, values
from tests.flagd.grpc.serving import sync, v1, v2


def fields_of(descriptor: Any) -> dict[str, Any]:
    return {
        field.name: (
            field.number,
            field.type,
            field.is_repeated,
            field.has_presence,
            field.containing_oneof and field.containing_oneof.name,
            field.message_type and field.message_type.full_name,
        )
        for field in descriptor.fields
    }


@pytest.mark.parametrize(
    ("ours", "released"),
    [(messages.SYNC, sync), (messages.EVALUATION_V1, v1), (messages.EVALUATION_V2, v2)],
    ids=lambda one: getattr(one, "name", ""),
)
def test_every_message_has_the_fields_of_the_release(ours: messages.Package, released: Any) -> None:
    theirs = released.DESCRIPTOR.message_types_by_name
    assert ours.name == released.DESCRIPTOR.package
    assert {name: fields_of(one.DESCRIPTOR) for name, one in ours.classes.items()} == {
        name: fields_of(one) for name, one in theirs.items()
    }


def test_what_we_write_the_release_reads() -> None:
    written = messages.EVALUATION_V1["ResolveAllResponse"]()
    written.flags["f"].bool_value = False
    read = v1.ResolveAllResponse.FromString(written.SerializeToString())
    assert read.flags["f"].WhichOneof("value") == "bool_value"


@pytest.mark.parametrize(
    "value", [{}, {"a": None}, {"a": [1, 2.5, "x", True, None, {"b": []}]}, {"n": 2**53 - 1, "m": -1, "big": 1e300}]
)
def test_json_values_survive_the_way_there_and_back(value: dict[str, Any]) -> None:
    again = values.plain(values.struct(value))
    assert again == value
    assert {name: type(one) for name, one in again.items()} == {name: type(one) for name, one in value.items()}

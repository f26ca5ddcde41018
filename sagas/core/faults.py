"""Reads a document against a Struct type and names every fault at once, each with its RFC 6901 JSON pointer.

`msgspec.convert` stops at the first fault. People who write definitions want all of them, so a document that does not
convert is walked again, field by field, along the type's own annotations.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, TypeVar

import msgspec
from rescind.wire import Fault

T = TypeVar("T")

FAULTS_MAX = 200
DEPTH_MAX = 32


def read(kind: Any, document: object, pointer: str = "") -> tuple[Any, list[Fault]]:
    """The document as `kind`, or None and every fault it has. Exactly one of the two says something.

    >>> read(int, 1)
    (1, [])
    >>> read(int, "x")[1][0].detail
    'Expected `int`, got `str`'
    """
    try:
        return msgspec.convert(document, kind), []
    except msgspec.ValidationError as error:
        faults = [fault for fault, _ in zip(_walk(kind, document, pointer, 0), range(FAULTS_MAX), strict=False)]
        return None, faults or [_of(error, pointer)]


def escape(part: object) -> str:
    """One reference token of a JSON pointer.

    >>> escape("a/b~c")
    'a~1b~0c'
    """
    return str(part).replace("~", "~0").replace("/", "~1")


def _walk(kind: Any, value: object, pointer: str, depth: int) -> Iterator[Fault]:
    kind = _bare(kind)
    if depth > DEPTH_MAX:
        yield Fault(pointer=pointer, detail="nested too deep", code="too_deep")
    elif isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        yield from _walk_union(kind, value, pointer, depth)
    elif _is_struct(kind):
        yield from _walk_struct(kind, value, pointer, depth)
    elif typing.get_origin(kind) is list and isinstance(value, list):
        item = typing.get_args(kind)[0]
        for index, child in enumerate(value):
            yield from _walk(item, child, f"{pointer}/{index}", depth + 1)
    else:
        yield from _leaf(kind, value, pointer)


def _walk_union(kind: Any, value: object, pointer: str, depth: int) -> Iterator[Fault]:
    structs = [choice for choice in typing.get_args(kind) if _is_struct(_bare(choice))]
    if not structs or not isinstance(value, dict):
        yield from _leaf(kind, value, pointer)
        return
    if len(structs) == 1:
        yield from _walk_struct(structs[0], value, pointer, depth)
        return
    by_tag = {choice.__struct_config__.tag: choice for choice in structs}
    field = structs[0].__struct_config__.tag_field
    given = value.get(field)
    if isinstance(given, str) and given in by_tag:
        yield from _walk_struct(by_tag[given], value, pointer, depth)
    else:
        known = ", ".join(sorted(by_tag))
        detail = f"is required: one of {known}" if field not in value else f"{given!r} is not one of {known}"
        yield Fault(pointer=f"{pointer}/{field}", detail=detail, code="unknown_choice" if field in value else "required")


def _walk_struct(kind: Any, value: object, pointer: str, depth: int) -> Iterator[Fault]:
    if not isinstance(value, dict):
        yield Fault(pointer=pointer, detail=f"Expected `object`, got `{_json_name(value)}`", code="wrong_type")
        return
    hints = typing.get_type_hints(kind, include_extras=True)
    config = kind.__struct_config__
    known = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    before = 0
    for name, field in known.items():
        if name in value:
            for fault in _child(hints[field.name], value[name], f"{pointer}/{escape(name)}", depth):
                before += 1
                yield fault
        elif field.required:
            before += 1
            yield Fault(pointer=f"{pointer}/{escape(name)}", detail="is required", code="required")
    if config.forbid_unknown_fields:
        for name in value:
            if name not in known and name != config.tag_field:
                before += 1
                yield Fault(pointer=f"{pointer}/{escape(name)}", detail=_unknown(str(name), known), code="unknown_field")
    if not before:
        yield from _leaf(kind, value, pointer)


def _child(hint: Any, value: object, pointer: str, depth: int) -> Iterator[Fault]:
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        found = False
        for fault in _walk(hint, value, pointer, depth + 1):
            found = True
            yield fault
        if not found:
            yield _of(error, pointer)


def _leaf(kind: Any, value: object, pointer: str) -> Iterator[Fault]:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        yield _of(error, pointer)


def _of(error: msgspec.ValidationError, pointer: str) -> Fault:
    detail, _, path = str(error).partition(" - at `$")
    steps = path.rstrip("`").replace("[", ".").replace("]", "").split(".")
    return Fault(pointer=pointer + "".join(f"/{escape(step)}" for step in steps if step), detail=detail)


def _unknown(name: str, known: typing.Iterable[str]) -> str:
    close = get_close_matches(name, list(known), n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    return f"is not a field of this object{meant} (known: {', '.join(known)})"


def _bare(kind: Any) -> Any:
    return _bare(typing.get_args(kind)[0]) if typing.get_origin(kind) is typing.Annotated else kind


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _json_name(value: object) -> str:
    names = {type(None): "null", bool: "bool", int: "int", float: "float", str: "str", list: "array"}
    return names.get(type(value), type(value).__name__)

"""Flags as an instance holds them: each definition stays the bytes that came until the flag is first used.

Read whole, 10,000 flags are a million Python objects: 0.2 s in which nothing else runs, and as much again at every full
collection of the garbage. Packed they are 10,000 objects and one buffer, read in milliseconds.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct, field

from rescind.wire import OFF, Change, Kill, Snapshot


class PackedFlag(Struct, frozen=True, kw_only=True, gc=False):
    """`wire.SnapshotFlag` with its definition still packed. The same JSON."""

    packed: Raw = field(name="definition")
    off_variant: str = OFF
    epoch: int = 1
    kills: tuple[Kill, ...] = ()
    max_staleness_seconds: float | None = None
    effect_attributes: tuple[str, ...] = ()
    on_unreachable: str = "refuse"
    services: tuple[str, ...] = ()
    laid: int = 0

    @property
    def definition(self) -> dict[str, Any]:
        """The definition, read anew at every call. Empty, which no evaluator can read, where it is no JSON object."""
        try:
            return msgspec.json.decode(self.packed, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return {}


class PackedSnapshot(Snapshot, frozen=True, kw_only=True):
    """`wire.Snapshot` of packed flags. It keeps the buffer that it was read from alive."""

    flags: dict[str, PackedFlag] = {}  # type: ignore[assignment]


class _Unread(Snapshot, frozen=True, kw_only=True):
    """`wire.Snapshot` whose flags are still to be read."""

    flags: dict[str, Raw] = {}  # type: ignore[assignment]


class PackedChange(Change, frozen=True, kw_only=True):
    """`wire.Change` of packed flags."""

    flags: dict[str, PackedFlag] = {}  # type: ignore[assignment]


CHUNK = 2_000
"""Flags read in one stretch."""

_unread = msgspec.json.Decoder(_Unread)
_flag = msgspec.json.Decoder(PackedFlag)
_snapshot = msgspec.json.Decoder(PackedSnapshot)
_change = msgspec.json.Decoder(PackedChange)
_T = TypeVar("_T")


def read_snapshot(content: bytes | str) -> PackedSnapshot:
    """Raises `msgspec.MsgspecError` for what is no snapshot."""
    return _read(_snapshot, content)


def reading(content: bytes | str) -> Generator[None, None, PackedSnapshot]:
    """`read_snapshot` in stretches of a few milliseconds, for whoever has else to do between them. Raises as it does."""
    unread = _read(_unread, content)
    yield
    flags: dict[str, PackedFlag] = {}
    for number, (key, packed) in enumerate(unread.flags.items(), 1):
        flags[key] = _read(_flag, packed)
        if number % CHUNK == 0:
            yield
    return PackedSnapshot(
        environment=unread.environment,
        revision=unread.revision,
        flags=flags,
        evaluators=unread.evaluators,
        metadata=unread.metadata,
        bucketing=unread.bucketing,
    )


def read_in_stretches(content: bytes | str) -> PackedSnapshot:
    """`read_snapshot` for a thread beside an event loop, which gets its turn between the stretches. Raises as it does."""
    steps = reading(content)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            snapshot: PackedSnapshot = done.value
            return snapshot


def read_change(content: bytes | str) -> PackedChange:
    """Raises `msgspec.MsgspecError` for what is no change. Its flags have bytes of their own: they outlive many changes."""
    change = _read(_change, content)
    flags = {key: msgspec.structs.replace(flag, packed=flag.packed.copy()) for key, flag in change.flags.items()}
    return msgspec.structs.replace(change, flags=flags)


def _read(decoder: msgspec.json.Decoder[_T], content: bytes | str | Raw) -> _T:
    try:
        return decoder.decode(content)
    except (RecursionError, UnicodeDecodeError) as error:
        raise msgspec.DecodeError(str(error)) from None

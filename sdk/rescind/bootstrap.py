"""Flags that a service brings along, for a first start without server and without a snapshot on disk (P6).

Either a flagd document (`{"flags": ..., "$evaluators": ..., "metadata": ...}`), which comes before every revision, or a
snapshot as `GET /snapshot` gives it, which keeps its own. The last known one on disk comes first, the network replaces both.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from rescind.packed import PackedFlag, PackedSnapshot, read_snapshot
from rescind.wire import Revision, Snapshot

BOOTSTRAP_BYTES_MAX = 64 * 1024 * 1024


class Unreadable(ValueError):  # noqa: N818
    """It is neither of both."""


def load(source: Path | Mapping[str, Any], environment: str) -> Snapshot:
    """The snapshot in a file or a mapping. `environment` is for a flagd document. Raises `OSError` and `Unreadable`."""
    if isinstance(source, Mapping):
        try:
            return read(msgspec.json.encode(dict(source)), environment)
        except (TypeError, ValueError, RecursionError) as error:
            raise Unreadable(str(error)) from None
    with source.open("rb") as file:
        content = file.read(BOOTSTRAP_BYTES_MAX + 1)
    if len(content) > BOOTSTRAP_BYTES_MAX:
        raise Unreadable(f"{source} is larger than {BOOTSTRAP_BYTES_MAX} bytes")
    return read(content, environment)


def read(content: bytes, environment: str) -> Snapshot:
    """The snapshot in JSON bytes. Raises `Unreadable`."""
    try:
        document = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
        if "revision" in document:
            return read_snapshot(content)
        return of_flagd(document, environment)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"neither a flagd document nor a snapshot: {error}") from None


def of_flagd(document: Mapping[str, msgspec.Raw], environment: str) -> Snapshot:
    """The flags of a flagd document, at revision 0.0."""
    flags = msgspec.json.decode(document.get("flags", b"null"), type=dict[str, msgspec.Raw])
    return PackedSnapshot(
        environment=environment,
        revision=Revision(),
        flags={key: PackedFlag(packed=flag) for key, flag in flags.items()},
        evaluators=msgspec.json.decode(document.get("$evaluators", b"{}"), type=dict[str, Any]),
        metadata=msgspec.json.decode(document.get("metadata", b"{}"), type=dict[str, Any]),
    )

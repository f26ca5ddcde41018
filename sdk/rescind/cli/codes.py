"""Exit codes, which scripts rely on. Those from 10 on are `kill`'s own (interface.md)."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What a command's end means."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CONTAINED_ONLY = 10
    """Contained, but not all that `--wait` asked for."""
    NOT_CONTAINED = 11
    """Committed; instances that have not acknowledged are named."""
    REFUSED = 12
    UNKNOWN_FLAG = 13
    UNREACHABLE = 20
    INTERRUPTED = 130

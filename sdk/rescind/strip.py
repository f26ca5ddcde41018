"""What an edge takes away: nothing that says a revision comes in from outside, and none goes out (P3)."""

from __future__ import annotations

from collections.abc import Iterable

from rescind.baggage import BAGGAGE, without_revision
from rescind.header import HEADER_BYTES
from rescind.wire import HEADER

BAGGAGE_BYTES = BAGGAGE.encode()


def stripped(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Headers without our own, and without our member of the baggage; others as they were.

    >>> stripped([("rescind-revision", "production.1.42"), ("baggage", "a=1,rescind.rev=production.1.42")])
    [('baggage', 'a=1')]
    """
    kept: list[tuple[str, str]] = []
    for name, value in headers:
        lower = name.lower()
        if lower == HEADER:
            continue
        left = without_revision(value) if lower == BAGGAGE else value
        if left or left == value:
            kept.append((name, left))
    return kept


def stripped_bytes(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The same, as ASGI has them."""
    kept: list[tuple[bytes, bytes]] = []
    for name, value in headers:
        lower = bytes(name).lower()
        if lower == HEADER_BYTES:
            continue
        left = without_revision(value.decode("latin-1")).encode("latin-1") if lower == BAGGAGE_BYTES else value
        if left or left == value:
            kept.append((name, left))
    return kept

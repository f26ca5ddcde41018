"""Workers that ask for tasks in one group, and whose each task is. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

SHARE_MIN = 16
"""A few tasks go to one hand: many hands with one task each would be many answers."""


class WorkerFilter(Struct, frozen=True):
    """What a worker serves."""

    environment: str
    saga: str
    versions: tuple[str, ...]
    steps: tuple[str, ...]


class Hand(Struct, frozen=True, kw_only=True):
    """One worker that takes up to `limit` attempts, each leased to it for so long."""

    actor: str
    limit: int
    lease_seconds: float


def deal(count: int, limits: Sequence[int]) -> list[int]:
    """Whose each of `count` is, by the index of its limit: an equal share for each in turn, then who still has room.

    >>> deal(5, [1, 8, 8])
    [0, 1, 1, 1, 1]
    >>> deal(40, [8, 64, 64]).count(2)
    16
    """
    left, whose = list(limits), list[int]()
    share = max(SHARE_MIN, -(-count // max(1, len(limits))))
    while len(whose) < count and any(left):
        for index, room in enumerate(left):
            given = min(room, share, count - len(whose))
            whose += [index] * given
            left[index] -= given
    return whose

"""The schedule of faults: everything follows from the seed. Pure."""

from __future__ import annotations

import random
from typing import Literal

from msgspec import Struct

Kind = Literal[
    "kill -9 a server",
    "kill -9 a worker",
    "kill -9 the caller",
    "stop a server past its lease",
    "stop a worker past its lease",
    "restart PostgreSQL at once",
    "end PostgreSQL's backends",
    "kill a flag, then lift it",
]
SECONDS: dict[Kind, tuple[float, float]] = {
    "kill -9 a server": (0.2, 2.0),
    "kill -9 a worker": (0.2, 2.0),
    "kill -9 the caller": (0.2, 1.0),
    "stop a server past its lease": (6.0, 8.0),
    "stop a worker past its lease": (2.5, 6.0),
    "restart PostgreSQL at once": (0.0, 1.0),
    "end PostgreSQL's backends": (0.0, 0.0),
    "kill a flag, then lift it": (0.5, 3.0),
}
"""How long each lasts, at least and at most."""
KINDS: tuple[Kind, ...] = tuple(SECONDS)
APART_SECONDS = (0.4, 2.0)


class Fault(Struct, frozen=True, kw_only=True):
    """`at`: seconds from the beginning. `number` chooses whom it meets."""

    at: float
    kind: Kind
    number: int
    seconds: float


def schedule(seed: int, seconds: float) -> list[Fault]:
    """Faults of that many seconds. Every kind comes once before one comes again.

    >>> schedule(1, 60) == schedule(1, 60), schedule(1, 60) == schedule(2, 60)
    (True, False)
    """
    chance = random.Random(f"faults {seed}")
    faults: list[Fault] = []
    deck: list[Kind] = []
    at = chance.uniform(*APART_SECONDS)
    while at < seconds:
        if not deck:
            deck = list(KINDS)
            chance.shuffle(deck)
        kind = deck.pop()
        faults.append(Fault(at=at, kind=kind, number=chance.randrange(1_000), seconds=chance.uniform(*SECONDS[kind])))
        at += chance.uniform(*APART_SECONDS)
    return faults

"""For how long what has ended is kept, as a server is told."""

from __future__ import annotations

from msgspec import Struct

KEYS_DAYS_MIN = 400
"""Keys outlive the history of their effects by that at least (P9)."""


class Retention(Struct, frozen=True, kw_only=True):
    """Days after the end; null: for ever. What a definition says of its own history goes before `history_days`."""

    history_days: int | None = None
    keys_days: int | None = None
    """After the history of a key has gone. At least `KEYS_DAYS_MIN`."""

    def __post_init__(self) -> None:
        assert self.keys_days is None or self.keys_days >= KEYS_DAYS_MIN

"""Time and chance, handed into every shell so that tests can replace them.

Two clocks are never compared: `now` is for records that people read, `monotonic` for how long something took in this process.
Leases are judged by PostgreSQL's clock alone (P18).
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
import uuid
from datetime import UTC, datetime


class Clock:
    """The real clock."""

    def now(self) -> datetime:
        """Return the instant, aware, in UTC."""
        return datetime.now(UTC)  # noqa: TID251 - the one place

    def monotonic(self) -> float:
        """Return seconds that only ever grow, from an arbitrary start."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after that many seconds; zero or less yields once."""
        await asyncio.sleep(max(0.0, seconds))


class Entropy:
    """Real chance. Every id is time-ordered (uuidv7), which keeps the write-ahead log small."""

    def uuid7(self) -> uuid.UUID:
        """Return a UUID version 7 (RFC 9562, section 5.7): 48 bits of milliseconds, 74 bits of chance."""
        milliseconds = time.time_ns() // 1_000_000
        chance = int.from_bytes(secrets.token_bytes(10), "big") >> 6
        high = (milliseconds & 0xFFFFFFFFFFFF) << 16 | 0x7000 | chance >> 62
        low = 0b10 << 62 | chance & (1 << 62) - 1
        return uuid.UUID(int=high << 64 | low)

    def token_bytes(self, count: int) -> bytes:
        """Return `count` bytes fit for secrets."""
        return secrets.token_bytes(count)

    def random(self) -> float:
        """Return a float in [0, 1) for jitter, never for secrets."""
        return random.random()  # noqa: S311

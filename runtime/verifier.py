"""Checks tokens at every entry point: in PostgreSQL twice a second each at most, from memory in between.

What holds: a revocation is obeyed within a second while PostgreSQL answers; a token once verified stays good while it does
not, until it expires (P5); many callers cost one query at a time, which asks for all of them; unknown tokens are remembered
too, briefly and in bounded number. Neither secrets nor whole tokens are kept in memory, only their digests.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import re

import asyncpg
from msgspec import Struct

from runtime.clock import Clock
from runtime.errors import Code, Unavailable
from runtime.postgres import Postgres
from runtime.principal import Principal, digest
from runtime.problem import Problem
from runtime.queries import Queries

QUERIES = Queries.load("runtime", "tokens")
TOKEN = re.compile(r"rsc_([0-9a-f]{16})_([0-9a-f]{64})")
FRESH_SECONDS = 0.5
REFRESH_AFTER_SECONDS = 0.25
UNKNOWN_SECONDS = 0.25
PATIENCE_SECONDS = 0.4
"""How long a caller whose token was good before waits for PostgreSQL: a revocation then holds within
`FRESH_SECONDS + PATIENCE_SECONDS`, and a database that hangs costs little."""
KNOWN_MAX = 10_000
UNKNOWN_MAX = 1_000
BATCH_MAX = 500
WAITING_MAX = 5_000


class Known(Struct, frozen=True):
    """A token that was good when it was asked for, at `asked` on this process's monotonic clock."""

    principal: Principal
    asked: float
    expires: float


class Verifier:
    """Verifies tokens against one database. One per process, handed to every entry point."""

    def __init__(self, pg: Postgres, clock: Clock | None = None) -> None:
        self._pg = pg
        self._monotonic = (clock or Clock()).monotonic
        self._known: dict[bytes, Known] = {}
        self._unknown: dict[bytes, float] = {}
        self._waiting: dict[str, asyncio.Future[asyncpg.Record | None]] = {}
        self._pump: asyncio.Task[None] | None = None
        self._refreshes: dict[bytes, asyncio.Task[None]] = {}

    def cached(self, token: str) -> Principal | None:
        """Return who it is if that is known freshly, without waiting. The hot path: everyone else calls `verify`.

        A token in steady use is asked for again in the background before it grows stale.
        """
        key = digest(token)
        known = self._known.get(key)
        if known is None:
            return None
        now = self._monotonic()
        age = now - known.asked
        if age > FRESH_SECONDS or now >= known.expires:
            return None
        if age > REFRESH_AFTER_SECONDS and key not in self._refreshes:
            self._refresh(key, token)
        return known.principal

    async def verify(self, header_value: str | None) -> Principal:
        """Return who it is, of `Bearer <token>` or the bare token.

        Raises a 401 `Problem`, or `Unavailable` for a token not seen before while PostgreSQL is away.
        """
        token = (header_value or "").strip()
        if token[:7].lower() == "bearer ":
            token = token[7:].strip()
        match = TOKEN.fullmatch(token)
        if match is None:
            raise _unauthenticated("There is no token in the request." if not token else "This is not one of our tokens.")
        principal = self.cached(token)
        if principal is None:
            principal = await self._ask(digest(token), match[1], match[2])
        if principal is None:
            raise _unauthenticated("This token is unknown, expired or revoked.")
        return principal

    async def holder(self, identity: str) -> tuple[Principal, bytes]:
        """Return who a token's id names, and the digest of its secret: for what was signed with that. Asked every time.

        Raises a 401 `Problem` where the token is unknown, expired or revoked, or `Unavailable`.
        """
        row = await asyncio.shield(self._row(identity))
        if row is None:
            raise _unauthenticated("This token is unknown, expired or revoked.")
        return _principal(row), row["secret_hash"]

    async def _ask(self, key: bytes, identity: str, secret: str) -> Principal | None:
        asked = self._monotonic()
        if self._unknown.get(key, 0.0) > asked:
            return None
        known = self._known.get(key)
        try:
            async with asyncio.timeout(None if known is None else PATIENCE_SECONDS):
                row = await asyncio.shield(self._row(identity))
        except (Unavailable, TimeoutError):
            if known is None:
                raise
            return self._keep_good(key, known)
        if row is None or not hmac.compare_digest(row["secret_hash"], digest(secret)):
            self._known.pop(key, None)
            self._remember_unknown(key, asked + UNKNOWN_SECONDS)
            return None
        return self._remember(key, row, asked)

    def _remember(self, key: bytes, row: asyncpg.Record, asked: float) -> Principal:
        principal = _principal(row)
        remaining = row["remaining_seconds"]
        self._known.pop(key, None)
        self._known[key] = Known(principal, asked, float("inf") if remaining is None else asked + remaining)
        while len(self._known) > KNOWN_MAX:
            self._known.pop(next(iter(self._known)))
        return principal

    def _keep_good(self, key: bytes, known: Known) -> Principal | None:
        """PostgreSQL is away: what was good stays so until it expires, and is not asked for again at once."""
        now = self._monotonic()
        if now >= known.expires:
            return None
        self._known[key] = Known(known.principal, now, known.expires)
        return known.principal

    def _remember_unknown(self, key: bytes, until: float) -> None:
        self._unknown.pop(key, None)
        self._unknown[key] = until
        while len(self._unknown) > UNKNOWN_MAX:
            self._unknown.pop(next(iter(self._unknown)))

    def _refresh(self, key: bytes, token: str) -> None:
        async def again() -> None:
            try:
                match = TOKEN.fullmatch(token)
                assert match is not None
                with contextlib.suppress(Unavailable):
                    await self._ask(key, match[1], match[2])
            finally:
                del self._refreshes[key]

        self._refreshes[key] = asyncio.get_running_loop().create_task(again())

    def _row(self, identity: str) -> asyncio.Future[asyncpg.Record | None]:
        """Return the answer to come for one id, of a query that begins after this call."""
        future = self._waiting.get(identity)
        if future is None:
            if len(self._waiting) >= WAITING_MAX:
                raise Unavailable("The token check", "too many unknown tokens at once")
            future = self._waiting[identity] = asyncio.get_running_loop().create_future()
            future.add_done_callback(lambda done: done.cancelled() or done.exception())  # its caller may have left
        if self._pump is None or self._pump.done():
            self._pump = asyncio.get_running_loop().create_task(self._answer_all())
        return future

    async def _answer_all(self) -> None:
        """Ask for everything that waits, one query after the other, until nothing waits."""
        while self._waiting:
            batch = {identity: self._waiting.pop(identity) for identity in list(self._waiting)[:BATCH_MAX]}
            try:
                async with self._pg.connection() as connection:
                    rows = {row["id"]: row for row in await connection.fetch(QUERIES.live_tokens, list(batch))}
            except Exception as error:  # every waiter is told, whatever it is
                for future in batch.values():
                    future.set_exception(error)
                continue
            for identity, future in batch.items():
                future.set_result(rows.get(identity))


def _principal(row: asyncpg.Record) -> Principal:
    return Principal(id=row["id"], name=row["name"], environment=row["environment"], scopes=frozenset(row["scopes"]))


def _unauthenticated(detail: str) -> Problem:
    return Problem(
        401,
        Code.UNAUTHENTICATED,
        "Not authenticated",
        detail,
        next_step="Send `Authorization: Bearer <token>`; `rescind token create` makes one.",
    )

"""Circuit breakers of kinds, one for acting and one for undoing each, kept in PostgreSQL for every server (decision 0027).

Who begins an attempt asks under the row of an open breaker. Outcomes are counted after they were written, in a transaction of
their own that holds nothing else: a count that is lost opens a breaker later, and costs no more. A process looks once in
`FRESH_SECONDS` which kinds are in trouble at all, so what goes well asks nothing; so long it may begin beside a breaker that
another has just seen open.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal

from msgspec import Struct

from runtime.clock import Clock
from runtime.postgres import Connection
from runtime.queries import Queries
from runtime.telemetry import counter
from sagas.core.breakers import COOL_SECONDS, FAILURES_MAX, PROBE_SECONDS, Hold, Streak, hold, streak

QUERIES = Queries.load("sagas", "breakers")
FRESH_SECONDS = 1.0
TROUBLED_MAX = 10_000
LISTING_MAX = 1_000
ERROR_LENGTH_MAX = 500
Side = Literal["act", "undo"]
SIDES: tuple[Side, ...] = ("act", "undo")
Place = tuple[str, str]
"""Environment and kind."""
Lend = Callable[[], AbstractAsyncContextManager[Connection]]

log = logging.getLogger("rescind.breakers")
opened = counter("rescind.breakers.opened")
uncounted = counter("rescind.breakers.uncounted")


class Told(Struct, frozen=True, kw_only=True):
    """How an attempt of a kind ended."""

    place: Place
    is_good: bool
    error: str | None = None


class Breakers:
    """Those of one side, as one part of a process sees them."""

    def __init__(
        self, clock: Clock, side: Side, *, failures_max: int = FAILURES_MAX, cool_seconds: float = COOL_SECONDS
    ) -> None:
        self._clock = clock
        self._side = side
        self._failures_max = failures_max
        self._cool_seconds = cool_seconds
        self._troubled: set[Place] = set()
        self._looked: float | None = None

    async def holds(self, connection: Connection, places: Iterable[Place]) -> dict[Place, Hold]:
        """The open ones among these, held by the caller's transaction; of the others nothing is asked."""
        await self._look(connection)
        asked = sorted(set(places) & self._troubled)
        if not asked:
            return {}
        rows = await connection.fetch(QUERIES.hold, self._side, *_columns(asked))
        return {
            (row["environment"], row["kind"]): hold(cools_seconds=row["cools_seconds"], is_probed=row["is_probed"])
            for row in rows
        }

    async def probe(self, connection: Connection, places: Iterable[Place]) -> None:
        """One of each has begun, in the transaction that holds them."""
        begun = sorted(set(places))
        if begun:
            await connection.execute(QUERIES.probe, self._side, *_columns(begun), PROBE_SECONDS)

    async def tell(self, lend: Lend, outcomes: Sequence[Told]) -> None:
        """Count, on a connection that is in no transaction. Raises nothing: what cannot be counted is not."""
        by_place: dict[Place, list[tuple[bool, str | None]]] = {}
        for told in outcomes:
            by_place.setdefault(told.place, []).append((told.is_good, told.error))
        streaks = {named: streak(each) for named, each in sorted(by_place.items())}
        good = [named for named, each in streaks.items() if each.has_success and named in self._troubled]
        bad = {named: each for named, each in streaks.items() if each.failures}
        if not good and not bad:
            return
        try:
            async with lend() as connection:
                await self._count(connection, good, bad)
        except Exception as error:
            uncounted.add(len(outcomes), {"side": self._side})
            log.warning("outcomes were not counted: %s: %s", type(error).__name__, error)

    async def _count(self, connection: Connection, good: Sequence[Place], bad: dict[Place, Streak]) -> None:
        if good:
            await connection.execute(QUERIES.succeed, self._side, *_columns(good))
            self._troubled -= set(good)
        if not bad:
            return
        self._troubled |= bad.keys()
        counts, errors = [each.failures for each in bad.values()], [each.error for each in bad.values()]
        rows = await connection.fetch(
            QUERIES.fail, self._side, *_columns(list(bad)), counts, errors, self._failures_max, self._cool_seconds
        )
        for row in rows:
            if row["has_opened"]:
                opened.add(1, {"kind": row["kind"], "side": self._side})
                log.error("the breaker of %s (%s) in %s opened", row["kind"], self._side, row["environment"])

    async def _look(self, connection: Connection) -> None:
        now = self._clock.monotonic()
        if self._looked is None or now - self._looked >= FRESH_SECONDS:
            rows = await connection.fetch(QUERIES.troubled, self._side, TROUBLED_MAX)
            self._troubled = {(row["environment"], row["kind"]) for row in rows}
            self._looked = now


async def listing(connection: Connection, environment: str) -> list[dict[str, Any]]:
    """Those that are open, the oldest first, and then those with failures."""
    return [dict(row) for row in await connection.fetch(QUERIES.listing, environment, LISTING_MAX)]


async def kinds(connection: Connection, environment: str) -> list[str]:
    """Every kind that ever failed, for suggestions."""
    return [row["kind"] for row in await connection.fetch(QUERIES.kinds, environment, LISTING_MAX)]


async def reset(connection: Connection, environment: str, kind: str, sides: Sequence[Side]) -> list[str]:
    """Close those of a kind: its attempts begin again. Returns the sides that were not at rest."""
    return [row["side"] for row in await connection.fetch(QUERIES.reset, environment, kind, list(sides))]


def _columns(places: Sequence[Place]) -> tuple[list[str], list[str]]:
    return [environment for environment, _ in places], [kind for _, kind in places]

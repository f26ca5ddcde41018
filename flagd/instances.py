"""Who runs, at which revision, and who has acknowledged a kill.

A thousand instances that acknowledge one kill are a handful of transactions: beats are written in batches, each as soon as
the one before it is done, with whatever came in meanwhile. A beat is believed as far as it can be true: a revision far beyond
the environment's own, or of another generation, counts only with its proof (P2, docs/decisions/0022).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct
from rescind import wire

from flagd.core import documents
from flagd.declarations import LIVE_SECONDS
from flagd.proofs import NOTHING, Proofs
from flagd.snapshots import HEARTBEAT_SECONDS
from runtime.errors import Unavailable
from runtime.postgres import Postgres
from runtime.principal import Principal
from runtime.queries import Queries

KEEP_SECONDS = 7 * 86_400.0
FORGET_BATCHES = 1_000
"""So many batches of beats, and those that were not seen for a week are dropped."""
BATCH_MAX = 1_000
WAITING_MAX = 100_000
TEXT_MAX = 256
REVISION_MAX = 2**53
DECLARED_MAX = 256
"""Flags that one instance declares; what is beyond is left out."""

UNPROVEN_MAX = 10_000
"""So many revisions beyond the environment's own are believed of an instance that shows no proof: more than a restore loses."""
ADOPTED_MAX = 1_000
"""Of one beat."""

_INSTANCES = Queries.load("flagd", "instances")
_TEXTS = ("instance", "service", "how", "sdk_version", "service_version")


class Instance(Struct, frozen=True, kw_only=True):
    """One running SDK, as people read it."""

    instance: str
    service: str
    revision: str
    how: str
    """It came to its revision by `push` (the stream), `poll`, `catch-up` (a request's header), `reply` (a reply's) or `start`
    (disk, bootstrap); `staleness`: cut off, it serves off variants of flags whose limit has run out."""
    applied_at: datetime | None
    """When it did, told as an age on its own monotonic clock; null from one that does not say."""
    behind: bool
    behind_count: int
    """Revisions that it has not applied."""
    behind_seconds: float | None
    """Since the first of them was committed."""
    live: bool
    """Seen within 15 seconds, and not signed off."""
    connected: bool
    """Hangs on the stream of the replica that answers."""
    seen_at: datetime
    started_at: datetime
    signed_off_at: datetime | None
    sdk_version: str
    service_version: str
    declared: list[str] | None
    """The flags that its code says it supports; null from one that has never said."""
    journal_open: bool
    """Holds what the server has not got: outcomes, or effects that it began without it."""


class Filter(Struct, frozen=True, kw_only=True):
    """Which instances are listed; null: whatever they are."""

    service: str | None = None
    behind: bool | None = None
    flag: str | None = None
    """Those of this flag's services."""


EVERYONE = Filter()


class _Waiting(Struct, frozen=True, kw_only=True):
    """A beat until it is written; `at` on the loop's monotonic clock. `proven` is what it, or this process, has surely seen."""

    environment: str
    beat: wire.InstanceBeat
    proven: wire.Revision
    at: float
    done: asyncio.Future[int | None]


BEAT = "evaluate"
"""The scope of a heartbeat: who evaluates says what it has applied. Reading alone is not enough, for a beat is believed."""
BEGUN = "effects"
"""The scope in which `begun` is heard: who may admit no effect holds no permission, and gives none back."""


def heard(beat: wire.InstanceBeat, principal: Principal, environment: str) -> wire.InstanceBeat:
    """The beat as far as its sender may speak: without `begun` and `adopted` from one who may admit no effect (P8)."""
    return beat if principal.allows(BEGUN, environment) else msgspec.structs.replace(beat, begun=None, adopted=[])


def faults_of(beat: wire.InstanceBeat) -> list[wire.Fault]:
    """What is wrong with a beat: texts that are too long or hold control characters, absurd revisions."""
    faults = [
        wire.Fault(pointer=f"/{name}", detail=f"a text of at most {TEXT_MAX} characters without control characters")
        for name in _TEXTS
        if len(text := getattr(beat, name)) > TEXT_MAX or not (text.isprintable() or not text)
    ]
    if not beat.instance:
        faults.append(wire.Fault(pointer="/instance", code="missing", detail="`instance` names the running SDK"))
    if not (0 <= beat.revision.generation <= REVISION_MAX and 0 <= beat.revision.n <= REVISION_MAX):
        faults.append(wire.Fault(pointer="/revision", detail=f"a pair of numbers from 0 to {REVISION_MAX}"))
    return faults


def declared_of(beat: wire.InstanceBeat) -> list[str] | None:
    """The flags that it declares, each once; null where it says nothing of them. What can be no flag's key is left out."""
    if beat.declared is None:
        return None
    return [key for key in dict.fromkeys(beat.declared) if documents.is_key(key)][:DECLARED_MAX]


class Instances:
    """The instances of every environment. Beats are taken from any task of one event loop."""

    def __init__(self, pg: Postgres) -> None:
        self._pg = pg
        self._waiting: list[_Waiting] = []
        self._proofs = Proofs(pg)
        self._flushing: asyncio.Task[None] | None = None
        self._batch_count = 0
        self._streams: Counter[tuple[str, str]] = Counter()

    def connect(self, environment: str, instance: str) -> None:
        """The instance has opened a stream here."""
        self._streams[environment, instance] += 1

    def disconnect(self, environment: str, instance: str) -> None:
        """One of its streams here has ended."""
        self._streams[environment, instance] -= 1
        if self._streams[environment, instance] <= 0:
            del self._streams[environment, instance]

    async def beat(self, environment: str, beat: wire.InstanceBeat, newest: wire.Revision = NOTHING) -> wire.InstanceBeatAnswer:
        """Record what an instance says it has applied, and what it acknowledges by that. Answers once that has committed.

        `newest` is the revision that this process knows of. Raises `Unavailable` or `OutcomeUnknown`; a repeat does no harm.
        The beat has no `faults_of`.
        """
        if len(self._waiting) >= WAITING_MAX:
            raise Unavailable("PostgreSQL", "too many heartbeats are waiting for it")
        loop = asyncio.get_running_loop()
        is_known = NOTHING < beat.revision <= newest
        proven = beat.revision if is_known else await self._proofs.shown(environment, beat)
        done: asyncio.Future[int | None] = loop.create_future()
        self._waiting.append(_Waiting(environment=environment, beat=beat, proven=proven, at=loop.time(), done=done))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush(), name="flagd.instances.flush")
        declared_count = await done
        return wire.InstanceBeatAnswer(
            revision=newest,
            interval_seconds=HEARTBEAT_SECONDS,
            declared_count=declared_count,
            proven=beat.revision if is_known else None,
            proof=await self._proofs.of(environment, beat.revision) if is_known else "",
        )

    async def listing(self, environment: str, after: str = "", limit: int = 1000, which: Filter = EVERYONE) -> list[Instance]:
        """Instances by id, `after` excluded."""
        async with self._pg.connection() as connection:
            rows = await connection.fetch(
                _INSTANCES.listing, environment, LIVE_SECONDS, after, limit, which.service, which.behind, which.flag
            )
        return [
            Instance(
                instance=row["id"],
                service=row["service"],
                revision=str(wire.Revision(row["generation"], row["revision"])),
                how=row["how"],
                applied_at=row["applied_at"],
                behind=row["behind"],
                behind_count=row["behind_count"],
                behind_seconds=row["behind_seconds"],
                live=row["live"],
                connected=(environment, row["id"]) in self._streams,
                seen_at=row["seen_at"],
                started_at=row["started_at"],
                signed_off_at=row["signed_off_at"],
                sdk_version=row["sdk_version"],
                service_version=row["service_version"],
                declared=row["declared"],
                journal_open=row["journal_open"],
            )
            for row in rows
        ]

    async def forget(self) -> None:
        """Drop instances that were not seen for a week."""
        async with self._pg.connection() as connection:
            await connection.execute(_INSTANCES.forget, KEEP_SECONDS)

    async def _flush(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
                await self._write(batch)
                self._batch_count += 1
                if self._batch_count % FORGET_BATCHES == 0:
                    with contextlib.suppress(Unavailable):
                        await self.forget()
        finally:
            self._flushing = None

    async def _write(self, batch: Sequence[_Waiting]) -> None:
        try:
            rows = _rows(batch, asyncio.get_running_loop().time())
            async with self._pg.transaction() as connection:
                written = await connection.fetch(_INSTANCES.beat, rows, UNPROVEN_MAX)
                await connection.execute(_INSTANCES.acknowledge, rows)
                if gone := _gone(batch):
                    await connection.execute(_INSTANCES.adopted, [one[0] for one in gone], [one[1] for one in gone])
        except BaseException as error:
            for one in batch:
                if not one.done.done():
                    one.done.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            counts = {(row["environment"], row["id"]): row["declared_count"] or 0 for row in written}
            for one in batch:
                if not one.done.done():
                    one.done.set_result(counts.get((one.environment, one.beat.instance)))


def _rows(batch: Sequence[_Waiting], now: float) -> list[dict[str, Any]]:
    """One row per instance: of several beats in a batch the newest revision, signed off if any of them says so, with what the
    last of them declared; its journal is open if any of them says so."""
    newest: dict[tuple[str, str], _Waiting] = {}
    for one in batch:
        held = newest.setdefault((one.environment, one.beat.instance), one)
        best = one if one.beat.revision > held.beat.revision else held
        merged = msgspec.structs.replace(
            best.beat,
            signing_off=one.beat.signing_off or held.beat.signing_off,
            journal_open=one.beat.journal_open or held.beat.journal_open,
            declared=held.beat.declared if one.beat.declared is None else one.beat.declared,
        )
        proven = max(one.proven, held.proven)
        newest[one.environment, one.beat.instance] = msgspec.structs.replace(best, beat=merged, proven=proven)
    return [_row(one, now) for one in newest.values()]


def _row(one: _Waiting, now: float) -> dict[str, Any]:
    beat = one.beat
    ago_ms = beat.applied_ago_ms
    if ago_ms is not None:
        ago_ms = min(max(ago_ms, 0.0), KEEP_SECONDS * 1000) + (now - one.at) * 1000 if math.isfinite(ago_ms) else None
    return {
        "environment": one.environment,
        "instance": beat.instance,
        "service": beat.service,
        "generation": beat.revision.generation,
        "revision": beat.revision.n,
        "how": beat.how,
        "sdk_version": beat.sdk_version,
        "service_version": beat.service_version,
        "signing_off": beat.signing_off,
        "obeys_staleness": beat.obeys_staleness,
        "proceeds": beat.proceeds,
        "journal_open": beat.journal_open,
        "applied_ago_ms": ago_ms,
        "declared": declared_of(beat),
        "proven_generation": one.proven.generation,
        "proven_revision": one.proven.n,
    }


def _gone(batch: Sequence[_Waiting]) -> list[tuple[str, str]]:
    """The instances of which a sibling says that it has delivered all they held."""
    return sorted(
        (one.environment, name)
        for one in batch
        for name in one.beat.adopted[:ADOPTED_MAX]
        if name != one.beat.instance and name.isprintable() and not one.beat.journal_open
    )

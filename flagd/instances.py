"""Who runs, at which revision, and who has acknowledged a kill.

A thousand instances that acknowledge one kill are a handful of transactions: beats are written in batches, each as soon as
the one before it is done, with whatever came in meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct
from rescind import wire

from runtime.errors import Unavailable
from runtime.postgres import Postgres
from runtime.principal import Principal
from runtime.queries import Queries

LIVE_SECONDS = 15.0
"""An instance that was not seen for this long is not live: three beats missed."""
KEEP_SECONDS = 7 * 86_400.0
FORGET_BATCHES = 1_000
"""So many batches of beats, and those that were not seen for a week are dropped."""
BATCH_MAX = 1_000
WAITING_MAX = 100_000
TEXT_MAX = 256
REVISION_MAX = 2**53
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
    behind: bool
    live: bool
    """Seen within 15 seconds, and not signed off."""
    connected: bool
    """Hangs on the stream of the replica that answers."""
    seen_at: datetime
    started_at: datetime
    signed_off_at: datetime | None
    sdk_version: str
    service_version: str
    journal_open: bool
    """Holds what the server has not got: outcomes, or effects that it began without it."""


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


class Instances:
    """The instances of every environment. Beats are taken from any task of one event loop."""

    def __init__(self, pg: Postgres) -> None:
        self._pg = pg
        self._waiting: list[tuple[str, wire.InstanceBeat, asyncio.Future[None]]] = []
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

    async def beat(self, environment: str, beat: wire.InstanceBeat) -> None:
        """Record what an instance says it has applied, and what it acknowledges by that. Returns once that has committed.

        Raises `Unavailable` or `OutcomeUnknown`; a repeat does no harm. The beat has no `faults_of`.
        """
        if len(self._waiting) >= WAITING_MAX:
            raise Unavailable("PostgreSQL", "too many heartbeats are waiting for it")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((environment, beat, done))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush(), name="flagd.instances.flush")
        await done

    async def listing(self, environment: str, after: str = "", limit: int = 1000) -> list[Instance]:
        """Instances by id, `after` excluded."""
        async with self._pg.connection() as connection:
            rows = await connection.fetch(_INSTANCES.listing, environment, LIVE_SECONDS, after, limit)
        return [
            Instance(
                instance=row["id"],
                service=row["service"],
                revision=str(wire.Revision(row["generation"], row["revision"])),
                how=row["how"],
                behind=row["behind"],
                live=row["live"],
                connected=(environment, row["id"]) in self._streams,
                seen_at=row["seen_at"],
                started_at=row["started_at"],
                signed_off_at=row["signed_off_at"],
                sdk_version=row["sdk_version"],
                service_version=row["service_version"],
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

    async def _write(self, batch: Sequence[tuple[str, wire.InstanceBeat, asyncio.Future[None]]]) -> None:
        try:
            rows = _rows([(environment, beat) for environment, beat, _ in batch])
            async with self._pg.transaction() as connection:
                await connection.execute(_INSTANCES.beat, rows)
                await connection.execute(_INSTANCES.acknowledge, rows)
                if gone := _gone([(environment, beat) for environment, beat, _ in batch]):
                    await connection.execute(_INSTANCES.adopted, [one[0] for one in gone], [one[1] for one in gone])
        except BaseException as error:
            for _, _, done in batch:
                if not done.done():
                    done.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            for _, _, done in batch:
                if not done.done():
                    done.set_result(None)


def _gone(beats: Sequence[tuple[str, wire.InstanceBeat]]) -> list[tuple[str, str]]:
    """The instances of which a sibling says that it has delivered all they held."""
    return sorted(
        (environment, name)
        for environment, beat in beats
        for name in beat.adopted[:ADOPTED_MAX]
        if name != beat.instance and name.isprintable() and not beat.journal_open
    )


def _rows(beats: Sequence[tuple[str, wire.InstanceBeat]]) -> list[dict[str, Any]]:
    """One row per instance: of several beats in a batch the newest revision, signed off if any of them says so."""
    newest: dict[tuple[str, str], wire.InstanceBeat] = {}
    for environment, beat in beats:
        held = newest.setdefault((environment, beat.instance), beat)
        best = beat if beat.revision > held.revision else held
        newest[environment, beat.instance] = msgspec.structs.replace(
            best,
            signing_off=beat.signing_off or held.signing_off,
            journal_open=beat.journal_open or held.journal_open,
        )
    return [
        {
            "environment": environment,
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
        }
        for (environment, _), beat in newest.items()
    ]

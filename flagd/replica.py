"""How replicas stay current, and which of several truths they believe.

PostgreSQL tells by LISTEN and is asked every second besides; Redis rings with the change itself. Either alone is enough.
What is newer is believed, from wherever it comes; what is older is repaired (the cache) or said (PostgreSQL, P2). With
PostgreSQL away a replica goes on with what it holds, and learns from the cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct
from rescind import wire

from flagd import loading, store
from flagd.cache import Cache
from flagd.errors import unknown_environment
from flagd.snapshots import HEARTBEAT_SECONDS, Replica, snapshot_of
from runtime.clock import Clock
from runtime.errors import Unavailable
from runtime.listening import listen
from runtime.postgres import Postgres
from runtime.redis import Redis
from runtime.telemetry import counter

__all__ = ["Newest", "Replica", "Replicas"]

POLL_SECONDS = 1.0
RETRY_SECONDS = 0.25
CANCEL_AGAIN_SECONDS = 0.05
CHANNEL = "rescind_revision"

log = logging.getLogger("rescind.flagd.replicas")
survived = counter("rescind.flagd.replica.errors")


class Newest(Struct, frozen=True, kw_only=True):
    """What is known of an environment outside PostgreSQL: the newest revision, and the kills that stand there, by flag."""

    revision: wire.Revision = wire.Revision()
    kills: dict[str, Sequence[wire.Kill]] = {}


class Replicas:
    """The replicas of this process, one per environment that was asked for."""

    def __init__(self, pg: Postgres, redis: Redis, clock: Clock) -> None:
        self._pg = pg
        self.cache = Cache(redis, clock)
        self._clock = clock
        self._held: dict[str, Replica] = {}
        self._loading = asyncio.Lock()
        self._wanted: dict[str, wire.Revision] = {}
        self._unpublished: dict[str, wire.Change] = {}
        self._recovering: set[str] = set()
        self._is_wanted = asyncio.Event()
        self._is_unpublished = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to listen. Nothing has to be there yet: every loop waits for what it needs."""
        loops = (self._listen, self._hear, self._follow, self._publish, self._poll, self._beat)
        self.tasks = [asyncio.create_task(self._survive(loop), name=loop.__name__) for loop in loops]

    def end_streams(self) -> None:
        """End every subscription: what hangs on one ends as it should, and is not cut off."""
        for replica in self._held.values():
            replica.close()

    async def stop(self) -> None:
        """End every subscription and every loop."""
        self.end_streams()
        while pending := [task for task in self.tasks if not task.done()]:
            for task in pending:  # again and again: a Redis client may swallow a cancellation that meets its answer
                task.cancel()
            await asyncio.wait(pending, timeout=CANCEL_AGAIN_SECONDS)
        self.tasks = []

    def held(self, environment: str) -> Replica | None:
        """The replica, if this process has it already: the hot path's look-up."""
        return self._held.get(environment)

    async def get(self, environment: str) -> Replica:
        """The environment's replica. Raises `Problem` 404, or `Unavailable` if nobody can tell its flags."""
        replica = self._held.get(environment)
        if replica is not None:
            return replica
        async with self._loading:
            if environment not in self._held:
                self._held[environment] = await self._load(environment)
            return self._held[environment]

    async def refresh(self, environment: str, at_least: wire.Revision | None = None) -> wire.Revision:
        """Bring the replica to PostgreSQL's revision unless it has `at_least` already. Answers what it holds then.

        Subscribers have the change before this returns; Redis has it a moment later. However many ask at once, they share a
        look at PostgreSQL that began after they asked.
        """
        replica = await self.get(environment)
        asked = replica.look_count
        async with replica.lock:
            is_satisfied = at_least is not None and replica.revision >= at_least and not replica.is_ahead
            if not is_satisfied and replica.looked <= asked:
                replica.look_count += 1
                look = replica.look_count
                await self._catch_up(replica)
                replica.looked = look
        return replica.revision

    async def seen(self, environment: str) -> wire.Revision:
        """The newest revision that this replica or the cache knows of: PostgreSQL must not be older (P2)."""
        replica = self._held.get(environment)
        newest = wire.Revision() if replica is None else replica.revision
        with contextlib.suppress(Unavailable):
            newest = max(newest, await self.cache.revision(environment) or newest)
        return newest

    def newest_held(self, environment: str) -> Newest:
        """What this process's replica holds; nothing where it has none."""
        replica = self._held.get(environment)
        return Newest() if replica is None else _newest_of(replica.snapshot)

    async def newest(self, environment: str) -> Newest:
        """What this process's replica or the cache holds, whichever is newer."""
        held = self.newest_held(environment)
        with contextlib.suppress(Unavailable):
            cached = await self.cache.revision(environment)
            if cached is not None and cached > held.revision:
                snapshot = await self.cache.snapshot(environment)
                return Newest(revision=cached, kills=held.kills) if snapshot is None else _newest_of(snapshot)
        return held

    def ahead(self) -> list[str]:
        """Environments of which PostgreSQL is older than this process has seen them."""
        return [environment for environment, replica in self._held.items() if replica.is_ahead]

    def is_closed(self, environment: str) -> bool:
        """Whether the environment is known to be in recovery, or PostgreSQL to be older than what was seen."""
        replica = self._held.get(environment)
        return environment in self._recovering or (replica is not None and replica.is_ahead)

    async def _load(self, environment: str) -> Replica:
        cached = None
        with contextlib.suppress(Unavailable):
            cached = await self.cache.snapshot(environment)
        try:
            async with self._pg.connection() as connection:
                loaded = await loading.load(connection, environment)
                if loaded is None:
                    raise unknown_environment(environment, await store.heads(connection))
        except Unavailable:
            if cached is None:
                raise
            return Replica(cached)
        if cached is not None and cached.revision > loaded.revision:
            replica = Replica(cached)
            self._note_ahead(replica, loaded.revision)
            return replica
        replica = Replica(snapshot_of(environment, loaded))
        self._offer(replica, replica.bell())
        return replica

    async def _catch_up(self, replica: Replica) -> None:
        since = replica.revision
        async with self._pg.connection() as connection:
            loaded = await loading.load(connection, replica.environment, since)
            if loaded is None or loaded.revision == since:
                return
            if loaded.revision < since:
                self._note_ahead(replica, loaded.revision)
                return
            was_ahead, replica.is_ahead = replica.is_ahead, False
            if loaded.revision.generation == since.generation and not was_ahead and replica.can_take(loaded):
                change = replica.take(loaded)
            else:
                whole = await loading.load(connection, replica.environment)
                moved = whole is not None and await _adopt(replica, snapshot_of(replica.environment, whole))
                change = replica.bell(is_kill=loaded.is_kill) if moved else None
        if change is not None:
            self._offer(replica, change)

    def _note_ahead(self, replica: Replica, held: wire.Revision) -> None:
        if not replica.is_ahead:
            log.error(
                "environment %s: PostgreSQL is at revision %s, %s has been seen: it was restored to an older state; "
                "changes are refused until its generation is raised",
                replica.environment,
                held,
                replica.revision,
            )
        replica.is_ahead = True

    def _offer(self, replica: Replica, change: wire.Change) -> None:
        """Have Redis told. Two changes before it was told are one that follows nothing."""
        is_first = replica.environment not in self._unpublished
        self._unpublished[replica.environment] = change if is_first else replica.bell(is_kill=change.kill)
        self._is_unpublished.set()

    # --- loops ---

    async def _survive(self, loop: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await loop()
            except Unavailable as error:
                log.debug("%s: %s", loop.__name__, error)
            except Exception:
                survived.add(1)
                log.exception("%s goes on", loop.__name__)
            await self._clock.sleep(RETRY_SECONDS)

    async def _listen(self) -> None:
        """PostgreSQL's bell, on a connection of its own until that is lost."""
        await listen(self._pg, {CHANNEL: self._on_notice}, begun=self._want_all)

    def _on_notice(self, payload: str) -> None:
        environment, generation, n = payload.split(" ")
        self._want(environment, wire.Revision(int(generation), int(n)))

    def _want(self, environment: str, revision: wire.Revision) -> None:
        if environment in self._held:
            self._wanted[environment] = max(revision, self._wanted.get(environment, revision))
            self._is_wanted.set()

    def _want_all(self) -> None:
        for replica in self._held.values():
            self._want(replica.environment, wire.Revision(replica.revision.generation, replica.revision.n + 1))

    async def _follow(self) -> None:
        """Fetches what the bells told of."""
        while True:
            await self._is_wanted.wait()
            self._is_wanted.clear()
            wanted, self._wanted = self._wanted, {}
            for environment, revision in wanted.items():
                await self.refresh(environment, revision)

    async def _hear(self) -> None:
        """Redis's bell, which brings the change along."""
        bells = self.cache.bells()
        async with contextlib.aclosing(bells):
            async for change in bells:
                replica = self._held.get(change.environment)
                if replica is not None and not replica.apply(change) and replica.revision < change.revision:
                    self._want(change.environment, change.revision)

    async def _publish(self) -> None:
        while True:
            await self._is_unpublished.wait()
            self._is_unpublished.clear()
            unpublished, self._unpublished = self._unpublished, {}
            for environment, change in unpublished.items():
                await self._store(self._held[environment], change)

    async def _store(self, replica: Replica, change: wire.Change) -> None:
        cached = await self.cache.revision(replica.environment)
        if cached is None or cached < replica.revision:
            bell = change if change.revision == replica.revision else replica.bell(is_kill=change.kill)
            await self.cache.store(replica.environment, replica.revision, replica.encoded, wire.encode(bell))

    async def _beat(self) -> None:
        while True:
            await self._clock.sleep(HEARTBEAT_SECONDS)
            for replica in self._held.values():
                replica.beat()

    async def _poll(self) -> None:
        while True:
            await self.look()
            await self._clock.sleep(POLL_SECONDS)

    async def look(self) -> None:
        """One look at everything: catch up with PostgreSQL, believe a newer cache, repair an older one (P2)."""
        asked_at = self._clock.monotonic()
        before = {environment: replica.revision for environment, replica in self._held.items()}
        cached = await self._cached(before)
        heads = await self._heads()
        for environment, revision in before.items():
            replica = self._held[environment]
            head = None if heads is None else heads.get(environment)
            if head is not None and head < revision:
                self._note_ahead(replica, head)
            elif head is not None and head > replica.revision:
                await self.refresh(environment, head)
            if environment in cached:
                await self._compare(replica, cached[environment])
            newest = cached.get(environment) if head is None else head
            if newest is not None and newest <= replica.revision:
                replica.confirm(asked_at)

    async def _heads(self) -> dict[str, wire.Revision] | None:
        try:
            async with self._pg.connection() as connection:
                self._recovering = await store.recovering(connection)
                return await store.heads(connection)
        except Unavailable:
            return None

    async def _cached(self, environments: dict[str, wire.Revision]) -> dict[str, wire.Revision | None]:
        found = {}
        with contextlib.suppress(Unavailable):
            for environment in environments:
                found[environment] = await self.cache.revision(environment)
        return found

    async def _compare(self, replica: Replica, cached: wire.Revision | None) -> None:
        with contextlib.suppress(Unavailable):
            if cached is None or cached < replica.revision:
                await self._store(replica, replica.bell())
            elif cached > replica.revision:
                snapshot = await self.cache.snapshot(replica.environment)
                if snapshot is not None:
                    await _adopt(replica, snapshot)


async def _adopt(replica: Replica, snapshot: wire.Snapshot) -> bool:
    return replica.adopt(snapshot, await asyncio.to_thread(replica.compiled, snapshot))


def _newest_of(snapshot: wire.Snapshot) -> Newest:
    return Newest(revision=snapshot.revision, kills={key: flag.kills for key, flag in snapshot.flags.items() if flag.kills})

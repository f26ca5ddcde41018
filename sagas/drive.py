"""Drives one rollback from *fenced* to *settled*, from its row alone (P11, P12, P17, P18).

Each round loads the row, asks the core for the one step that is due, and takes it in short transactions that begin with the
lease's fence. Nothing that matters is kept in memory: whoever holds the lease next goes on from the row.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from uuid import UUID

import asyncpg
from asyncpg import Record

from runtime.errors import RuntimeFault
from runtime.queries import Queries
from sagas import settlement
from sagas.claims import reference_of, trial_of
from sagas.core.rollbacks import Phase, Step, next_step, opening
from sagas.decisions import skip_page
from sagas.drain import BARRIER_WAIT_MS
from sagas.enumeration import Rollback
from sagas.leases import LeaseLost
from sagas.outcomes import ended, record
from sagas.passes import Passes
from sagas.tools import Tools

QUERIES = Queries.load("sagas", "coordinator")
ENUMERATION = Queries.load("sagas", "enumeration")
DISPATCH = Queries.load("sagas", "dispatch")
AGAIN_SECONDS = 0.1

log = logging.getLogger("rescind.coordinator")


class Drive:
    """One rollback in the hands of one coordinator."""

    def __init__(self, tools: Tools, rollback_id: UUID, shards: int) -> None:
        self._tools = tools
        self._id = rollback_id
        self._shards = shards
        self._bell = asyncio.Event()
        self._passes = Passes(tools, rollback_id, shards, self._ring_in)
        self._news = 0
        self._weighed: tuple[int, int] | None = None
        self._elsewhere: settlement.Elsewhere = {}
        self._skipped_to: UUID | None = None
        self._stopping = False

    def ring(self) -> None:
        """Something of this rollback changed."""
        self._news += 1
        self._bell.set()

    def stop(self) -> None:
        """End after the step that is being taken: a claim that is committed is carried out."""
        self._stopping = True
        self._bell.set()

    async def run(self) -> None:
        """Go on until the rollback has ended or the lease is lost."""
        while self._tools.leases.trusted(self._shards) and not self._stopping:
            try:
                wait_seconds = await self.round()
            except LeaseLost:
                return
            except (RuntimeFault, asyncpg.PostgresError) as error:
                log.warning("rollback %s: %s: %s", self._id, type(error).__name__, error)
                wait_seconds = AGAIN_SECONDS
            if wait_seconds is None:
                return
            await self._wait(wait_seconds)

    async def _wait(self, seconds: float) -> None:
        if seconds > 0 and not self._stopping:
            try:
                async with asyncio.timeout(seconds):
                    await self._bell.wait()
            except TimeoutError:
                pass
        self._bell.clear()

    async def round(self) -> float | None:
        """One step. Returns how long to wait for the next, or null when there is none."""
        tools = self._tools
        async with tools.pg.connection() as connection:
            row = await connection.fetchrow(QUERIES.present, self._id)
        if row is None:
            return None
        match next_step(_phase(row)):
            case Step.REST:
                return None if row["outcome"] else tools.poll_seconds
            case Step.CLOSE:
                await tools.drain.close(self._id, row["version"], self._shards)
            case Step.DRAIN:
                await tools.drain.drain(self._id, row["version"], self._shards)
            case Step.OPEN:
                way = opening(row["compensate"], row["grace_seconds"], cancelled=row["cancelled_by"] is not None)
                await self._write(QUERIES.open_up, row["version"], way.state, way.outcome)
            case Step.GRACE:
                if row["grace_left_seconds"] > 0:
                    return min(float(row["grace_left_seconds"]), tools.poll_seconds)
                await self._write(QUERIES["pass"], row["version"], "grace", "compensating")
            case Step.COMPENSATE:
                return await self._compensate(row)
        return 0.0

    async def _compensate(self, row: Record) -> float | None:
        rollback = Rollback(
            id=self._id,
            environment=row["environment"],
            reason=row["reason"],
            incident=row["incident"],
        )
        moved = await self._find(row, rollback)
        if moved:
            self._tools.on_due()
        moved |= await self._judge(row, rollback)
        if row["has_running"]:
            moved |= await self._recover(row)
        if row["paused"]:
            moved |= row["state"] != "paused" and await self._pause()
        elif row["has_due"] and row["cancelled_by"] is None:
            begin = self._passes.claim if row["has_declared"] else self._passes.unblock
            moved |= await begin(row, rollback)
            await self._passes.miss_workers()
        if moved:
            return 0.0
        if self._is_quiet(row):
            return await self._settle(row)
        return self._tools.poll_seconds

    async def _find(self, row: Record, rollback: Rollback) -> bool:
        """Late news, the next chunk of the set, the rest to be skipped."""
        moved = False
        enumeration = self._tools.enumeration
        if row["is_unenumerated"]:
            async with self._tools.pg.transaction() as connection:
                await self._tools.leases.fence(connection, self._shards)
                moved = await enumeration.chunk(connection, rollback)
        elif row["enumerated_at"] is None:
            moved = await self._write(ENUMERATION.enumerated, row["version"])
        if row["has_late"]:
            async with self._tools.pg.transaction() as connection:
                await self._tools.leases.fence(connection, self._shards)
                await enumeration.late(connection, rollback)
            moved, self._weighed = True, None
        if row["cancelled_by"] is None:
            self._skipped_to = None
        elif not row["is_unenumerated"]:
            moved |= await self._skip()
        return moved

    async def _skip(self) -> bool:
        async with self._tools.pg.transaction() as connection:
            await self._tools.leases.fence(connection, self._shards)
            reached, changed = await skip_page(connection, self._id, self._skipped_to)
        self._skipped_to = reached
        return reached is not None or changed > 0

    async def _pause(self) -> bool:
        """Paused, once nobody can begin any more who had not heard of it (hazard 15)."""
        async with self._tools.pg.transaction() as connection:
            await self._tools.leases.fence(connection, self._shards)
            await connection.execute(QUERIES.limit_wait, str(BARRIER_WAIT_MS))
            await connection.execute(QUERIES.work_is_over, self._id)
            return await connection.fetchval(QUERIES.pause, self._id) is not None

    async def _judge(self, row: Record, rollback: Rollback) -> bool:
        """Effects whose outcome was open and whose time has come."""
        judge_in = row["judge_in_seconds"]
        if judge_in is None or judge_in > 0 or row["paused"]:
            if judge_in is not None and judge_in > 0:
                self._ring_in(judge_in)
            return False
        dispatcher = self._tools.dispatcher
        async with self._tools.pg.transaction() as connection:
            await self._tools.leases.fence(connection, self._shards)
            look_ups, judged = await self._tools.enumeration.undetermined(
                connection, rollback, dispatcher.busy(), dispatcher.free
            )
        for look_up in look_ups:
            dispatcher.look_up(look_up, rollback, self._shards)
        return judged > 0

    async def _recover(self, row: Record) -> bool:
        """Attempts that were begun by someone who is gone: again under the same key, or to a person (P13)."""
        tools = self._tools
        async with tools.pg.transaction() as connection:
            await tools.leases.fence(connection, self._shards)
            rows = await connection.fetch(DISPATCH.interrupted, row["environment"], self._id, tools.dispatcher.busy())
            lost = []
            for each in rows:
                rules = await tools.catalogue.rules(connection, reference_of(each))
                if rules is not None:
                    trial = trial_of(each, rules)
                    chance = tools.entropy.random()
                    lost.append(ended(each["id"], each["token"], each["attempt"], trial, rules, None, chance=chance))
            if lost:
                await record(connection, lost)
        return bool(lost)

    def _is_quiet(self, row: Record) -> bool:
        return not (
            row["has_due"]
            or row["has_running"]
            or row["has_late"]
            or row["is_unenumerated"]
            or row["enumerated_at"] is None
            or row["judge_in_seconds"] is not None
        )

    async def _settle(self, row: Record) -> float | None:
        """Count; then settled, or waiting for people or for records that instances may hold, or look at what is missing."""
        tools = self._tools
        if row["state"] == "settled" or row["carries"] == "instances":
            return None
        news = self._news
        if row["state"] == "paused" or await self._is_weighed(row["version"]):
            return tools.poll_seconds
        async with tools.pg.connection() as connection:
            found = await settlement.sums(connection, self._id)
        if found.adds_up and row["is_held_open"]:
            await self._rest(row, news)
            return tools.poll_seconds
        if found.adds_up or found.missing:
            async with tools.pg.transaction() as connection:
                await tools.leases.fence(connection, self._shards)
                if found.adds_up:
                    return None if await settlement.settle(connection, self._id, row["version"], found) else 0.0
                log.error("rollback %s: %d effects of the set have no disposition", self._id, found.missing_count)
                await settlement.look_again(connection, self._id, found.missing)
                return 0.0
        if found.extra_count:
            log.error("rollback %s: %d effects were undone that are not in the set", self._id, found.extra_count)
        if found.total("waiting") + found.total("pending") and not await self._moves():
            await self._rest(row, news)
        else:
            await self._write(QUERIES["pass"], row["version"], "waiting", "compensating")
        return tools.poll_seconds

    async def _is_weighed(self, version: int) -> bool:
        """Whether nothing has come since it was seen to rest: neither here nor where another rollback undoes some of it."""
        if self._weighed != (version, self._news):
            return False
        async with self._tools.pg.connection() as connection:
            return not await settlement.has_changed(connection, self._elsewhere)

    async def _moves(self) -> bool:
        async with self._tools.pg.transaction() as connection:
            await connection.execute(DISPATCH.prefer_indexes)
            self._elsewhere = await settlement.elsewhere(connection, self._id)
            return await settlement.moves(connection, self._id)

    async def _rest(self, row: Record, news: int) -> None:
        """Nothing of it moves by itself any more, until something is heard of."""
        await self._write(QUERIES["pass"], row["version"], "compensating", "waiting")
        self._weighed = (row["version"], news)

    async def _write(self, query: str, *arguments: Any) -> bool:
        """One fenced statement on the rollback's row. Returns whether it still was what it was."""
        async with self._tools.pg.transaction() as connection:
            await self._tools.leases.fence(connection, self._shards)
            return await connection.fetchval(query, self._id, *arguments) is not None

    def _ring_in(self, seconds: float) -> None:
        if seconds < self._tools.poll_seconds:
            asyncio.get_running_loop().call_later(seconds, self._bell.set)


def _phase(row: Record) -> Phase:
    return Phase(
        state=row["state"],
        is_closed=row["closed_at"] is not None,
        is_drained=row["drained_at"] is not None,
        flags_unclosed=row["flags_unclosed"],
        ended=row["outcome"] is not None,
    )

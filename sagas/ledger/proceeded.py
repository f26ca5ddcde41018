"""Effects that were begun without the server, brought to the ledger: always taken, also after a kill (P9, P10, P11).

Each is one transaction under the locks of its flag, of what its key says and of its saga instance, as a report is: the drain
barrier has passed, or the set of the kill is told of it. They are rare, and come in the order in which they were done.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec
from asyncpg import Connection
from rescind.wire import ReportResult

from runtime.postgres import transaction_on
from sagas import store, store_reports
from sagas.core import proceeded
from sagas.core.admission import Fence
from sagas.core.effects import News
from sagas.core.proceeded import Place, Proceeded, Way
from sagas.core.twins import second_id
from sagas.ledger.groups import DEFERRED, Deferred
from sagas.ledger.reports import Reports
from sagas.store import FlagName, KeyName

Answer = ReportResult | Deferred


def key_of(told: Proceeded) -> KeyName:
    """The key's name."""
    return told.ask.environment, told.ask.kind, told.ask.key


class Proceedings:
    """Takes in what instances did by themselves, on a connection."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    async def flush(self, connection: Connection, group: Sequence[Proceeded]) -> list[Answer]:
        """One answer per effect, keys pairwise different."""
        return [await self._take(connection, told) for told in group]

    async def _take(self, connection: Connection, told: Proceeded) -> Answer:
        flags = await self._flags(connection, told)
        fences = await store.fences(connection, flags)
        if (told.ask.environment, told.ask.flag) not in fences:
            return _unknown_flag(told)
        async with transaction_on(connection, store.locking(fence.lock_key for fence in fences.values())):
            await store.lock_keys(connection, [key_of(told)])
            if not await self._flags(connection, told) <= flags:
                return DEFERRED  # its saga instance has come under another flag: again, with that one's lock
            fences = await store.fences(connection, flags)
            return await self._write(connection, told, fences[told.ask.environment, told.ask.flag])

    async def _flags(self, connection: Connection, told: Proceeded) -> set[FlagName]:
        """The flags whose locks it needs (hazard 3)."""
        ask = told.ask
        recorded = await store.keys(connection, [key_of(told)])
        flags = {(ask.environment, ask.flag)} | {(ask.environment, one.flag) for one in recorded.values()}
        if ask.saga and ask.saga_instance:
            siblings = await store.siblings(connection, [(ask.environment, ask.saga, ask.saga_instance)])
            flags |= {(ask.environment, one.flag) for ones in siblings.values() for one in ones}
        return flags

    async def _write(self, connection: Connection, told: Proceeded, fence: Fence) -> Answer:
        recorded = (await store.keys(connection, [key_of(told)])).get(key_of(told))
        name, token = told.report.effect_id, told.report.token
        wanted = {name, second_id(name, token)} | ({recorded.effect_id} if recorded else set())
        found = await store_reports.reported(connection, sorted(wanted))
        known = {
            one: frozenset({row.recorded.token, *(UUID(text) for text in row.attempts)})
            for one, row in found.items()
        }  # fmt: skip
        epoch = proceeded.epoch_of(told.epoch, fence)
        at = proceeded.place(told, recorded, known, epoch)
        match at.way:
            case Way.NOTHING:
                return ReportResult(outcome="recorded")
            case Way.ATTEMPT:
                await store_reports.proceed_again(connection, at.effect_id, token, told.ago_seconds)
            case Way.FIRST | Way.NEXT | Way.BESIDE:
                is_off = told.ask.variant is not None and told.ask.variant == fence.off_variant
                generation = 1 if recorded is None else recorded.generation + (at.way is Way.NEXT)
                await store_reports.proceed(
                    connection, told, at, is_off=is_off, epoch=epoch, generation=generation, takes_key=at.way is not Way.BESIDE
                )
        return await self._conclude(connection, told, at)

    async def _conclude(self, connection: Connection, told: Proceeded, at: Place) -> Answer:
        """What became of it, as any report; and whoever undoes such effects looks, also where that had settled (P11)."""
        report = msgspec.structs.replace(told.report, effect_id=at.effect_id)
        places = await store_reports.places(connection, [at.effect_id])
        [answer] = await self._reports.record(connection, [report], places)
        if at.way in (Way.FIRST, Way.NEXT, Way.BESIDE):
            await store_reports.ended(connection, at.effect_id, report.token, told.ended_ago_seconds)
        touched = at.way is not Way.REPORT and told.happened and await store_reports.arm(connection, [at.effect_id])
        if touched and isinstance(answer, ReportResult) and report.news is not News.FAILED:
            return msgspec.structs.replace(answer, outcome="killed")
        return answer


def _unknown_flag(told: Proceeded) -> ReportResult:
    detail = f"there is no flag {told.ask.flag!r} in {told.ask.environment!r}"
    return ReportResult(outcome="invalid", error={"code": "unknown_flag", "detail": detail, "pointer": "/request/flag"})

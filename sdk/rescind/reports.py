"""Outcomes on their way to the ledger: batched, durable before the caller goes on, and never lost (P11).

An outcome that the server does not take at once is written to the journal, synced, and delivered later: by this process
for as long as it lives, else by whoever adopts the journal.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from rescind.batcher import Batcher, Ticket
from rescind.clock import Clock
from rescind.errors import ApiError, ClientClosed, Unreachable
from rescind.held import Held, sendable, size_of
from rescind.transport import AsyncApi
from rescind.wire import EffectReport, ReportAnswer, ReportResult

logger = logging.getLogger("rescind.effects")

REPORT_SECONDS = 3.0


class Batch(msgspec.Struct, frozen=True):
    """The body of a request, as `wire.ReportRequest` is read by the server."""

    reports: list[EffectReport]
    instance: str


class Outgoing:
    """An outcome on its way."""

    __slots__ = ("reason", "report", "ticket")

    def __init__(self, report: EffectReport, ticket: Ticket[EffectReport, ReportResult] | None, reason: str = "") -> None:
        self.report = report
        self.ticket = ticket
        self.reason = reason
        """Why the server has not got it."""


class Reports:
    """Delivers the outcomes of one instance."""

    def __init__(self, api: AsyncApi, clock: Clock, instance: str) -> None:
        self._api = api
        self._instance = instance
        self._batcher: Batcher[EffectReport, ReportResult] = Batcher(self._send, size_of)
        self._notes: set[asyncio.Task[None]] = set()
        self.held = Held(self._send, clock)

    def submit(self, report: EffectReport) -> Outgoing:
        """Send an outcome on its way; `deliver` sees to it that it arrives."""
        report = sendable(report)
        try:
            return Outgoing(report, self._batcher.submit(report, REPORT_SECONDS))
        except (Unreachable, ClientClosed) as error:
            return Outgoing(report, None, str(error))

    async def deliver(self, outgoing: Outgoing) -> None:
        """Return once the server or the journal has the outcome. Whoever is cancelled here has another call this again."""
        report, ticket = outgoing.report, outgoing.ticket
        if ticket is not None:
            if ticket.future.cancelled():
                ticket.take_over()
            try:
                await self.held.check(report, await ticket.future)
                return
            except (Unreachable, ApiError, ClientClosed, TimeoutError) as error:
                outgoing.reason = str(error) or f"no answer in {REPORT_SECONDS:.0f} s"
        logger.warning("outcome of effect %s is held: %s", report.effect_id, outgoing.reason)
        await self.held.hold(report)

    def tell(self, report: EffectReport) -> None:
        """News of a body that is worth one attempt: given back, extended."""
        task = asyncio.ensure_future(self.say(report))
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    async def close(self) -> None:
        """Let what is under way arrive. The journal keeps the rest."""
        await asyncio.gather(*self._notes, return_exceptions=True)
        await self._batcher.close()

    async def abandon(self) -> None:
        """Stop waiting for answers: those who wait fall back to the journal."""
        self._batcher.abandon()
        await self.held.close()

    async def say(self, report: EffectReport) -> None:
        """The same, awaited."""
        try:
            await self._batcher.submit(report, REPORT_SECONDS).future
        except (Unreachable, ApiError, ClientClosed, TimeoutError) as error:
            logger.debug("news of effect %s did not arrive: %s", report.effect_id, error)

    async def _send(self, reports: list[EffectReport]) -> list[ReportResult]:
        request = Batch(reports, self._instance)
        path = self._api.within("/effects:report")
        answer = await self._api.repeatable(path, request, ReportAnswer, timeout_seconds=REPORT_SECONDS)
        if len(answer.results) != len(reports):
            raise Unreachable(f"{len(answer.results)} results for {len(reports)} reports")
        return answer.results

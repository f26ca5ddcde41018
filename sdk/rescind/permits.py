"""From an effect that is wanted to a permission to begin, and back with its outcome (P8, P9, P10)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from rescind.admission import ADMISSION_SECONDS, Admission, Asking, refusal
from rescind.bodies import Bodies, Permission
from rescind.clock import Clock
from rescind.context import Evaluates, Pin, RequestContext
from rescind.current import NOTHING, Current
from rescind.errors import ApiError, ClientClosed, EffectError, EffectKilled, RescindError, Unreachable
from rescind.notify import Notifier
from rescind.proceeding import Proceeding
from rescind.reports import Outgoing, Reports
from rescind.stale import OffVariants
from rescind.stream import REPLY, Follower
from rescind.wire import AdmitResult, EffectReport, EffectRequest, ProceededEffect, Revision

START_WINDOW_MS = 2000
LEARN_KILL_SECONDS = 1.0
AWAY = (500, 502, 503, 504)
RECOVERY = "in_recovery"
"""The server has closed admission: that is a refusal."""


class Granted(Struct, frozen=True, kw_only=True):
    """An answer under which a body may be entered: replayed (no permission), or admitted."""

    request: EffectRequest
    result: AdmitResult
    permission: Permission | None


class Served(Struct, frozen=True, kw_only=True):
    """The evaluation that an effect belongs to."""

    variant: str | None
    revision: Revision
    attributes: dict[str, Any]


class Permits:
    """Everything between an effect's context manager and the ledger. Its coroutines run on the core's loop."""

    def __init__(
        self,
        *,
        current: Current,
        context: RequestContext,
        admission: Admission,
        reports: Reports,
        bodies: Bodies,
        follower: Follower,
        notifier: Notifier,
        clock: Clock,
        proceeding: Proceeding,
        named: Callable[[], Awaitable[None]],
        keep: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        """`named` returns once the environment is known; `keep` sees to work that nobody waits for."""
        self._current = current
        self._context = context
        self._admission = admission
        self._reports = reports
        self.bodies = bodies
        self._follower = follower
        self._notifier = notifier
        self._clock = clock
        self._proceeding = proceeding
        self._named = named
        self._keep = keep
        self._closed = False

    def go_through(self, admission: Admission, reports: Reports) -> None:
        """Ask and tell these from now on: for the tests of services, where there is no server (`rescind.testing`)."""
        self._admission, self._reports = admission, reports

    def served(self, flag: str, variant: str | None, subject: str | None, attributes: Mapping[str, Any] | None) -> Served:
        """The task's or the request's own evaluation of `flag`, else one made now for the subject and the attributes."""
        memory = self._context.recall(flag)
        told = dict(attributes or {})
        if memory is None:
            context: dict[str, Any] = {**({"targetingKey": subject} if subject else {}), **told}
            evaluator = self.choose(flag)
        else:
            evaluator, context = memory.evaluator, dict(memory.context or {})
        if variant is None and evaluator is not None:
            variant = evaluator.evaluate(flag, context, None, "any").variant
        snapshot = self._current.snapshot
        known = snapshot.flags.get(flag) if snapshot else None
        listed = {name: context[name] for name in known.effect_attributes if name in context} if known else {}
        revision = evaluator.revision if evaluator is not None else NOTHING
        return Served(variant=variant, revision=revision, attributes={**listed, **told})

    def choose(self, flag: str) -> Evaluates | None:
        """The evaluator for `flag`: the request's, unless it has ended or a kill came that overrides it (P4)."""
        pin = self._context.pin.get()
        if pin is None:
            return self._current.evaluator
        pinned = pin.evaluator
        if pinned is None or self._current.overrides(flag, pin.revision):
            return self._latest(pin)
        return pinned

    def _latest(self, pin: Pin) -> Evaluates | None:
        """What is current, or off variants where that is older than what the request has seen (P3)."""
        evaluator = self._current.evaluator
        if evaluator is None:
            return None
        if evaluator.revision < pin.seen:
            return OffVariants(evaluator)
        pin.seen = max(pin.seen, evaluator.revision)
        return evaluator

    async def permit(self, request: EffectRequest, give_back: Permission | None) -> Granted:
        """Ask for permission. Raises the refusals; an answer that comes after the caller has gone is given back."""
        if self._closed:
            raise ClientClosed("the client was closed")
        if give_back is not None:
            await self.give_back(give_back)
        asking = Asking(request)
        try:
            return await self._permit(asking)
        except asyncio.CancelledError:
            if self._admission.leave(asking):
                self._keep(self._return_late(asking))
            raise

    async def conclude(self, permission: Permission, report: EffectReport) -> None:
        """Bring a body's outcome to the ledger, or to the journal; it goes on its way when the caller is cancelled."""
        permission.extend_at = float("inf")
        if permission.record is not None:
            await asyncio.shield(self._keep(self._conclude_record(permission, permission.record, report)))
            return
        self._learn_outcome(permission, report)
        outgoing = self._reports.submit(report)
        try:
            await self._reports.deliver(outgoing)
        except asyncio.CancelledError:
            self._keep(self._conclude_late(permission, outgoing))
            raise
        self.bodies.end(permission)

    async def give_back(self, permission: Permission) -> None:
        """Say that the body did not begin."""
        effect_id, token = permission.effect_id, permission.token
        if permission.record is not None:
            await asyncio.shield(self._keep(self._proceeding.end(permission.record, "not_started")))
            return
        if permission.request is not None:
            self._proceeding.memory.end(permission.request, effect_id, "not_started")
        await self._reports.say(EffectReport(effect_id=effect_id, token=token, outcome="not_started"))

    async def close(self) -> None:
        """Admit nothing more, and let what was asked be answered."""
        self._closed = True
        await self._admission.close()

    def abandon(self) -> None:
        """Whoever still waits for a permission gets `ClientClosed`."""
        self._closed = True
        self._admission.abandon()

    async def _permit(self, asking: Asking) -> Granted:
        if not self._proceeding.allows(asking.request.flag):
            return await self._admitted(asking, ADMISSION_SECONDS)
        asking.request = msgspec.structs.replace(asking.request, by_key=True)
        try:
            granted = await self._admitted(asking, self._proceeding.patience_seconds(), once=self._proceeding.is_away)
        except Unreachable as error:
            if not means_away(error):
                raise
            self._proceeding.is_away = True
            return await self._proceed(asking.request, error)
        self._proceeding.is_away = False
        self._remember(granted)
        return granted

    async def _proceed(self, request: EffectRequest, why: Unreachable) -> Granted:
        """Go on without the server, with a line in the journal. Raises the refusals that are known without it."""
        if (known := self._proceeding.known(request)) is not None:
            result = AdmitResult(outcome="replayed", effect_id=known.effect_id, attempt=known.attempt, result=known.result)
            return Granted(request=request, result=result, permission=None)
        is_off = self._is_off(request)
        record = await self._proceeding.begin(request, is_off, why)
        known = self._proceeding.memory.recall(request)
        result = AdmitResult(
            outcome="admitted", effect_id=record.effect_id, epoch=record.epoch, attempt=known.attempt if known else 1
        )
        permission = Permission(
            effect_id=record.effect_id,
            token=request.token or "",
            flag=request.flag,
            epoch=record.epoch,
            is_off=is_off,
            attributes=request.attributes,
            expires=self._clock.monotonic() + START_WINDOW_MS / 1000,
            lease_seconds=float("inf"),
            record=record,
        )
        return Granted(request=request, result=result, permission=permission)

    async def _conclude_record(self, permission: Permission, record: ProceededEffect, report: EffectReport) -> None:
        try:
            await self._proceeding.report(record, report)
        finally:
            self.bodies.end(permission)

    def _remember(self, granted: Granted) -> None:
        """What the server said of the key, for the time when it is away."""
        result, memory = granted.result, self._proceeding.memory
        if granted.permission is None:
            memory.end(granted.request, result.effect_id or "", "succeeded", result.result)
            return
        memory.begin(granted.request, granted.permission.effect_id, result.attempt or 1)
        granted.permission.request = granted.request

    def _learn_outcome(self, permission: Permission, report: EffectReport) -> None:
        if permission.request is not None:
            self._proceeding.memory.end(permission.request, permission.effect_id, report.outcome, report.result)

    async def _admitted(self, asking: Asking, seconds: float, *, once: bool = False) -> Granted:
        request = asking.request
        await self._named()
        result = await self._admission.ask(asking, seconds, once=once)
        if result.outcome == "replayed":
            return Granted(request=request, result=result, permission=None)
        if result.outcome != "admitted" or not result.effect_id:
            error = refusal(request, result)
            if isinstance(error, EffectKilled):
                await self._learn_kill(error, result)
            raise error
        window_ms = START_WINDOW_MS if result.start_within_ms is None else result.start_within_ms
        expires = (asking.asked_at or 0.0) + (window_ms + (result.held_ms or 0)) / 1000
        permission = Permission(
            effect_id=result.effect_id,
            token=result.token or request.token or "",
            flag=request.flag,
            epoch=result.epoch or 0,
            is_off=self._is_off(request),
            attributes=request.attributes,
            expires=expires,
            lease_seconds=request.lease_seconds,
        )
        return Granted(request=request, result=result, permission=permission)

    async def _conclude_late(self, permission: Permission, outgoing: Outgoing) -> None:
        try:
            await self._reports.deliver(outgoing)
        finally:
            self.bodies.end(permission)

    async def _return_late(self, asking: Asking) -> None:
        try:
            granted = await self._admitted(asking, ADMISSION_SECONDS)
        except RescindError:
            return
        if granted.permission is not None:
            await self.give_back(granted.permission)

    async def _learn_kill(self, error: EffectError, result: AdmitResult) -> None:
        """The fence knows a kill that the stream has not brought: serve the off variant before the caller asks again."""
        flag = error.flag
        if flag in self._current.killed:
            return
        fetched = None
        try:
            async with asyncio.timeout(LEARN_KILL_SECONDS):
                fetched = await self._follower.fetch(how=REPLY)
        except TimeoutError:
            pass
        behind = fetched is None or self._current.epoch(flag) < (result.epoch or 0)
        if behind and self._current.contain(flag, error.off_variant, error.rollback_id or ""):
            self._notifier.changed([flag], self._current)

    def _is_off(self, request: EffectRequest) -> bool:
        snapshot = self._current.snapshot
        known = snapshot.flags.get(request.flag) if snapshot else None
        return known is not None and request.variant == known.off_variant


def means_away(error: Unreachable) -> bool:
    """Whether the server could not be reached, or what it needs could not: whoever is told to wait has been answered."""
    cause = error.__cause__
    return not isinstance(cause, ApiError) or (cause.status in AWAY and cause.code != RECOVERY)

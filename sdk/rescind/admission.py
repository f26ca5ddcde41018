"""Asking for permission to act: batched, repeated under the same token while the server is away (P8, P9, P10)."""

from __future__ import annotations

import asyncio

import msgspec

from rescind.batcher import Batcher, Ticket
from rescind.clock import Clock, full_jitter_seconds
from rescind.errors import (
    ApiError,
    EffectCompensated,
    EffectConflict,
    EffectError,
    EffectInProgress,
    EffectKilled,
    EffectRefused,
    EffectTombstoned,
    Unreachable,
)
from rescind.transport import AsyncApi
from rescind.wire import AdmitAnswer, AdmitResult, EffectRequest

ADMISSION_SECONDS = 5.0
REQUEST_SECONDS = 3.0
RETRY_BASE_SECONDS = 0.1
RETRY_CAP_SECONDS = 1.0

REFUSALS: dict[str, type[EffectError]] = {
    "in_progress": EffectInProgress,
    "killed": EffectKilled,
    "conflict": EffectConflict,
    "compensated": EffectCompensated,
    "tombstoned": EffectTombstoned,
    "unknown_flag": EffectRefused,
    "invalid": EffectRefused,
}


class Asking:
    """One effect that asks, and when it first did: its start window counts from before that, also for a repeat."""

    __slots__ = ("asked_at", "request", "ticket")

    def __init__(self, request: EffectRequest) -> None:
        self.request = request
        self.asked_at: float | None = None
        self.ticket: Ticket[Asking, AdmitResult] | None = None
        """What is under way."""


class Batch(msgspec.Struct, frozen=True):
    """The body of a request, as `wire.AdmitRequest` is read by the server."""

    effects: list[EffectRequest]
    instance: str


class Admission:
    """Asks for the effects of one instance."""

    def __init__(self, api: AsyncApi, clock: Clock, instance: str) -> None:
        self._api = api
        self._clock = clock
        self._instance = instance
        self._batcher: Batcher[Asking, AdmitResult] = Batcher(self._send, size_of)

    async def ask(self, asking: Asking, seconds: float = ADMISSION_SECONDS, *, once: bool = False) -> AdmitResult:
        """The ledger's answer. Raises `Unreachable` after `seconds` without one, or after one try, and `ApiError` for a refusal
        as a whole.

        Every repeat carries the same token, so an answer that was lost costs nothing. Whoever is cancelled here may have
        another call this again, for the same answer.
        """
        deadline = self._clock.monotonic() + seconds
        failures = 0
        while True:
            try:
                if asking.ticket is None:
                    asking.ticket = self._batcher.submit(asking, deadline - self._clock.monotonic())
                return await asking.ticket.future
            except TimeoutError:
                raise Unreachable(f"no answer within {seconds:.1f} s to effect {asking.request.key!r}") from None
            except (Unreachable, ApiError) as error:
                asking.ticket = None
                failures += 1
                wait = full_jitter_seconds(self._clock, failures, base=RETRY_BASE_SECONDS, cap=RETRY_CAP_SECONDS)
                if isinstance(error, ApiError):
                    if not error.passing:
                        raise
                    wait = max(wait, min(error.retry_after_seconds or 0.0, RETRY_CAP_SECONDS))
                if once or self._clock.monotonic() + wait >= deadline:
                    raise Unreachable(f"effect {asking.request.key!r} was not admitted: {error}") from error
            await asyncio.sleep(wait)

    def leave(self, asking: Asking) -> bool:
        """Its caller was cancelled. Whether it was sent: then someone has to `ask` again and give back what is granted."""
        if asking.ticket is not None:
            if not self._batcher.withdraw(asking.ticket):
                asking.ticket.take_over()
                return True
            asking.ticket = None
        return asking.asked_at is not None

    async def close(self) -> None:
        """Let what was asked be answered."""
        await self._batcher.close()

    def abandon(self) -> None:
        """Whoever still waits gets `ClientClosed`."""
        self._batcher.abandon()

    async def _send(self, askings: list[Asking]) -> list[AdmitResult]:
        now = self._clock.monotonic()
        for asking in askings:
            asking.asked_at = now if asking.asked_at is None else asking.asked_at
        body = Batch([asking.request for asking in askings], self._instance)
        path = self._api.within("/effects:admit")
        answer = await self._api.repeatable(path, body, AdmitAnswer, timeout_seconds=REQUEST_SECONDS)
        return answer.results


def size_of(asking: Asking) -> int:
    """Its bytes in a request."""
    return len(msgspec.json.encode(asking.request))


def refusal(request: EffectRequest, result: AdmitResult) -> EffectError:
    """The exception that an answer other than admitted and replayed becomes."""
    detail = msgspec.to_builtins(result)
    said = (result.error or {}).get("detail") or result.outcome.replace("_", " ")
    kind = REFUSALS.get(result.outcome, EffectRefused)
    return kind(said, kind=request.kind, key=request.key, flag=request.flag, detail=detail)

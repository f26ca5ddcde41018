"""Side effects that a kill can undo: admitted before the body, reported after it (P8, P9, P10).

    async with client.effect("payment.capture", flag="checkout.new-flow", key=f"capture:{order}",
                             payload={"amount_cents": 1299}) as effect:
        if not effect.replayed:
            effect.result = await payments.capture(..., idempotency_key=effect.provider_key)

The same object is a plain context manager for synchronous code. A body that returns is reported as succeeded with its
result, before the caller goes on; an exception or a cancellation leaves the effect in doubt; only `NotDone`, or an error
that the step's definition lists as proof, says that it did not happen.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any

import msgspec
from msgspec import Struct

from rescind.bodies import Begin, Permission
from rescind.core import Core
from rescind.errors import ConfigurationError, EffectKilled, NotDone, Unreachable
from rescind.face import Face
from rescind.permits import Granted
from rescind.pulse import beat
from rescind.wire import EffectReport, EffectRequest, SagaReference

logger = logging.getLogger("rescind.effects")

STARTS_MAX = 5
LEASE_SECONDS = 30.0
ERROR_LENGTH_MAX = 500

Saga = tuple[str, str, str] | SagaReference


class Effect(Struct, kw_only=True):
    """What a body, or a compensation's handler, is told of its effect. Set `result` to what undoing it will need."""

    id: str
    kind: str
    key: str
    flag: str
    payload: dict[str, Any]
    variant: str | None = None
    epoch: int = 0
    attempt: int = 1
    subject: str | None = None
    replayed: bool = False
    """It was done before: `result` is what was recorded then, and the body must not do it again."""
    result: Any = None
    action_key: str | None = None
    """In a compensation: hand it to the provider as the idempotency key of undoing it (P13)."""

    @property
    def provider_key(self) -> str:
        """The idempotency key for the provider: the effect's own name, the same in every attempt."""
        return self.id

    def heartbeat(self) -> None:
        """The body lives. One whose step names a `heartbeat_timeout_seconds` says so at least twice in that time, from wherever
        it runs; for another it is nothing."""
        beat()


_acting: ContextVar[Effect | None] = ContextVar("rescind.effect", default=None)


def current_effect() -> Effect:
    """The effect that this step acts or undoes. Raises `ConfigurationError` outside of a function that a worker called."""
    effect = _acting.get()
    if effect is None:
        raise ConfigurationError("there is an effect only in a step or a compensation that a worker carries out")
    return effect


@contextmanager
def entered(effect: Effect) -> Iterator[None]:
    """Make it the current one."""
    token = _acting.set(effect)
    try:
        yield
    finally:
        _acting.reset(token)


class Ask(Struct, frozen=True, kw_only=True):
    """What `client.effect(...)` was called with."""

    kind: str
    flag: str
    key: str
    payload: dict[str, Any]
    saga: SagaReference | None = None
    step: str | None = None
    kind_version: str | None = None
    subject: str | None = None
    attributes: dict[str, Any] | None = None
    variant: str | None = None
    lease_seconds: float | None = None
    """left out: what the step's definition says, else `LEASE_SECONDS`"""


class EffectContext:
    """One effect around one body. Enter it once."""

    def __init__(self, face: Face, ask: Ask) -> None:
        self._face = face
        self._core: Core = face.core
        self._ask = ask
        self._permission: Permission | None = None
        self._effect: Effect | None = None
        self._template: EffectRequest | None = None

    async def __aenter__(self) -> Effect:
        """Raises the refusals of `rescind.errors`, and `Unreachable`."""
        give_back: Permission | None = None
        for _ in range(STARTS_MAX):
            request = self._request()
            granted = await self._face.on_core(self._core.permits.permit(request, give_back))
            if (effect := self._begin(granted)) is not None:
                return effect
            give_back = granted.permission
        raise self._never_began(give_back)

    def __enter__(self) -> Effect:
        """The same for code without an event loop."""
        give_back: Permission | None = None
        for _ in range(STARTS_MAX):
            request = self._request()
            granted = self._face.block_on_core(self._core.permits.permit(request, give_back))
            if (effect := self._begin(granted)) is not None:
                return effect
            give_back = granted.permission
        raise self._never_began(give_back)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if (report := self._report(error)) is None:
            return
        conclusion = self._core.permits.conclude(self._taken(), report)
        if error is None or isinstance(error, Exception):
            await self._face.on_core(conclusion)
        else:  # a cancellation goes on at once; the report follows in the background
            self._face.in_background(conclusion)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if (report := self._report(error)) is None:
            return
        conclusion = self._core.permits.conclude(self._taken(), report)
        if error is None or isinstance(error, Exception):
            self._face.block_on_core(conclusion)
        else:
            self._face.in_background(conclusion)

    def _request(self) -> EffectRequest:
        """The request under a token of its own: repeats of one ask share it, another ask has another."""
        if self._template is None:
            self._template = self._first_request()
            return self._template
        return msgspec.structs.replace(self._template, token=self._core.clock.token())

    def _first_request(self) -> EffectRequest:
        if self._effect is not None:
            raise ConfigurationError("an effect is entered once: call client.effect(...) again")
        ask = self._ask
        served = self._core.permits.served(ask.flag, ask.variant, ask.subject, ask.attributes)
        return EffectRequest(
            key=ask.key,
            kind=ask.kind,
            flag=ask.flag,
            payload=copy_of(ask.payload),
            variant=served.variant,
            revision=str(served.revision),
            attributes=copy_of(served.attributes),
            saga=ask.saga,
            step=ask.step,
            kind_version=ask.kind_version,
            subject=ask.subject,
            lease_seconds=ask.lease_seconds or self._core.registration.lease_seconds(ask.saga, ask.step) or LEASE_SECONDS,
            token=self._core.clock.token(),
        )

    def _begin(self, granted: Granted) -> Effect | None:
        """The effect whose body may begin now, or None where the permission must be given back and asked for again."""
        permission = granted.permission
        if permission is not None:
            verdict, kill = self._core.bodies.begin(permission)
            if verdict is Begin.KILLED:
                self._face.in_background(self._core.permits.give_back(permission))
                raise self._killed(kill.off_variant if kill else None, kill.rollback_id if kill else None)
            if verdict is not Begin.YES:
                return None
            self._permission = permission
        result, request = granted.result, granted.request
        self._effect = Effect(
            id=result.effect_id or "",
            kind=request.kind,
            key=request.key,
            flag=request.flag,
            payload=request.payload,
            variant=request.variant,
            epoch=result.epoch or 0,
            attempt=result.attempt or 1,
            subject=request.subject,
            replayed=permission is None,
            result=result.result,
        )
        return self._effect

    def _report(self, error: BaseException | None) -> EffectReport | None:
        permission, effect = self._permission, self._effect
        if permission is None or effect is None:
            return None
        if error is None:
            return EffectReport(
                effect_id=effect.id, token=permission.token, outcome="succeeded", result=readable(effect.result)
            )
        proven = isinstance(error, NotDone) or self._core.registration.is_proof(self._ask.saga, self._ask.step, error)
        said = {"type": type(error).__name__, "detail": text_of(error)}
        return EffectReport(effect_id=effect.id, token=permission.token, outcome="failed" if proven else "unknown", error=said)

    def _taken(self) -> Permission:
        assert self._permission is not None
        taken, self._permission = self._permission, None
        return taken

    def _killed(self, off_variant: str | None, rollback_id: str | None) -> EffectKilled:
        ask = self._ask
        detail = {"off_variant": off_variant, "rollback_id": rollback_id}
        return EffectKilled("killed before it began", kind=ask.kind, key=ask.key, flag=ask.flag, detail=detail)

    def _never_began(self, permission: Permission | None) -> Unreachable:
        if permission is not None:
            self._face.in_background(self._core.permits.give_back(permission))
        return Unreachable(f"{STARTS_MAX} permissions to begin effect {self._ask.key!r} ran out before its body could begin")


def text_of(error: BaseException) -> str:
    """What it says, not at length, in what can be written as UTF-8."""
    return str(error)[:ERROR_LENGTH_MAX].encode(errors="replace").decode()


def copy_of(values: dict[str, Any]) -> dict[str, Any]:
    """What JSON makes of `values`: what happens to them from here on changes nothing. Raises `TypeError`."""
    copied: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(values)) if values else {}
    return copied


def readable(result: Any) -> Any:
    """`result` as JSON values. What cannot be written as JSON did happen all the same: it is told by its text."""
    try:
        return msgspec.json.decode(msgspec.json.encode(result))
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
        logger.warning("an effect's result cannot be written as JSON: %s", error)
        return {"unreadable": repr(result)[:ERROR_LENGTH_MAX]}


def saga_reference(saga: Saga | None) -> SagaReference | None:
    """The reference in the form of the wire; people write a tuple of name, version and id."""
    match saga:
        case None | SagaReference():
            return saga
        case (name, version, id):
            return SagaReference(name=str(name), version=str(version), id=str(id))
    raise ConfigurationError("saga is (name, version, id)")

"""How an attempt and a look-up end, and what an executor is given: plain data, so that executors know nothing of the
database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct

from sagas.connections import Connection
from sagas.definitions import Compensation


class Done(Struct, frozen=True, kw_only=True):
    """It is done; `proof` is what the other side said."""

    proof: dict[str, Any]


class NotYet(Struct, frozen=True, kw_only=True):
    """Provably not done: to be tried again, after `retry_after_seconds` if the other side said so."""

    error: str
    retry_after_seconds: float | None = None


class Doubt(Struct, frozen=True, kw_only=True):
    """It may have been done or not."""

    evidence: dict[str, Any]


class Refused(Struct, frozen=True, kw_only=True):
    """Provably not done, and trying again would not help: a person decides."""

    reason: str
    evidence: dict[str, Any] = {}


Outcome = Done | NotYet | Doubt | Refused


class Found(Struct, frozen=True, kw_only=True):
    """The provider has done it; `result` is the effect's result as its caller would have recorded it."""

    result: dict[str, Any]


class Absent(Struct, frozen=True, kw_only=True):
    """The provider answered that it knows nothing of it."""


class Unknown(Struct, frozen=True, kw_only=True):
    """The provider could not be asked."""

    error: str


Sighting = Found | Absent | Unknown


class Subject(Struct, frozen=True, kw_only=True):
    """One effect to undo, by value."""

    id: UUID
    kind: str
    key: str
    subject: str | None
    payload: Any
    result: Any
    amount_minor: int | None
    currency: str | None


class Context(Struct, frozen=True, kw_only=True):
    """Everything an executor acts on. It asks `may_act` just before the call that cannot be taken back (hazard 14)."""

    compensation_id: UUID
    action_key: str
    executor: Compensation
    connection: Connection
    effects: list[Subject]
    rollback_id: UUID
    reason: str
    incident: str | None
    attempt: int
    doubtful: bool
    timeout_seconds: float
    may_act: Callable[[], bool]

    def names(self) -> dict[str, Any]:
        """What a template sees: `effect` is the first of `effects`."""
        effects = [
            {"id": str(e.id), "kind": e.kind, "key": e.key, "subject": e.subject, "payload": e.payload, "result": e.result}
            for e in self.effects
        ]
        rollback = {"id": str(self.rollback_id), "reason": self.reason, "incident": self.incident}
        return {"effect": effects[0], "effects": effects, "rollback": rollback}


LOST = NotYet(error="the lease was lost before anything was sent")
EVIDENCE_MAX = 2_000


def told(error: BaseException | str) -> str:
    """An error in words, bounded."""
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return text[:EVIDENCE_MAX]


def plain(value: object) -> str:
    """JSON for PostgreSQL, which takes any text but the character zero."""
    return msgspec.json.encode(value).decode().replace("\\u0000", "")

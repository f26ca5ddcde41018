"""What people ask of a kill and a lift, and how the forms in which they write a point in time are read."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct
from rescind.wire import Revision

from runtime.problem import Fault
from runtime.storable import INTEGER_MAX, instant_faults, is_storable

Reason = Annotated[str, Meta(min_length=1, max_length=4096)]
ScopeValue = str | int | float | bool
REVISION = re.compile(r"\d+\.\d+")
Compensate = Literal["auto", "hold", "none"]
KILL_COUNT_MAX = 2**31 - 1
GRACE_SECONDS_MAX = 7 * 86_400.0


class KillRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST .../flags/{key}/kill`. A kill is never held up by a preview or an approval (P19)."""

    reason: Reason
    incident: Annotated[str, Meta(max_length=256)] | None = None
    compensate: Compensate = "auto"
    grace_seconds: Annotated[float, Meta(ge=0, le=GRACE_SECONDS_MAX)] = 0.0
    scope: Annotated[dict[Annotated[str, Meta(min_length=1, max_length=128)], ScopeValue], Meta(max_length=16)] = {}
    """Attribute equals value, all of them; empty: everyone."""
    since: Revision | str | int | None = None
    """From when on effects are undone: an instant (RFC 3339), or a revision ("1.42", 42). Null: all of them."""
    fault_at: datetime | None = None
    detected_at: datetime | None = None
    decided_at: datetime | None = None


class LiftRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST .../flags/{key}/lift`."""

    reason: Reason
    kill_count: Annotated[int, Meta(ge=1, le=KILL_COUNT_MAX)] | None = None
    """The number of kill requests that the person saw: a kill that came in between wins (hazard 11). Null: whatever stands."""
    force: bool = False
    """Lift although compensations are running. They go on: an effect is undone under the epoch that admitted it."""
    past_gate: bool = False
    """Lift although live instances have not declared a flag that requires it. Needs `admin`."""


class Since(Struct, frozen=True, kw_only=True):
    """The earliest effect a rollback takes: by instant, by revision, or (both null) all."""

    at: datetime | None = None
    revision: Revision | None = None


def faults_of(request: KillRequest) -> list[Fault]:
    """What is wrong with a kill that was read: points in time that cannot be stored, or are none."""
    faults = instant_faults(request)
    try:
        since_of(request.since)
    except ValueError as error:
        faults.append(Fault(pointer="/since", detail=str(error)))
    return faults


def since_of(value: Revision | str | int | None) -> Since:
    """Read a point in time. Raises `ValueError` with a sentence for people.

    >>> since_of("1.42").revision
    Revision(generation=1, n=42)
    """
    match value:
        case None:
            return Since()
        case Revision() | int():
            return Since(revision=_in_range(Revision.of(value)))
        case str():
            return _since_of_text(value.strip())


def _since_of_text(text: str) -> Since:
    if text.isdecimal():
        return Since(revision=_in_range(Revision.parse(f"1.{text}")))
    if REVISION.fullmatch(text):
        return Since(revision=_in_range(Revision.parse(text)))
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is neither an instant (RFC 3339) nor a revision (1.42)") from None
    if not is_storable(at):
        raise ValueError(f"{text[:40]!r} is out of range")
    return Since(at=at if at.tzinfo else at.replace(tzinfo=UTC))


def _in_range(revision: Revision) -> Revision:
    if not (0 <= revision.generation <= INTEGER_MAX and 0 <= revision.n <= INTEGER_MAX):
        raise ValueError(f"revision {str(revision)[:80]} is out of range")
    return revision

"""Scheduled changes: `/v1/environments/{environment}/schedules`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from litestar import Controller, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from rescind import wire

from flagd.core import documents
from flagd.errors import refused, unknown_schedule
from flagd.http.bodies import AnyRequest, answer, read_ending, read_object, schedule_body
from flagd.http.flags import READ, WRITE
from flagd.http.gate import require_any
from flagd.schedules import Schedules
from flagd.service import FlagService
from runtime.storable import is_storable
from runtime.tokens import Principal

LIMIT_MAX = 500
STATES = ("waiting", "applied", "refused", "cancelled")


class ScheduleController(Controller):
    """Changes that are applied later."""

    path = "/v1/environments/{environment:str}/schedules"
    tags = ["flags"]

    @post("/", status_code=201, summary="Schedule a change")
    async def create(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        schedules: NamedDependency[Schedules],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """`{"at": T | "in_seconds": N, "operations": [...], "reason": "..."}`: applied then as one revision, as `/changes` is.

        Kills are carried out as they are at once, with the author's right to kill by then. A lift cannot be scheduled. What was
        edited by hand meanwhile is not overwritten: the change is refused, and says so.
        """
        require_any(principal, WRITE, environment)
        body = await read_object(request)
        faults = documents.unknown_fields(body, dict.fromkeys(("at", "in_seconds", "operations", "reason")), "")
        reason, wrong = documents.read_reason(body)
        at, seconds, unread = read_instant(body)
        made = await schedules.create(
            environment, body.get("operations"), at=at, in_seconds=seconds, principal=principal, reason=reason,
            faults=[*faults, *wrong, *unread],
        )  # fmt: skip
        return answer(request, schedule_body(made), 201)

    @get("/", summary="List scheduled changes")
    async def listing(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        service: NamedDependency[FlagService],
        schedules: NamedDependency[Schedules],
        principal: NamedDependency[Principal],
        flag: FromQuery[str | None] = None,
        status: FromQuery[str | None] = None,
        limit: FromQuery[int] = 100,
        after: FromQuery[str | None] = None,
    ) -> Response[bytes]:
        """The newest first, `?flag=`, `?status=waiting|applied|refused|cancelled`, `?limit=&after=` a page."""
        require_any(principal, READ, environment)
        if status is not None and status not in STATES:
            detail = f"`status` is one of {', '.join(STATES)}"
            raise refused([wire.Fault(pointer="/status", code="wrong_type", detail=detail)])
        await service.expect(environment)
        size, asked = max(1, min(limit, LIMIT_MAX)), None if flag is None else flag.replace("\0", "")
        before = None if after is None else _identity(after)
        found = await schedules.listing(environment, flag=asked, state=status, before=before, limit=size)
        following = str(found[-1].id) if len(found) == size else None
        return answer(request, {"schedules": [schedule_body(one) for one in found], "next": following})

    @get("/{identity:str}", summary="Get a scheduled change")
    async def one(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        identity: FromPath[str],
        schedules: NamedDependency[Schedules],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """What it will change, or what became of it: its revision, or the faults for which it was refused."""
        require_any(principal, READ, environment)
        return answer(request, schedule_body(await schedules.get(environment, _identity(identity))))

    @delete("/{identity:str}", status_code=200, summary="Cancel a scheduled change")
    async def cancel(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        identity: FromPath[str],
        schedules: NamedDependency[Schedules],
        principal: NamedDependency[Principal],
        reason: FromQuery[str | None] = None,
    ) -> Response[bytes]:
        """It will not be applied. 409 where it was decided before."""
        require_any(principal, WRITE, environment)
        ending = await read_ending(request, reason)
        ended = await schedules.cancel(environment, _identity(identity), actor=principal.name, reason=ending.reason)
        return answer(request, schedule_body(ended))


def read_instant(body: Mapping[str, Any]) -> tuple[datetime | None, float | None, list[wire.Fault]]:
    """`at`, an instant with its offset, or `in_seconds`; and what is wrong with them."""
    at, seconds = body.get("at"), body.get("in_seconds")
    if (at is None) == (seconds is None):
        return None, None, [wire.Fault(pointer="/at", code="missing", detail="give `at` or `in_seconds`, one of them")]
    if seconds is not None:
        if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds <= 10**9:
            return None, float(seconds), []
        return None, None, [wire.Fault(pointer="/in_seconds", code="wrong_type", detail="`in_seconds` is a number, 0 or more")]
    instant = _instant(at)
    if instant is None or not is_storable(instant):
        detail = "`at` is an instant with its offset (RFC 3339), not before 1970: 2026-11-24T09:00:00Z"
        return None, None, [wire.Fault(pointer="/at", code="wrong_type", detail=detail)]
    return instant, None, []


def _instant(at: Any) -> datetime | None:
    """In UTC; None for what is no instant, or none that UTC can say."""
    try:
        instant = msgspec.convert(at, type=datetime)
        return None if instant.tzinfo is None else instant.astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        return None


def _identity(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise unknown_schedule(text) from None

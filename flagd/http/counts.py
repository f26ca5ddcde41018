"""Counts: what SDKs send, `/v1/environments/{environment}/counts`, and what became of it, `/flags/{key}/counts`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from rescind import wire

from flagd.core import counting
from flagd.core.counting import WINDOW_SECONDS
from flagd.counts import COUNT, KEEP_SECONDS, Counts
from flagd.errors import refused
from flagd.http.bodies import AnyRequest, answer, read
from flagd.http.flags import READ, flag_key
from flagd.http.gate import require_any
from flagd.replica import Replicas
from flagd.service import FlagService
from runtime.clock import Clock
from runtime.tokens import Principal

SINCE_SECONDS = 600
"""How far back is looked where nobody says it."""
WINDOWS_MAX = 1_000


class CountsController(Controller):
    """Evaluations and outcomes, summed."""

    path = "/v1/environments/{environment:str}"
    tags = ["counts"]

    @post("/counts", status_code=200, summary="Counts of an instance")
    async def take(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        counts: NamedDependency[Counts],
        replicas: NamedDependency[Replicas],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """What one process counted, by windows. Needs the scope `evaluate`. A repeat, known by `sequence`, is counted once."""
        require_any(principal, (COUNT,), environment)
        await replicas.get(environment)
        summary, faults = counting.read(await read(request))
        if summary is None:
            raise refused(faults)
        return answer(request, await counts.take(environment, summary))

    @get("/flags/{key:str}/counts", summary="Counts of a flag")
    async def of_flag(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        key: FromPath[str],
        counts: NamedDependency[Counts],
        service: NamedDependency[FlagService],
        clock: NamedDependency[Clock],
        principal: NamedDependency[Principal],
        since: FromQuery[str | None] = None,
        window_seconds: FromQuery[int] = 60,
    ) -> Response[bytes]:
        """Evaluations by reason, outcomes, and quantiles of durations, per window, service and variant.

        `since` is an instant (RFC 3339), ten minutes ago where it is left out, and `window_seconds` a multiple of 10. Windows
        without a count are left out; one that is not `complete` may still grow.
        """
        require_any(principal, READ, environment)
        await service.expect(environment)
        await service.flag(environment, flag_key(key))
        until = clock.now() + timedelta(seconds=WINDOW_SECONDS)
        begin = span(since, window_seconds, until)
        return answer(request, await counts.of_flag(environment, key, begin, until, window_seconds))


def span(since: str | None, window_seconds: int, until: datetime) -> datetime:
    """From when, aligned to the window before. Raises `Problem` 422 with what is wrong."""
    faults: list[wire.Fault] = []
    begin = until - timedelta(seconds=SINCE_SECONDS) if since is None else instant(since)
    if not 0 < window_seconds <= 86_400 or window_seconds % WINDOW_SECONDS:
        detail = f"a multiple of {WINDOW_SECONDS}, at most 86400"
        faults.append(wire.Fault(pointer="/window_seconds", detail=detail))
    if begin is None or not until - timedelta(seconds=KEEP_SECONDS) <= begin <= until:
        detail = f"an instant (RFC 3339) of the last {KEEP_SECONDS / 86_400:.0f} days"
        faults.append(wire.Fault(pointer="/since", detail=detail))
    if faults or begin is None:
        raise refused(faults)
    seconds = int(begin.timestamp()) // window_seconds * window_seconds
    if (until.timestamp() - seconds) / window_seconds > WINDOWS_MAX:
        raise refused([wire.Fault(pointer="/window_seconds", detail=f"at most {WINDOWS_MAX} windows: make them longer")])
    return datetime.fromtimestamp(seconds, UTC)


def instant(text: str) -> datetime | None:
    """An aware instant, in UTC where it names no zone; None for what is none.

    >>> instant("2026-01-01T00:00:00Z"), instant("noon")
    (datetime.datetime(2026, 1, 1, 0, 0, tzinfo=datetime.timezone.utc), None)
    """
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None

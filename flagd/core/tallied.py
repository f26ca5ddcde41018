"""Counts as they are read: by window, service and variant, with the share of each variant and quantiles of durations. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct
from rescind.durations import merged, quantile_ms

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


class Durations(Struct, frozen=True, kw_only=True):
    """In milliseconds, each at most 4.5 % off; null where none was told."""

    count: int = 0
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None


class Served(Struct, frozen=True, kw_only=True):
    """What one variant was and led to. `evaluations` by reason; `share` of all evaluations beside it, from 0 to 1."""

    service: str
    variant: str
    count: int = 0
    share: float | None = None
    evaluations: dict[str, int] = {}
    ok: int = 0
    failed: int = 0
    duration_ms: Durations = Durations()


class WindowCounts(Struct, frozen=True, kw_only=True):
    """One window. It is complete where no instance that is up to time has anything to add."""

    at: datetime
    complete: bool
    series: list[Served] = []


class Tallied:
    """Collects rows of one place (a window, or all of them) by service and variant."""

    def __init__(self) -> None:
        self.evaluations: dict[tuple[str, str], Counter[str]] = {}
        self.outcomes: dict[tuple[str, str], tuple[int, int, Mapping[int, int]]] = {}

    def evaluated(self, service: str, variant: str, reason: str, count: int) -> None:
        """One row of evaluations."""
        self.evaluations.setdefault((service, variant), Counter())[reason] += count

    def told(self, service: str, variant: str, ok: int, failed: int, durations: Mapping[int, int]) -> None:
        """One row of outcomes."""
        had_ok, had_failed, had = self.outcomes.get((service, variant), (0, 0, {}))
        self.outcomes[service, variant] = (had_ok + ok, had_failed + failed, merged((had, durations)))

    def series(self) -> list[Served]:
        """By service and variant; shares are of the service's evaluations."""
        totals: Counter[str] = Counter()
        for (service, _), reasons in self.evaluations.items():
            totals[service] += reasons.total()
        places = sorted({*self.evaluations, *self.outcomes})
        return [self._served(service, variant, totals[service]) for service, variant in places]

    def _served(self, service: str, variant: str, total: int) -> Served:
        reasons = self.evaluations.get((service, variant), Counter())
        ok, failed, durations = self.outcomes.get((service, variant), (0, 0, {}))
        return Served(
            service=service,
            variant=variant,
            count=reasons.total(),
            share=reasons.total() / total if total else None,
            evaluations=dict(reasons),
            ok=ok,
            failed=failed,
            duration_ms=durations_of(durations),
        )


def durations_of(buckets: Mapping[int, int]) -> Durations:
    """Their number and quantiles."""
    return Durations(count=sum(buckets.values()), **{name: quantile_ms(buckets, share) for name, share in QUANTILES.items()})


def windows_of(
    evaluations: Iterable[Mapping[str, Any]], outcomes: Iterable[Mapping[str, Any]], complete_until: datetime
) -> tuple[list[WindowCounts], list[Served]]:
    """Windows in the order of time, those without a count left out, and the sums over all of them.

    `complete_until`: windows that begin before it are complete.
    """
    places: dict[datetime, Tallied] = {}
    whole = Tallied()
    for row in evaluations:
        for tallied in (places.setdefault(row["at"], Tallied()), whole):
            tallied.evaluated(row["service"], row["variant"], row["reason"], row["count"])
    for row in outcomes:
        durations = {int(bucket): number for bucket, number in row["durations"].items()}
        for tallied in (places.setdefault(row["at"], Tallied()), whole):
            tallied.told(row["service"], row["variant"], row["ok"], row["failed"], durations)
    windows = [
        WindowCounts(at=at, complete=at < complete_until, series=tallied.series()) for at, tallied in sorted(places.items())
    ]
    return windows, whole.series()

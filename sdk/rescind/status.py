"""What a client is at: for logs, health pages and people."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from msgspec import Struct

from rescind.core import Core


class State(StrEnum):
    """What may be expected of evaluations."""

    NOT_READY = "not_ready"
    """There is no snapshot: defaults."""
    READY = "ready"
    """There is a snapshot, and the server is heard."""
    STALE = "stale"
    """There is a snapshot, and the server is not heard: the last known values, and off variants past their staleness limits."""
    CLOSED = "closed"


class Status(Struct, frozen=True, kw_only=True):
    """`ready` means that there is a snapshot; `source` says where it came from: none, disk, bootstrap or network."""

    state: State
    ready: bool
    source: str
    environment: str | None
    revision: str
    age_seconds: float | None
    """Since the server last said something; null where it has not yet."""
    saved_at: datetime | None
    """Of a snapshot from disk: when it was written, by the wall clock."""
    connected: bool
    """By a stream."""
    polling: bool
    """No stream comes through; the server answers when it is asked, every five seconds."""
    instance: str
    service: str
    held_outcome_count: int
    """Outcomes of effects that the server has not got yet."""
    held_effect_count: int
    """Effects that were begun without the server and that it has not got yet."""
    refused_outcome_count: int
    """Outcomes that the server refused for good, since this client began."""
    refused_outcome_place: str
    """The file that keeps them."""
    counts_age_seconds: float | None
    """Since the oldest window of counts ended that the server has not got; null where it has all."""
    counts_dropped_count: int
    """Evaluations and outcomes whose counts were given up, since this client began."""
    counts_error: str
    """Why counts do not go out, if they do not."""
    fault_count: int
    """Events that could not be read."""
    last_error: str
    disk_error: str
    """Why state cannot be kept on disk, if it cannot."""
    declared: list[str]
    """The flags that this service has declared."""
    bootstrap_error: str
    """Why the document that the service brings along is of no use, if it is not."""


def status_of(core: Core) -> Status:
    """The core's status now."""
    heard_at = core.follower.heard_at
    return Status(
        state=state_of(core),
        ready=core.current.snapshot is not None,
        source=core.source,
        environment=core.api.environment,
        revision=str(core.current.revision),
        age_seconds=None if heard_at is None else max(0.0, core.clock.monotonic() - heard_at),
        saved_at=core.warm.saved_at if core.source == "disk" else None,
        connected=core.follower.connected,
        polling=core.follower.polled,
        instance=core.settings.instance,
        service=core.settings.service,
        held_outcome_count=len(core.reports.held),
        held_effect_count=len(core.proceeding.held) + core.proceeding.held.unfinished,
        refused_outcome_count=core.reports.held.refused_count + core.proceeding.held.refused_count,
        refused_outcome_place=core.reports.held.refused_place or core.proceeding.held.refused_place,
        counts_age_seconds=core.counts.age_seconds(),
        counts_dropped_count=core.counts.dropped_count,
        counts_error=core.summaries.last_error,
        fault_count=core.follower.fault_count,
        last_error=core.follower.last_error or core.beats.last_error,
        disk_error=core.warm.disk_error or core.reports.held.error or core.proceeding.held.error,
        declared=sorted(core.declarations.keys),
        bootstrap_error=core.warm.bootstrap_error,
    )


def state_of(core: Core) -> State:
    """The core's state now."""
    if core.closed:
        return State.CLOSED
    if core.current.snapshot is None:
        return State.NOT_READY
    return State.READY if core.follower.reached else State.STALE

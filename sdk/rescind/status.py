"""What a client is at: for logs, health pages and people."""

from __future__ import annotations

from msgspec import Struct

from rescind.core import Core


class Status(Struct, frozen=True, kw_only=True):
    """`ready` means that there is a snapshot; `source` says whether it came from the network or from disk."""

    ready: bool
    source: str
    environment: str | None
    revision: str
    age_seconds: float | None
    """Since the server last said something; null where it has not yet."""
    connected: bool
    instance: str
    service: str
    held_outcome_count: int
    """Outcomes of effects that the server has not got yet."""
    refused_outcome_count: int
    """Outcomes that the server refused for good, since this client began."""
    refused_outcome_place: str
    """The file that keeps them."""
    fault_count: int
    """Events that could not be read."""
    last_error: str
    disk_error: str
    """Why state cannot be kept on disk, if it cannot."""


def status_of(core: Core) -> Status:
    """The core's status now."""
    heard_at = core.follower.heard_at
    return Status(
        ready=core.current.snapshot is not None,
        source=core.source,
        environment=core.api.environment,
        revision=str(core.current.revision),
        age_seconds=None if heard_at is None else max(0.0, core.clock.monotonic() - heard_at),
        connected=core.follower.connected,
        instance=core.settings.instance,
        service=core.settings.service,
        held_outcome_count=len(core.reports.held),
        refused_outcome_count=core.reports.held.refused_count,
        refused_outcome_place=core.reports.held.refused_place,
        fault_count=core.follower.fault_count,
        last_error=core.follower.last_error or core.beats.last_error,
        disk_error=core.disk_error or core.reports.held.error,
    )

"""A provider's events and status, from what happens to the client.

The truth of the status is OpenFeature's own registry: it alone knows when a provider is being initialized, and it says READY
after `initialize` by itself. So each look compares what the registry has with what the client is, and emits the event that
mends a difference. The client's core calls at every turn: a revision applied, the stream found or lost, an attempt failed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

from openfeature.client import OpenFeatureClient
from openfeature.event import ProviderEvent, ProviderEventDetails
from openfeature.exception import ErrorCode
from openfeature.provider import AbstractProvider, FeatureProvider, ProviderStatus

from rescind.core import Core

_EVENTS: Final = {
    ProviderStatus.READY: ProviderEvent.PROVIDER_READY,
    ProviderStatus.STALE: ProviderEvent.PROVIDER_STALE,
    ProviderStatus.ERROR: ProviderEvent.PROVIDER_ERROR,
}


class Events:
    """What one provider tells OpenFeature."""

    def __init__(self, provider: AbstractProvider, core: Core) -> None:
        self._provider = provider
        self._core = core
        self._face = _OwnStatus(provider)
        self._stop: Callable[[], None] | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Listen to the client; once."""
        with self._lock:
            if self._stop is None:
                self._stop = self._core.notifier.watch(self._look)

    def stop(self) -> None:
        """Listen no longer."""
        with self._lock:
            stop, self._stop = self._stop, None
        if stop is not None:
            stop()

    def _look(self, changed: Sequence[str]) -> None:
        known = self._face.get_provider_status()
        if known in (ProviderStatus.NOT_READY, ProviderStatus.FATAL):
            return
        status, details = status_of(self._core)
        if status is not known:
            self._provider.emit(_EVENTS[status], details)
        if changed:
            details = ProviderEventDetails(flags_changed=list(changed), metadata={"revision": str(self._core.current.revision)})
            self._provider.emit(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, details)


def status_of(core: Core) -> tuple[ProviderStatus, ProviderEventDetails]:
    """What the client is at, in OpenFeature's words, and why."""
    follower = core.follower
    if core.current.snapshot is None:
        code, message = ErrorCode.PROVIDER_NOT_READY, follower.last_error or "there is no snapshot yet"
        return ProviderStatus.ERROR, ProviderEventDetails(message=message, error_code=code)
    if core.closed:
        return ProviderStatus.STALE, ProviderEventDetails(message="the client was closed")
    if follower.refused:
        return ProviderStatus.ERROR, ProviderEventDetails(message=follower.last_error, error_code=ErrorCode.GENERAL)
    if not follower.reached:
        return ProviderStatus.STALE, ProviderEventDetails(message=follower.last_error or "the stream is not there")
    return ProviderStatus.READY, ProviderEventDetails()


class _OwnStatus(OpenFeatureClient):
    """Asks the registry for one provider's status, whichever domains it serves."""

    def __init__(self, provider: FeatureProvider) -> None:
        super().__init__(domain=None, version=None)
        self._own = provider

    @property
    def provider(self) -> FeatureProvider:
        return self._own

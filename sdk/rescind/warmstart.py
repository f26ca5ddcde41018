"""What a client serves before the network answers: the last known snapshot from disk, else what the service brings along (P6).

And the other way round: what the network gave is written down, behind the burst of a change rather than in it.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

from rescind import bootstrap
from rescind.clock import Clock
from rescind.current import Current
from rescind.lastknown import LastKnown
from rescind.settings import ClientSettings
from rescind.threads import in_thread

logger = logging.getLogger("rescind")

SAVE_SECONDS_MIN = 0.3
SAVE_SECONDS_MAX = 1.0
"""When a revision is written after it was applied: anywhere between, so that a fleet does not write at once."""


class WarmStart:
    """The snapshot's way from and to this machine."""

    def __init__(self, settings: ClientSettings, current: Current, clock: Clock) -> None:
        self._settings = settings
        self._current = current
        self._clock = clock
        self.kept = LastKnown(settings.state_dir / settings.place)
        self._changed = asyncio.Event()
        self.disk_error = ""
        self.bootstrap_error = ""
        self.saved_at: datetime | None = None
        """When the snapshot that was found on disk was written, by the wall clock."""

    def load(self) -> str:
        """Take in what there is: "disk", "bootstrap" or "none". Blocks on the disk. Never raises (P6)."""
        self._current.freshness.doubt()
        if self._load_kept():
            return "disk"
        return "bootstrap" if self._load_bootstrap() else "none"

    def changed(self) -> None:
        """A revision was applied: write it down soon."""
        self._changed.set()

    async def run(self) -> None:
        """Write down what changes, until cancelled."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(SAVE_SECONDS_MIN + (SAVE_SECONDS_MAX - SAVE_SECONDS_MIN) * self._clock.random())
            await self.flush()

    async def flush(self) -> None:
        """Write down what is not yet written."""
        if not self._changed.is_set() or (snapshot := self._current.snapshot) is None:
            return
        self._changed.clear()
        try:
            await in_thread(self.kept.save, snapshot)
            self.disk_error = ""
        except BlockingIOError:  # a sibling is writing: look again whether it wrote the latest
            self._changed.set()
        except OSError as error:
            self.disk_error = str(error)

    def _load_kept(self) -> bool:
        try:
            snapshot = self.kept.load()
        except OSError as error:
            self.disk_error = str(error)
            return False
        if snapshot is None or self._current.take_snapshot(snapshot) is None:
            return False
        written = self.kept.written_at()
        self.saved_at = None if written is None else datetime.fromtimestamp(written, UTC)
        return True

    def _load_bootstrap(self) -> bool:
        source = self._settings.bootstrap
        if source is None:
            return False
        try:
            snapshot = bootstrap.load(source, self._settings.environment or "")
        except (OSError, bootstrap.Unreadable) as error:
            self.bootstrap_error = str(error)
            logger.error("the bootstrap document is of no use: %s", error)
            return False
        return self._current.take_snapshot(snapshot) is not None

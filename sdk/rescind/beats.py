"""Heartbeats: which revision this instance has applied, at once after a kill, otherwise every interval (P8, contained).

The beat after a kill names the effects whose bodies have begun; every other permission of this instance is given back by
it, which is what lets a connected fleet drain in milliseconds. Each says how the revision was learned and how long ago it was
applied, on the monotonic clock, shows the proof of the newest revision that the server has confirmed (P2), and carries what the
service has declared until the server has it on record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rescind.bodies import Bodies
from rescind.clock import Clock, full_jitter_seconds
from rescind.current import Current
from rescind.declarations import Declarations
from rescind.errors import ApiError, Unreachable
from rescind.proceeding import Proceeding
from rescind.reports import Reports
from rescind.settings import ClientSettings
from rescind.transport import AsyncApi
from rescind.version import __version__
from rescind.wire import InstanceBeat, InstanceBeatAnswer, Revision

INTERVAL_SECONDS = 5.0
INTERVAL_SECONDS_MIN = 0.5
INTERVAL_SECONDS_MAX = 60.0
BEAT_SECONDS = 5.0
ACKNOWLEDGE_CAP_SECONDS = 2.0
START, STALENESS = "start", "staleness"
"""How an instance came to what it serves without the server: from disk or bootstrap, by a staleness limit that ran out."""


class Beats:
    """Tells the server what this instance is at."""

    def __init__(
        self,
        api: AsyncApi,
        settings: ClientSettings,
        current: Current,
        bodies: Bodies,
        reports: Reports,
        declarations: Declarations,
        proceeding: Proceeding,
        clock: Clock,
        behind: Callable[[Revision], None],
    ) -> None:
        """`behind(revision)` is called where this instance is still not at what the beat before was answered with."""
        self._api = api
        self._settings = settings
        self._current = current
        self._bodies = bodies
        self._reports = reports
        self._declarations = declarations
        self._proceeding = proceeding
        self._clock = clock
        self._behind = behind
        self.told = Revision()
        """The revision that the last beat was answered with."""
        self._interval_seconds = INTERVAL_SECONDS
        self._wake = asyncio.Event()
        self._kill = False
        self._how = START
        self._applied_at: float | None = None
        """On the monotonic clock; null where this process did not apply it."""
        self._on_record: frozenset[str] | None = None
        """What the server is known to have of the declarations."""
        self._proven: tuple[Revision, str] | None = None
        self.last_error = ""

    def applied(self, how: str, kill: bool) -> None:
        """A revision was applied; after a kill the server hears of it at once."""
        self._how, self._applied_at = how, self._clock.monotonic()
        if kill:
            self._kill = True
            self._wake.set()

    async def run(self) -> None:
        """Beat until cancelled."""
        failures = 0
        while True:
            self._wake.clear()
            kill, self._kill = self._kill, False
            declared = self._declarations.keys
            try:
                answer = await self.beat(kill)
            except (Unreachable, ApiError) as error:
                self.last_error = str(error)
                self._kill = self._kill or kill
                failures += 1
                await self._wait(self._pause_seconds(error, failures, kill))
                continue
            if failures:
                self._reports.held.hurry()
                self._proceeding.held.hurry()
            failures, self.last_error = 0, ""
            if self.told > self._current.revision:
                self._behind(self.told)
            self.told = answer.revision
            self._noted(answer, declared)
            self._interval_seconds = min(max(answer.interval_seconds, INTERVAL_SECONDS_MIN), INTERVAL_SECONDS_MAX)
            await self._wait(self._interval_seconds * (0.9 + 0.2 * self._clock.random()))

    async def sign_off(self) -> None:
        """The last beat: nothing of this instance begins any more."""
        await self._api.call("POST", self._api.within("/heartbeats"), self._message(True, signing_off=True), InstanceBeatAnswer)

    def _noted(self, answer: InstanceBeatAnswer, declared: frozenset[str]) -> None:
        """Remember the proof, and whether the server has what was declared; one that keeps none has a successor who may."""
        self._on_record = declared if answer.declared_count == len(declared) else None
        if answer.proven is not None and (self._proven is None or answer.proven > self._proven[0]):
            self._proven = (answer.proven, answer.proof)

    def emptied(self) -> None:
        """The journals are empty: a rollback may be waiting to hear so."""
        self._wake.set()

    async def beat(self, kill: bool) -> InstanceBeatAnswer:
        """One beat; after a kill it names the bodies that have begun. Raises `Unreachable`, `ApiError`."""
        path, message = self._api.within("/heartbeats"), self._message(kill)
        answer = await self._api.repeatable(path, message, InstanceBeatAnswer, timeout_seconds=BEAT_SECONDS)
        self._proceeding.told(message.adopted)
        return answer

    def _pause_seconds(self, error: Exception, failures: int, kill: bool) -> float:
        """How long to wait after a beat that failed. A token without the scope `evaluate` has it refused each time."""
        if isinstance(error, ApiError) and error.status == 403:
            return INTERVAL_SECONDS_MAX
        cap = ACKNOWLEDGE_CAP_SECONDS if kill else self._interval_seconds
        asked = (error.retry_after_seconds or 0.0) if isinstance(error, ApiError) else 0.0
        return asked + full_jitter_seconds(self._clock, failures, base=0.1, cap=cap)

    def _message(self, kill: bool, *, signing_off: bool = False) -> InstanceBeat:
        revision = self._current.revision  # read before the bodies: what begins after it is under this revision's kills
        declared, applied_at = self._declarations.keys, self._applied_at
        proven, proof = self._proven or (None, "")
        is_open = not (self._reports.held.is_empty and self._proceeding.held.is_empty)
        return InstanceBeat(
            instance=self._settings.instance,
            service=self._settings.service,
            revision=revision,
            how=STALENESS if self._current.freshness.has_run_out else self._how,
            begun=self._bodies.begun() if kill else None,
            sdk_version=__version__,
            service_version=self._settings.service_version,
            signing_off=signing_off,
            journal_open=is_open,
            obeys_staleness=True,
            applied_ago_ms=None if applied_at is None else (self._clock.monotonic() - applied_at) * 1000,
            declared=None if declared == self._on_record else sorted(declared),
            proven=proven,
            proof=proof,
            proceeds=True,
            adopted=[] if is_open else list(self._proceeding.adopted),
        )

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

"""`FlagsFixture`: flags set by a test, evaluated by the real evaluator, and a record of what the code under test did."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, cast

from rescind.client import AsyncClient, Client
from rescind.errors import ConfigurationError
from rescind.evaluation import Evaluator, check_document, in_scope
from rescind.saga import Saga
from rescind.testing.board import Laid, Override, defined, plain, showing
from rescind.testing.clients import FixtureAsyncClient, FixtureClient, FixtureCore, notify, settings_of
from rescind.testing.ledger import Ledger, Refusal
from rescind.testing.records import RECORDED_MAX, RecordedEffect, RecordedEvaluation, RecordedOutcome, Recording
from rescind.wire import OFF, Change, Revision, Snapshot, SnapshotFlag

Outcome = Literal["in_progress", "conflict", "compensated", "tombstoned", "invalid", "unreachable"]


class FlagsFixture:
    """The flags of one environment that is nowhere but here.

    `flags` are plain values, the same for everyone; `document` is a flagd document, for targeting. `sagas` are what clients
    would be made with. Every client of the fixture sees the same flags and the same ledger.
    """

    def __init__(
        self,
        flags: Mapping[str, Any] | None = None,
        *,
        document: Mapping[str, Any] | None = None,
        sagas: Sequence[Saga] = (),
        environment: str = "testing",
        service: str = "tests",
    ) -> None:
        self.environment = environment
        self.service = service
        self._sagas = sagas
        self._lock = threading.RLock()
        self._flags: dict[str, Laid] = {}
        self._revision = Revision(1, 1)
        self._evaluators: dict[str, Any] = {}
        self._metadata: dict[str, Any] = {}
        self._cores: list[FixtureCore] = []
        self._ledger = Ledger(self._flags)
        self._evaluations: deque[RecordedEvaluation] = deque(maxlen=RECORDED_MAX)
        self._outcomes: deque[RecordedOutcome] = deque(maxlen=RECORDED_MAX)
        self._client: FixtureClient | None = None
        self._async_client: FixtureAsyncClient | None = None
        if document is not None:
            self.load(document)
        for key, value in (flags or {}).items():
            self.set(key, value)

    # --- what the code under test is given ---------------------------------------------------------------------------

    @property
    def client(self) -> Client:
        """The synchronous client."""
        if self._client is None:
            self._client = FixtureClient(self._core())
        return self._client

    @property
    def async_client(self) -> AsyncClient:
        """The asynchronous client."""
        if self._async_client is None:
            self._async_client = FixtureAsyncClient(self._core())
        return self._async_client

    # --- flags -------------------------------------------------------------------------------------------------------

    def set(self, key: str, value: Any, *, off: Any = None) -> None:
        """Give everyone `value` from now on. `off` is what a kill makes of it; of a boolean it is False."""
        self._lay(key, plain(value, off))

    def define(self, key: str, definition: Mapping[str, Any], *, off_variant: str = OFF, **more: Any) -> None:
        """Set a flag by its flagd definition; `more` as in `effect_attributes=["region"]`.

        Raises `ConfigurationError` with every fault of the definition.
        """
        self._lay(key, defined(definition, self._evaluators, off_variant=off_variant, **more))

    def load(self, document: Mapping[str, Any]) -> None:
        """Set every flag of a flagd document. Raises `ConfigurationError` with every fault."""
        if faults := check_document(dict(document), arrays=False):
            raise ConfigurationError("; ".join(f"{fault.pointer}: {fault.detail}" for fault in faults))
        with self._lock:
            self._evaluators |= document.get("$evaluators", {})
            self._metadata |= document.get("metadata", {})
            for key, definition in document["flags"].items():
                self._laid(key).base = SnapshotFlag(definition=definition)
                self._laid(key).overrides.clear()
            self._revision = self._next()
            for core in self._cores:
                self._give(core)
                notify(core, sorted(document["flags"]))

    def remove(self, key: str) -> None:
        """As if there had never been such a flag."""
        with self._lock:
            self._flags.pop(key, None)
            self._publish(key)

    @contextmanager
    def override(self, key: str, value: Any, *, off: Any = None) -> Iterator[None]:
        """Give everyone `value` for as long as the context is entered; then whatever was before, whichever ends first.

        A flag that has a variant of that value shows this variant; any other is a plain one meanwhile.
        """
        with self._lock:
            laid = self._laid(key)
            override = Override(showing(laid.top, value, off))
            laid.overrides.append(override)
            self._publish(key)
        try:
            yield
        finally:
            with self._lock:
                if override in laid.overrides:
                    laid.overrides.remove(override)
                    self._publish(key)

    def kill(self, key: str, *, scope: Mapping[str, Any] | None = None, compensate: bool = True) -> None:
        """Put the flag on its off variant, whatever is set or overridden beneath, and close its effects.

        `scope` narrows it to contexts with these attributes. What had been done under the flag counts as undone from now
        on, unless `compensate` is False.
        """
        with self._lock:
            laid = self._laid(key)
            if laid.top is None:
                raise ConfigurationError(f"there is no flag {key!r} to kill: set it first")
            if laid.top.off_variant not in laid.top.definition.get("variants", {}):
                raise ConfigurationError(f"flag {key!r} has no off variant: set it with off=...")
            kill = laid.kill(self._next(), f"rollback-{laid.epoch}", scope or {})
            if compensate:
                self._ledger.undo(key, kill, lambda attributes: in_scope(attributes, kill.scope.items()))
            self._publish(key, kill=True)

    def lift(self, key: str) -> None:
        """Take every kill of the flag away: what is beneath holds again, and effects are admitted."""
        with self._lock:
            laid = self._laid(key)
            if laid.kills:
                laid.lift(self._next())
                self._publish(key)

    @contextmanager
    def refusing(self, kind: str, outcome: Outcome, *, key: str | None = None) -> Iterator[None]:
        """Answer asks for effects of this kind, or of one key, with `outcome` for as long as the context is entered."""
        refusal = Refusal(kind, key, outcome)
        self._ledger.refusals.append(refusal)
        try:
            yield
        finally:
            self._ledger.refusals.remove(refusal)

    # --- what it did -------------------------------------------------------------------------------------------------

    @property
    def evaluations(self) -> list[RecordedEvaluation]:
        """Every evaluation so far, in order."""
        return list(self._evaluations)

    @property
    def effects(self) -> list[RecordedEffect]:
        """Every ask for an effect so far, in order, with what became of it."""
        return list(self._ledger.records)

    @property
    def outcomes(self) -> list[RecordedOutcome]:
        """Every outcome that was tracked so far, in order."""
        return list(self._outcomes)

    def forget(self) -> None:
        """Empty the records. Flags, and what is recorded of idempotency keys, stay."""
        self._evaluations.clear()
        self._outcomes.clear()
        self._ledger.records.clear()

    # --- within ------------------------------------------------------------------------------------------------------

    def _laid(self, key: str) -> Laid:
        return self._flags.setdefault(key, Laid())

    def _lay(self, key: str, flag: SnapshotFlag) -> None:
        with self._lock:
            laid = self._laid(key)
            laid.base = flag
            laid.overrides.clear()
            self._publish(key)

    def _next(self) -> Revision:
        return Revision(self._revision.generation, self._revision.n + 1)

    def _publish(self, key: str, *, kill: bool = False) -> None:
        """One revision, for every client."""
        previous, self._revision = self._revision, self._next()
        laid = self._flags.get(key)
        flag = laid.effective() if laid is not None else None
        change = Change(
            environment=self.environment,
            previous=previous,
            revision=self._revision,
            flags={} if flag is None else {key: flag},
            removed=[key] if flag is None else [],
            kill=kill,
        )
        for core in self._cores:
            core.current.take_change(change)
            notify(core, [key])

    def _core(self) -> FixtureCore:
        with self._lock:
            settings = settings_of(self.environment, self.service, len(self._cores) + 1)
            core = FixtureCore(settings, self._sagas, self._ledger, self._outcomes.append)
            self._give(core)
            self._cores.append(core)
            return core

    def _give(self, core: FixtureCore) -> None:
        flags = {key: flag for key, laid in self._flags.items() if (flag := laid.effective()) is not None}
        core.current.take_snapshot(
            Snapshot(
                environment=self.environment,
                revision=self._revision,
                flags=flags,
                evaluators=dict(self._evaluators),
                metadata=dict(self._metadata),
            )
        )
        assert core.current.evaluator is not None
        recording = Recording(core.current.evaluator, self._evaluations.append)
        core.current.evaluator = cast("Evaluator", recording)

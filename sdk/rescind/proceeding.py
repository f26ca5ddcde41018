"""Going on without the server, where a flag declares `on_unreachable: proceed` (P8, P10, P11; docs/decisions/0021).

A line with the whole request is in the journal, synced, before the body may begin; where it cannot be, nothing begins. The
outcome follows it there, and both are brought to the server once it is back: by this process, by the next one on this disk, or
by a sibling. A line without an outcome, whose process is gone, is an effect in doubt.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import msgspec
from msgspec import Struct

from rescind.clock import Clock
from rescind.current import Current
from rescind.errors import EffectConflict, EffectInProgress, EffectKilled, Unreachable
from rescind.held import Held, sendable_result
from rescind.journal import Journal
from rescind.memory import FAILED, Known, Memory
from rescind.threads import in_thread
from rescind.transport import AsyncApi
from rescind.wire import EffectReport, EffectRequest, ProceededEffect, ReportAnswer, ReportResult, effect_name

logger = logging.getLogger("rescind.effects")

SUFFIX = ".proceeded"
PATIENCE_SECONDS = 1.0
"""How long an effect waits for the server before it goes on without it."""
AWAY_SECONDS = 0.2
"""The same, and one try, while the one before it had no answer."""
DELIVERY_SECONDS = 10.0
PAYLOAD_BYTES_MAX = 65_536
ATTRIBUTES_BYTES_MAX = 16_384
TEXT_BYTES_MAX = 512
"""What the ledger keeps: larger ones would be refused when it is too late."""
ENDED = {"type": "ProcessEnded", "detail": "its process ended before it said what became of it"}


class Batch(Struct, frozen=True):
    """The body of a request, as `wire.ProceededRequest` is read by the server."""

    effects: list[ProceededEffect]
    instance: str
    now: float


class Proceeding:
    """What one instance began without the server. Its coroutines run on the core's loop."""

    def __init__(
        self,
        api: AsyncApi,
        clock: Clock,
        current: Current,
        instance: str,
        keep: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        on_empty: Callable[[], None],
    ) -> None:
        self._api = api
        self._clock = clock
        self._current = current
        self._instance = instance
        self._keep = keep
        self.is_prepared = False
        """A sibling would find this instance's journal."""
        self.memory = Memory()
        self.held: Held[ProceededEffect] = Held(self._send, clock, self._read, on_empty)
        self.is_away = False
        """The last effect that asked had no answer."""
        self.adopted: list[str] = []
        """Instances that are gone and whose records are, or were, here: to be told once all is delivered."""

    async def open(self, journal: Journal) -> None:
        """Use `journal`, and take over what instances that are gone have left."""
        await self.held.open(journal)
        snapshot = self._current.snapshot
        await self.prepare(list(snapshot.flags) if snapshot else [])

    async def prepare(self, changed: Iterable[str]) -> None:
        """Have a journal before it is needed where one of these flags lets effects go on: whoever comes after finds it."""
        journal = self.held.journal
        if self.is_prepared or journal is None or not any(self.allows(key) for key in changed):
            return
        self.is_prepared = True
        try:
            await in_thread(journal.prepare)
        except OSError as error:
            self.held.error = str(error)

    def allows(self, flag: str) -> bool:
        """Whether effects of this flag go on without the server."""
        snapshot = self._current.snapshot
        known = snapshot.flags.get(flag) if snapshot else None
        return known is not None and known.on_unreachable == "proceed"

    def patience_seconds(self) -> float:
        """How long to wait for the server now."""
        return AWAY_SECONDS if self.is_away else PATIENCE_SECONDS

    def known(self, request: EffectRequest) -> Known | None:
        """What this instance knows of the key, if that settles it: it succeeded. Raises what a server would.

        Null where a body may begin.
        """
        known = self.memory.recall(request)
        if known is None:
            return None
        named: dict[str, Any] = {"kind": request.kind, "key": request.key, "flag": request.flag}
        if (known.flag, known.payload) != (request.flag, request.payload):
            raise EffectConflict("the key names another effect, as far as is known without the server", **named)
        if known.outcome == "succeeded" and known.has_result:
            return known
        if known.outcome not in FAILED:
            status = {None: "admitted", "succeeded": "succeeded"}.get(known.outcome, "in_doubt")
            detail = {"effect_id": known.effect_id, "effect_status": status}
            raise EffectInProgress("in progress or in doubt, as far as is known without the server", **named, detail=detail)
        return None

    async def begin(self, request: EffectRequest, is_off: bool, why: Unreachable) -> ProceededEffect:
        """The record under which its body may begin, durable. Raises `EffectKilled`, or `why` where it cannot be kept."""
        self._judge(request, is_off, why)
        before = self.memory.recall(request)
        name = before.effect_id if before else str(effect_name(self._api.environment or "", request.kind, request.key))
        record = ProceededEffect(
            effect_id=name,
            request=request,
            epoch=self._current.epoch(request.flag),
            instance=self._instance,
            at=self._clock.now().timestamp(),
        )
        self.memory.begin(request, name, before.attempt + 1 if before else 1)
        self.held.unfinished += 1  # from before it is written: whoever acknowledges a kill says that there may be one
        try:
            await self._write(record)
        except OSError as error:
            self._drop(record)
            raise Unreachable(f"{why}; and nothing begins without a line in the journal: {error}") from why
        except asyncio.CancelledError:
            self._keep(self.end(record, "not_started"))
            raise
        logger.warning("effect %s goes on without the server: %s", name, why)
        return record

    async def end(self, record: ProceededEffect, outcome: str, result: Any = None, error: dict[str, Any] | None = None) -> None:
        """What became of it, into the journal and on its way."""
        self.memory.end(record.request, record.effect_id, outcome, result)
        said = msgspec.structs.replace(
            record,
            outcome=outcome,
            ended_at=self._clock.now().timestamp(),
            result=sendable_result(record.effect_id, result),
            error=error,
        )
        await self.held.hold(said)
        self.held.unfinished -= 1

    async def report(self, record: ProceededEffect, report: EffectReport) -> None:
        """The same, from a body's report."""
        await self.end(record, report.outcome, report.result, report.error)

    def told(self, names: list[str]) -> None:
        """The server knows that these instances hold nothing any more."""
        self.adopted = [name for name in self.adopted if name not in names]

    def _judge(self, request: EffectRequest, is_off: bool, why: Unreachable) -> None:
        """Raise where this instance knows that it must not, or the ledger would not keep it."""
        if self._api.environment is None or (fault := fault_of(request)):
            raise Unreachable(f"{why}; {fault if self._api.environment else 'the environment is not known'}") from why
        if is_off:
            return
        snapshot = self._current.snapshot
        flag = snapshot.flags.get(request.flag) if snapshot else None
        limit = flag.max_staleness_seconds if flag else None
        with self._current.lock:
            kill = self._current.dead(request.flag, 0, request.attributes)  # whatever stands: nothing of it was admitted
        if kill is not None:
            detail = {"off_variant": kill.off_variant, "rollback_id": kill.rollback_id}
            named = {"kind": request.kind, "key": request.key, "flag": request.flag}
            raise EffectKilled("killed before it began", **named, detail=detail)
        if limit is not None and self._current.freshness.overdue(limit):
            raise Unreachable(f"{why}; and what is known of the flag is older than it may be") from why

    async def _write(self, record: ProceededEffect) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self.held.opened.wait()
        except TimeoutError:
            raise OSError("the journal is not open") from None
        await self.held.write(record)

    def _drop(self, record: ProceededEffect) -> None:
        self.held.unfinished -= 1
        self.memory.end(record.request, record.effect_id, "not_started")

    def _read(self, lines: list[ProceededEffect]) -> list[ProceededEffect]:
        """Of each effect the last that was said; one of which nothing was is in doubt. What they say of keys is remembered."""
        last = {(line.effect_id, line.request.token): line for line in lines}
        journal = self.held.journal
        names = [*(journal.adopted if journal else []), *(line.instance for line in lines)]
        self.adopted += sorted({name for name in names if name not in (self._instance, "", *self.adopted)})
        if journal:
            journal.adopted.clear()
        found = [
            line if line.outcome else msgspec.structs.replace(line, outcome="unknown", error=ENDED) for line in last.values()
        ]
        for line in found:
            self.memory.end(line.request, line.effect_id, line.outcome or "unknown", line.result)
        return found

    async def _send(self, effects: list[ProceededEffect]) -> list[ReportResult]:
        body = Batch(effects, self._instance, self._clock.now().timestamp())
        path = self._api.within("/effects:proceeded")
        answer = await self._api.repeatable(path, body, ReportAnswer, timeout_seconds=DELIVERY_SECONDS)
        if len(answer.results) != len(effects):
            raise Unreachable(f"{len(answer.results)} results for {len(effects)} effects")
        return answer.results


def fault_of(request: EffectRequest) -> str:
    """Why the ledger would refuse it for ever; empty where it would not."""
    for what, value, limit in (
        ("payload", request.payload, PAYLOAD_BYTES_MAX),
        ("attributes", request.attributes, ATTRIBUTES_BYTES_MAX),
    ):
        text = msgspec.json.encode(value)
        if len(text) > limit or b"\\u0000" in text:
            return f"its {what} cannot be kept: larger than {limit} bytes, or with a NUL character"
    saga = request.saga
    texts = [request.key, request.kind, request.flag, request.variant, request.step, request.kind_version, request.subject]
    texts += [saga.name, saga.version, saga.id] if saga else []
    if any(len(text.encode("utf-8", "surrogatepass")) > TEXT_BYTES_MAX or "\0" in text for text in texts if text):
        return f"a name of it cannot be kept: longer than {TEXT_BYTES_MAX} bytes, or with a NUL character"
    return ""

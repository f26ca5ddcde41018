"""The demo's acts: the release goes out, it is killed, what it did is undone, and the judge looks at it from outside."""

from __future__ import annotations

import asyncio
import json
import shlex
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec

from demo import promises
from demo.api import ENVIRONMENT, ApiError
from demo.judge import Case, Finding, KindReport, Report, Sort, compare, judge, sabotage_found
from demo.ledgers import Ledgers
from demo.processes import StartError
from demo.purchases import Purchase, load
from demo.release import FLAG, NEW, OLD
from demo.replay import NotTakenError, Replay
from demo.stage import CUT_OFF, PROCESSES, Stage, rescind_command
from demo.story import Story

HELD = 0
BROKEN = 1
SABOTAGE_FOUND = 3
INCIDENT = "INC-14B"
REASON = "the new checkout confirms twice and charges twice"
KILL_SECONDS = 75.0
WHOLE_SECONDS = 90.0
LOOK_SECONDS = 0.25
KNOCK_SECONDS = 0.03
SABOTAGE = ["acknowledged_only", "doubled"]
OUTAGE = ["lost_reply", "delayed", "lost_request", "lost_reply", "unavailable", "rate_limited", "delayed", "lost_reply"]
OUTAGE_SECONDS = 0.8


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asked for."""

    count: int | None = None
    seed: int = 1
    sabotage: bool = False
    keep: Path | None = None


class Killed(msgspec.Struct, frozen=True, kw_only=True):
    """What `rescind kill` answered, and the orders that were placed after it had."""

    rollback_id: str
    record: dict[str, Any]
    after: frozenset[str]


class Demo:
    """One run."""

    def __init__(self, options: Options, directory: Path, story: Story) -> None:
        self.options = options
        self.directory = directory
        self.story = story
        self.purchases: list[Purchase] = load(options.count, seed=options.seed)
        self.fault_at = datetime.now(tz=UTC)

    async def run(self) -> int:
        """All acts; the exit code."""
        self.story.head("Rescind, three services, a payment server, a mail server and a partner start")
        stage = Stage(self.directory)
        try:
            with self.story.progress("processes", PROCESSES) as bar:
                stage.on_started = lambda: bar.at(stage.started_count)
                await stage.start()
            self.story.line(f"everything runs, each in a process of its own; Rescind at {stage.url}")
            replay = Replay(stage.http, f"{stage.services['checkout']}/orders", self.purchases, seed=self.options.seed)
            await self._release(stage, replay)
            killed = await self._kill(stage, replay)
            await self._old_path(stage, replay, killed)
            record = await self._whole(stage, killed)
            return await self._judge(stage, killed, record)
        except (StartError, ApiError, NotTakenError, httpx.HTTPError, ExceptionGroup) as error:
            return self._ended_early(stage, error)
        finally:
            await stage.stop()

    def _ended_early(self, stage: Stage, error: Exception) -> int:
        """Say why, in a sentence; what nobody foresaw is raised again."""
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        if not isinstance(error, StartError | ApiError | NotTakenError | httpx.HTTPError):
            raise error
        dead = stage.children.dead()
        why_not = f"{str(error) or type(error).__name__}{'; ended by themselves: ' if dead else ''}{', '.join(dead)}"
        self.story.check(False, "the demo runs to its end", why_not=why_not)
        return BROKEN

    async def _release(self, stage: Stage, replay: Replay) -> None:
        """The first half of the purchases, most of them through the bad release, with an outage in the middle."""
        self.story.head(f"The release goes out: {replay.total} real purchases, most of them on the new path of {FLAG}")
        self.fault_at = datetime.now(tz=UTC)
        half = replay.total // 2
        with self.story.progress("orders", replay.total) as bar:
            replay.on_progress = lambda: bar.at(len(replay.answers))
            await replay.until(half // 2)
            await stage.fault("/v1/payment_intents", OUTAGE, OUTAGE_SECONDS)
            await replay.until(half)
        counts = replay.counts
        self.story.line(f"the payment server was away meanwhile: {counts['no answer']} posts had no answer and were repeated")
        paths = Counter(answer.path for answer in replay.answers.values())
        self.story.line(f"{paths[NEW]} orders on the new path, {paths[OLD]} on the old one; every confirmation goes out twice")

    async def _kill(self, stage: Stage, replay: Replay) -> Killed:
        """Kill the flag from the command line while everyone is busy and one service hears nothing."""
        self.story.head(f"Half-way: rescind kill {FLAG}")
        if self.options.sabotage:
            await stage.fault("/v1/refunds", SABOTAGE)
            self.story.line("sabotage: the payment server will drop one refund and do another one twice, and say nothing")
        stage.link.cut()
        self.story.line(f"{CUT_OFF} is cut off from its stream; customers go on ordering")
        stop = asyncio.Event()
        reserve = replay.ahead(replay.total // 5)
        with self.story.progress("orders", replay.total) as bar:
            replay.on_progress = lambda: bar.at(len(replay.answers))
            async with asyncio.TaskGroup() as group:
                group.create_task(replay.again(stop))
                group.create_task(self._knock(stage, reserve, stop))
                group.create_task(replay.until(len(replay.first) + replay.total // 10))
                code, answer = await self._rescind_kill(stage)
                placed = frozenset(replay.first)
                stop.set()
        how = {instance["service"]: instance["how"] for instance in await stage.api.instances()}
        stage.link.mend()
        after = frozenset(purchase.order_id for purchase in self.purchases) - placed
        killed = Killed(rollback_id=answer["rollback_id"], record=answer["rollback"] or {}, after=after)
        took = (killed.record.get("containment") or {}).get("services") or {}
        await promises.contained(self.story, stage, self.purchases, took, how)
        self.story.check(code == 0, "rescind kill reached what it waited for", why_not=f"it exited with {code}")
        return killed

    async def _rescind_kill(self, stage: Stage) -> tuple[int, dict[str, Any]]:
        detected_at = datetime.now(tz=UTC)
        arguments = ["kill", FLAG, "--reason", REASON, "--incident", INCIDENT, "--fault-at", self.fault_at.isoformat()]
        arguments += ["--detected-at", detected_at.isoformat(), "--yes", "--json", "--wait", "contained"]
        self.story.line(f"$ rescind {shlex.join(arguments)}")
        child = await stage.children.start("kill", [rescind_command(), *arguments], stage.rescind_environment)
        answer = json.loads(await child.line(timeout_seconds=KILL_SECONDS))
        return await child.process.wait(), answer

    async def _knock(self, stage: Stage, reserve: list[Purchase], stop: asyncio.Event) -> None:
        """A queue delivers confirmations to the service that is cut off, with no header that could tell it anything."""
        for purchase in reserve:
            if stop.is_set():
                return
            order = {
                "order_id": purchase.order_id,
                "customer": purchase.customer,
                "email": purchase.email,
                "amount_cents": purchase.amount_cents,
            }
            await stage.http.post(f"{stage.services[CUT_OFF]}/confirmations", json=order)
            await asyncio.sleep(KNOCK_SECONDS)

    async def _old_path(self, stage: Stage, replay: Replay, killed: Killed) -> None:
        """Orders go on, on the old path."""
        self.story.head("Orders go on")
        with self.story.progress("orders", replay.total) as bar:
            replay.on_progress = lambda: bar.at(len(replay.answers))
            await replay.until(replay.total)
        paths = Counter(replay.answers[order].path for order in killed.after)
        self.story.check(
            set(paths) == {OLD} and len(replay.answers) == replay.total,
            f"all {len(killed.after)} orders placed since the kill were taken, on the old path",
            why_not=str(dict(paths)),
        )
        self.story.line(f"{replay.counts['done once']} posts of an order that was done already were answered, not done again")

    async def _whole(self, stage: Stage, killed: Killed) -> dict[str, Any]:
        """Wait until the rollback has settled."""
        self.story.head("The coordinator undoes what the release did")
        deadline = time.monotonic() + WHOLE_SECONDS
        record = await stage.api.rollback(killed.rollback_id)
        with self.story.progress("effects", 1) as bar:
            while record["state"] != "settled" and time.monotonic() < deadline:
                await asyncio.sleep(LOOK_SECONDS)
                record = await stage.api.rollback(killed.rollback_id)
                kinds = (record.get("counts") or {}).values()
                total = sum(kind["admitted"] for kind in kinds)
                bar.at(total - sum(kind["pending"] + kind["waiting"] for kind in kinds), total)
        self.story.check(record["state"] == "settled", "the rollback settles", why_not=f"it is {record['state']}")
        return record

    async def _judge(self, stage: Stage, killed: Killed, record: dict[str, Any]) -> int:
        """Points 3 and 4: what the outside world has kept, against the purchases and the report."""
        self.story.head("The judge looks at the purchases, and the payment, mail and partner servers' own ledgers")
        ledgers = await stage.ledgers()
        effects = await stage.api.effects()
        await promises.fence_held(self.story, stage, record, effects)
        promises.doubts_resolved(self.story, effects)
        kinds = msgspec.convert(record.get("counts") or {}, dict[str, KindReport])
        findings = judge(Case(purchases=self.purchases, after=killed.after, ledgers=ledgers))
        findings += compare(ledgers, Report(kinds=kinds, ended=promises.ended(effects, killed.rollback_id)))
        self.story.timeline(record)
        self.story.counts(kinds)
        self.story.console.print()
        code = self._verdict(ledgers, findings)
        self._look_further(killed.rollback_id)
        return code

    def _verdict(self, ledgers: Ledgers, findings: list[Finding]) -> int:
        """Points 3 and 4, each by what was found of its sort; with sabotage, whether exactly that was found."""
        if findings:
            self.story.findings(findings)
        if self.options.sabotage:
            text = "the judge found the dropped refund and the doubled one, and nothing else"
            held = self.story.check(sabotage_found(findings), text) and self.story.failed == 0
            return SABOTAGE_FOUND if held else BROKEN
        new, old = ledgers.captured(NEW), ledgers.captured(OLD)
        texts = {
            Sort.MONEY: f"{len(new)} captures of the release are refunded, once each and in full; {len(old)} others survive",
            Sort.MAIL: f"one correction mail to each of the {len(ledgers.corrections())} customers who got a wrong one",
            Sort.WEBHOOK: f"{len(ledgers.delivered(NEW))} webhooks are irreversible, each with a signed retraction notice",
            Sort.REPORT: "the report adds up, and equals what the judge computes from outside, effect by effect",
        }
        for sort, text in texts.items():
            count = sum(finding.code.sort == sort for finding in findings)
            self.story.check(not count, text, why_not=f"{count} differences")
        return HELD if self.story.failed == 0 else BROKEN

    def _look_further(self, rollback_id: str) -> None:
        self.story.head("To look further")
        if self.options.keep is None:
            self.story.console.print("This Rescind is gone with the demo; `rescind demo --keep DIR` keeps it. Then:")
        data = (self.options.keep or Path("DIR")) / "rescind"
        report = f"rescind report {rollback_id} --env {ENVIRONMENT}"
        self.story.console.print(f"  rescind dev --data {data}", "starts it again; in another terminal:", sep="   # ")
        self.story.console.print(f"  set -a; . {data}/rescind.env; {report}", "effect by effect with --csv", sep="   # ")
        self.story.console.print("The API: GET /v1/rollbacks/ID, /v1/rollbacks/ID/report; all of it at /docs.")

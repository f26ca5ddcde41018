"""One run: everything is started, sagas are begun while faults happen, the faults heal, and everything must end."""

from __future__ import annotations

import asyncio
import itertools
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import rescind
from msgspec import Struct

from load.chaos.checks import violations
from load.chaos.faults import Fault, schedule
from load.chaos.history import History, Terms
from load.chaos.reading import QUERIES, read
from load.chaos.shop import GROUPS, SAGAS
from load.chaos.stage import ENVIRONMENT, SERVERS, WORKERS, Stage

PROCESSES = SERVERS + WORKERS + 1
CALLERS = 4
REST_SECONDS = (0.05, 0.5)
HEALED_SECONDS = 90.0
"""Longer than all that may still be under way: leases, windows, attempts and their delays."""
LOOK_SECONDS = 0.25
Progress = Callable[[str, float], None]
"""Told what happens, and how far the run has come, from 0 to 1."""


class Verdict(Struct, frozen=True, kw_only=True):
    """What a run showed. `broken`: by promise, empty lists where it held."""

    seed: int
    faults: Counter[str]
    fates: Counter[str]
    ends: Counter[str]
    healed_seconds: float
    broken: dict[str, list[str]]
    history: History

    @property
    def holds(self) -> bool:
        """Whether every promise held."""
        return not any(self.broken.values())


async def run(seed: int, seconds: float, progress: Progress, keep: Path | None = None) -> Verdict:
    """A run with faults for `seconds`, checked. `keep`: a folder for the database and the logs, which then stay."""
    with tempfile.TemporaryDirectory(prefix="rescind-chaos-", ignore_cleanup_errors=True) as passing:
        folder = keep or Path(passing)
        folder.mkdir(parents=True, exist_ok=True)
        stage, started = Stage(folder, seed), itertools.count(1)
        try:
            await stage.start(lambda: progress("starting", 0.1 * next(started) / PROCESSES))
            met = await _suffer(stage, schedule(seed, seconds), seconds, progress)
            progress("healing", 0.9)
            begun = time.monotonic()
            await stage.heal()
            await _still(stage)
            healed_seconds = time.monotonic() - begun
            history = await _history(stage)
        finally:
            await stage.stop()
    return Verdict(
        seed=seed,
        faults=met,
        fates=stage.provider.met,
        ends=Counter(f"{one.state}: {one.reason}" if one.state == "waiting" else one.state for one in history.instances),
        healed_seconds=healed_seconds,
        broken=violations(history),
        history=history,
    )


async def _suffer(stage: Stage, faults: list[Fault], seconds: float, progress: Progress) -> Counter[str]:
    """Sagas are started while faults happen; all faults that began have ended when it returns. How many of each."""
    met: Counter[str] = Counter()
    begun = time.monotonic()

    async def meet(fault: Fault) -> None:
        await asyncio.sleep(max(0.0, begun + fault.at - time.monotonic()))
        progress(fault.kind, 0.1 + 0.8 * fault.at / seconds)
        met[fault.kind] += 1
        await stage.meet(fault)

    options: Any = {"url": stage.gate_url, "token": stage.token, "environment": ENVIRONMENT, "service": "starter"}
    async with rescind.AsyncClient(**options, state_dir=stage.folder / "starter", sagas=list(SAGAS.values())) as client:
        callers = [asyncio.create_task(_call(client, number, stage.seed)) for number in range(CALLERS)]
        try:
            async with asyncio.TaskGroup() as group:
                for fault in faults:
                    group.create_task(meet(fault))
        finally:
            for caller in callers:
                caller.cancel()
            await asyncio.gather(*callers, return_exceptions=True)
    return met


async def _call(client: rescind.AsyncClient, number: int, seed: int) -> None:
    """Start sagas, one after another, and wait for some of them."""
    chance = random.Random(f"caller {number} {seed}")
    for count in itertools.count():
        name, saga = f"s{number}-{count}", SAGAS[chance.choice(sorted(SAGAS))]
        values = {"order_id": name, "amount_cents": chance.randrange(100, 10_000)}
        try:
            handle = await client.start(
                saga, id=name, input=values, subject=f"customer of {name}" if chance.random() < 0.5 else None
            )
            if chance.random() < 0.3:
                await handle.result(timeout_seconds=2.0)
        except (rescind.SagaError, rescind.Unreachable, rescind.ApiError, TimeoutError):
            pass
        await asyncio.sleep(chance.uniform(*REST_SECONDS))


async def _still(stage: Stage) -> None:
    """Wait until nothing moves; what still does after `HEALED_SECONDS` is for the checks to find."""
    deadline = time.monotonic() + HEALED_SECONDS
    connection = await stage.connection()
    try:
        quiet = 0
        while quiet < 4 and time.monotonic() < deadline:
            quiet = 0 if await connection.fetchval(QUERIES["moving"]) else quiet + 1
            await asyncio.sleep(LOOK_SECONDS)
    finally:
        await connection.close()


async def _history(stage: Stage) -> History:
    acknowledged = stage.gate.acknowledged
    connection = await stage.connection()
    try:
        found = await read(connection)
    finally:
        await connection.close()
    return msgspec.structs.replace(
        found,
        sagas={
            name: [Terms(name=step, moves_money=step == "capture", group=GROUPS.get(step)) for step in saga.steps]
            for name, saga in SAGAS.items()
        },
        entries=list(stage.provider.entries),
        started=acknowledged.started,
        reported=acknowledged.reported,
        told=acknowledged.told,
    )

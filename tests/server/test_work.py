"""`rescind work MODULE:SAGA`: a worker process undoes what its saga's handlers know how to undo (P13, P15)."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

from tests.server.processes import Process, rescind
from tests.server.serving import P, Served
from tests.waiting import until

FLAG = "checkout.new-flow"
MODULE = """
from pathlib import Path
import rescind

order = rescind.Saga("order", version="1", flag="checkout.new-flow")


@order.step(kind="seat.reserved", key="seat:{order_id}")
async def reserve(order_id: str) -> dict:
    return {}


@reserve.compensation
async def release(effect: rescind.Effect) -> None:
    with Path("released.txt").open("a") as file:
        file.write(effect.payload["seat"] + "\\n")
"""


async def test_a_worker_process_undoes_each_effect_once_and_stops_when_told(served: Served, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(MODULE)
    await served.put_flag(FLAG)
    token = await served.token("work:order", "define:order", "evaluate", "read", "effects")
    variables = {"RESCIND_URL": served.url, "RESCIND_TOKEN": token, "RESCIND_STATE_DIR": str(tmp_path / "state")}
    worker = Process(["work", "shop:order"], cwd=tmp_path, variables=variables)
    try:

        async def registered() -> bool:
            assert worker._process.poll() is None, worker.output
            return bool((await served.ok("GET", f"{P}/sagas"))["sagas"])

        await until(registered)
        effects = [
            {
                "key": f"seat:{number}", "kind": "seat.reserved", "flag": FLAG, "variant": "on",
                "payload": {"seat": f"seat {number}"},
                "saga": {"name": "order", "version": "1", "id": str(number)}, "step": "reserve",
            }
            for number in range(5)
        ]  # fmt: skip
        admitted = (await served.ok("POST", f"{P}/effects:admit", {"effects": effects}))["results"]
        reports = [{"effect_id": one["effect_id"], "token": one["token"], "outcome": "succeeded"} for one in admitted]
        await served.ok("POST", f"{P}/effects:report", {"reports": reports})
        identity = (await served.kill(FLAG))["rollback_id"]

        async def settled() -> Any:
            record = await served.ok("GET", f"/v1/rollbacks/{identity}")
            return record if record["state"] == "settled" else None

        record = await until(settled)
        assert record["counts"]["seat.reserved"]["compensated"] == 5
        assert sorted((tmp_path / "released.txt").read_text().splitlines()) == [f"seat {number}" for number in range(5)]
        assert await asyncio.to_thread(worker.end, signal.SIGTERM, 40) == 0, worker.output
        assert "Traceback" not in worker.output
    finally:
        await asyncio.to_thread(worker.end, signal.SIGKILL)


async def test_a_saga_that_is_not_there_is_said_in_a_sentence(served: Served, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("order = 1\n")
    (tmp_path / "odd.py").write_text("raise RuntimeError('no database here')\n")
    variables = {"RESCIND_URL": served.url, "RESCIND_TOKEN": served.admin}
    for target in ("shop", "nothing:order", "shop:order", "shop:other", "odd:order"):
        done = await asyncio.to_thread(rescind, "work", target, cwd=tmp_path, **variables)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False), done

"""Processes that die in the middle of an instance: others take over, and what was done is known (P10, P16, P18)."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import rescind

from tests.sdk.conftest import Site
from tests.server.processes import Process
from tests.waiting import until

SECONDS = 60.0
MODULE = """
import asyncio
from pathlib import Path
import rescind

order = rescind.Saga("order", version="1", flag="checkout.new-flow")
RETRY = {"first_seconds": 0.05, "factor": 1.0, "cap_seconds": 0.05, "attempts_max": 5}


def note(*words):
    with Path("ledger.txt").open("a") as file:
        file.write(" ".join(words) + "\\n")


@order.step(kind="seat.reserved", key="seat:{order_id}", settle_seconds=0, retry=RETRY)
async def reserve(order_id: str, effect: rescind.Effect) -> str:
    note("reserve", effect.provider_key)
    return "seat 1"


@order.step(
    kind="payment.captured", key="capture:{order_id}", settle_seconds=0, retry=RETRY, in_doubt="assume_done",
    act={"retry": RETRY},
)
async def capture(order_id: str, effect: rescind.Effect) -> str:
    note("begin", effect.provider_key)
    if Path("hold").exists():
        await asyncio.Event().wait()
    note("capture", effect.provider_key)
    return "paid"


@reserve.compensation
@capture.compensation
async def undo(effect: rescind.Effect) -> None:
    note("undo", effect.kind)


async def run() -> None:
    async with rescind.AsyncClient(service="checkout") as client:
        await client.run(order, id="4711", input={"order_id": "4711"}, lease_seconds=2)


if __name__ == "__main__":
    asyncio.run(run())
"""


class Shop:
    """A folder with the module, and what its processes wrote down."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.folder = folder
        (folder / "shop.py").write_text(MODULE)
        self.variables = {
            "RESCIND_URL": site.server.url,
            "RESCIND_TOKEN": site.token,
            "RESCIND_ENVIRONMENT": site.environment,
            "RESCIND_STATE_DIR": str(folder / "state"),
        }
        self.hold = folder / "hold"

    def ledger(self, word: str) -> list[str]:
        """What stands after this word, in order."""
        path = self.folder / "ledger.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.partition(" ")[2] for line in lines if line.startswith(f"{word} ")]

    @asynccontextmanager
    async def working(self) -> AsyncIterator[Process]:
        """A worker process."""
        arguments = ["work", "shop:order", "--lease-seconds", "2"]
        worker = Process(arguments, cwd=self.folder, variables=self.variables)
        try:
            yield worker
        finally:
            await asyncio.to_thread(worker.end, signal.SIGKILL)


@pytest.fixture
def shop(site: Site, tmp_path: Path) -> Shop:
    return Shop(site, tmp_path)


async def test_a_worker_that_is_killed_in_a_step_is_followed_by_another_under_the_same_key(site: Site, shop: Shop) -> None:
    shop.hold.touch()
    async with rescind.AsyncClient(**site.options) as client:
        async with shop.working() as first:
            order = loaded(shop)
            handle = await client.start(order, id="4711", input={"order_id": "4711"})
            await until(lambda: shop.ledger("begin"))
            await asyncio.to_thread(first.end, signal.SIGKILL)
        shop.hold.unlink()
        async with shop.working() as second:
            assert await handle.result(SECONDS) == {"reserve": "seat 1", "capture": "paid"}
            assert await asyncio.to_thread(second.end, signal.SIGTERM) == 0, second.output
    assert len(shop.ledger("reserve")) == 1
    assert len(shop.ledger("begin")) == 2
    assert set(shop.ledger("begin")) == set(shop.ledger("capture")), "the provider knows both attempts as one"
    assert shop.ledger("undo") == []


async def test_a_run_whose_process_is_killed_is_turned_back(site: Site, shop: Shop) -> None:
    shop.hold.touch()
    runner = Process(["shop.py"], cwd=shop.folder, variables=shop.variables, cli=[sys.executable])
    await until(lambda: shop.ledger("begin"))
    await asyncio.to_thread(runner.end, signal.SIGKILL)
    async with rescind.AsyncClient(**site.options) as client, shop.working():
        with pytest.raises(rescind.SagaUndone):
            await client.result("order", "4711", timeout_seconds=SECONDS)
    assert shop.ledger("undo") == ["payment.captured", "seat.reserved"], "in doubt counts as done, and is undone first"
    assert len(shop.ledger("reserve")) == 1


def loaded(shop: Shop) -> rescind.Saga:
    """The saga of the module, as the starting service knows it."""
    names: dict[str, Any] = {"__name__": "shop"}
    exec(compile((shop.folder / "shop.py").read_text(), "shop.py", "exec"), names)
    found = names["order"]
    assert isinstance(found, rescind.Saga)
    return found

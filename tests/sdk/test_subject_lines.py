"""Instances of one subject, one after another, from the SDK and over real worker processes (docs/decisions/0032)."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import rescind

from tests.sdk.conftest import Site
from tests.sdk.test_sagas_crashes import Shop, loaded
from tests.waiting import until

SECONDS = 60.0
MODULE = """
import asyncio
from pathlib import Path
import rescind

order = rescind.Saga("order", version="1", flag="checkout.new-flow", ordered_by_subject=True)


def note(*words):
    with Path("ledger.txt").open("a") as file:
        file.write(" ".join(words) + "\\n")


@order.step(kind="stock.reserved", key="stock:{order_id}")
async def reserve(order_id: str) -> None:
    note("begin", order_id)
    while Path("hold").exists():
        await asyncio.sleep(0.01)
    note("end", order_id)


@order.step(kind="seat.reserved", key="seat:{order_id}")
async def confirm(order_id: str) -> None:
    note("end", order_id)
"""


async def test_a_later_one_waits_over_the_death_of_the_earlier_ones_worker(site: Site, tmp_path: Path) -> None:
    shop = Shop(site, tmp_path)
    (tmp_path / "shop.py").write_text(MODULE)
    shop.hold.touch()
    saga = loaded(shop)
    async with rescind.AsyncClient(**site.options) as client:
        async with shop.working() as first:
            for name in ("1", "2"):
                await client.start(saga, id=name, subject="anna", input={"order_id": name})
            await until(lambda: shop.ledger("begin"))
            await asyncio.to_thread(first.end, signal.SIGKILL)
        shop.hold.unlink()
        async with shop.working():
            await client.result(saga, "2", timeout_seconds=SECONDS)
    assert shop.ledger("end") == ["1", "1", "2", "2"]
    assert shop.ledger("begin")[-1] == "2"


async def test_a_run_waits_until_it_leads(site: Site) -> None:
    done: list[str] = []
    gate = asyncio.Event()
    order = rescind.Saga("order", version="1", flag="checkout.new-flow", ordered_by_subject=True)

    @order.step(kind="stock.reserved", key="stock:{order_id}")
    async def reserve(order_id: str) -> None:
        done.append(f"begin {order_id}")
        if order_id == "1":
            await gate.wait()
        done.append(f"end {order_id}")

    async with rescind.AsyncClient(**site.options) as client:
        runs = [asyncio.create_task(client.run(order, id="1", subject="anna", input={"order_id": "1"}))]
        await until(lambda: done == ["begin 1"])
        runs.append(asyncio.create_task(client.run(order, id="2", subject="anna", input={"order_id": "2"})))
        await until(lambda: asyncio.to_thread(stands_in_line, site))
        gate.set()
        await asyncio.gather(*runs)
    assert done == ["begin 1", "end 1", "begin 2", "end 2"]


def stands_in_line(site: Site) -> bool:
    """Whether the second is there and stands in line."""
    found = site.api.request("GET", site.api.within("/sagas/order/instances"))["instances"]
    return any(one["id"] == "2" and one["reason"] == "in_line" for one in found)

"""A step's look-up: how a team writes it, and that it says what became of a step whose worker was killed (P16)."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest
import rescind
from rescind.handlers import handlers_of
from rescind.sightings import UnsaidError, result_of

from tests.sdk.conftest import Site
from tests.sdk.test_sagas import working
from tests.sdk.test_sagas_crashes import Shop, loaded
from tests.waiting import until

SECONDS = 60.0
RETRY = {"first_seconds": 0.05, "factor": 1.0, "cap_seconds": 0.05, "attempts_max": 5}
MODULE = """
import asyncio
from pathlib import Path
import rescind

order = rescind.Saga("order", version="1", flag="checkout.new-flow")
RETRY = {"first_seconds": 0.05, "factor": 1.0, "cap_seconds": 0.05, "attempts_max": 50}


ACT = {"retry": RETRY, "guarantee": "at_most_once"}


@order.step(kind="payment.captured", key="capture:{order_id}", settle_seconds=0, act=ACT)
async def capture(order_id: str, effect: rescind.Effect) -> str:
    Path("entered").touch()
    if Path("lost-before").exists():
        await asyncio.Event().wait()
    with Path("ledger.txt").open("a") as file:
        file.write(f"paid {effect.provider_key}\\n")
    if Path("lost-after").exists():
        await asyncio.Event().wait()
    return "paid"


@capture.look_up
def seen(effect: rescind.Effect) -> rescind.Done:
    ledger = Path("ledger.txt").read_text() if Path("ledger.txt").exists() else ""
    if f"paid {effect.provider_key}" in ledger:
        return rescind.Done("paid")
    raise rescind.NotDone("the provider knows nothing of it")


@capture.compensation
async def undo(effect: rescind.Effect) -> None: ...
"""


def declared(**options: Any) -> tuple[rescind.Saga, Any]:
    order = rescind.Saga("order", version="1", flag="checkout.new-flow")

    @order.step(kind="payment.capture", key="capture:{order_id}", **options)
    async def capture(order_id: str) -> None: ...

    return order, capture


def test_a_look_up_is_in_the_definition_and_served_by_claims() -> None:
    order, capture = declared(act={"timeout_seconds": 5})

    @capture.look_up
    async def seen(effect: rescind.Effect) -> rescind.Done:
        return rescind.Done()

    assert order.document()["steps"][0]["act"] == {"timeout_seconds": 5, "in_doubt": "look_up"}
    (handlers,) = handlers_of([order])
    assert (handlers.look_names, handlers.act_names, handlers.undo_names) == (["capture"], ["capture"], [])


def test_a_step_that_settles_its_doubt_otherwise_takes_no_look_up() -> None:
    _, capture = declared(act={"in_doubt": "assume_done"})
    with pytest.raises(rescind.ConfigurationError, match="assume_done"):
        capture.look_up(lambda effect: rescind.Done())


def test_only_done_says_that_it_was_done() -> None:
    assert result_of(rescind.Done({"id": 1})) == {"id": 1}
    with pytest.raises(UnsaidError, match="NoneType"):
        result_of(None)


async def test_a_look_up_that_returns_nothing_says_nothing_and_is_asked_again(site: Site) -> None:  # P16
    order = rescind.Saga("order", version="1", flag="checkout.new-flow")
    asked: list[str] = []

    @order.step(kind="payment.capture", key="capture:{order_id}", settle_seconds=0, act={"retry": RETRY})
    async def capture(order_id: str) -> None:
        raise TimeoutError("no answer")

    @capture.look_up
    async def seen(effect: rescind.Effect) -> Any:
        asked.append(effect.provider_key)
        return rescind.Done({"id": "pi_1"}) if len(asked) == 2 else None

    async with rescind.AsyncClient(**site.options) as client, working(client, order):
        handle = await client.start(order, id="4711", input={"order_id": "4711"})
        assert await handle.result(SECONDS) == {"capture": {"id": "pi_1"}}
    assert asked[0] == asked[1]


@pytest.mark.parametrize("lost", ["lost-before", "lost-after"])
async def test_what_a_killed_worker_did_or_never_did_is_looked_up_and_done_once(
    site: Site, tmp_path: Path, lost: str
) -> None:  # P13, P16
    shop = Shop(site, tmp_path)
    (tmp_path / "shop.py").write_text(MODULE)
    (tmp_path / lost).touch()
    async with rescind.AsyncClient(**site.options) as client:
        async with shop.working() as first:
            handle = await client.start(loaded(shop), id="4711", input={"order_id": "4711"})
            await until((tmp_path / "entered").exists)
            if lost == "lost-after":
                await until(lambda: shop.ledger("paid"))
            await asyncio.to_thread(first.end, signal.SIGKILL)
        (tmp_path / lost).unlink()
        async with shop.working():
            assert await handle.result(SECONDS) == {"capture": "paid"}
    assert len(shop.ledger("paid")) == 1
    assert {effect["status"] for effect in await asyncio.to_thread(site.effects)} == {"succeeded"}

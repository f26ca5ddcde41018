"""Saga instances from the SDK, against a real server: run here, started for workers, awaited anywhere (P8, P10, P14, P18)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import rescind
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from tests.sdk.conftest import FLAG, Site
from tests.sdk.shop import Shop
from tests.waiting import until

RESULTS = {"reserve": {"of": "4711"}, "capture": {"of": "4711 after 4711"}, "confirm": {"of": "4711"}}
SECONDS = 60.0


def declined() -> rescind.NotDone:
    return rescind.NotDone("the card was declined", final=True)


@asynccontextmanager
async def working(client: rescind.AsyncClient, *sagas: rescind.Saga, **options: Any) -> AsyncIterator[asyncio.Task[None]]:
    """A worker in the background."""
    work = asyncio.create_task(client.work(*sagas, **options))
    try:
        yield work
    finally:
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work


async def test_a_run_carries_each_step_out_in_order_and_gives_what_they_gave(site: Site) -> None:
    shop = Shop()
    async with rescind.AsyncClient(**site.options) as client:
        assert await client.run(shop.saga, id="4711", input={"order_id": "4711"}) == RESULTS
        assert shop.done == ["reserve", "capture", "confirm"]
        assert await client.result("order", "4711") == RESULTS
    effects = await asyncio.to_thread(site.effects)
    assert {(effect["step"], effect["status"], effect["variant"]) for effect in effects} == {
        (step, "succeeded", "on") for step in RESULTS
    }


async def test_a_run_that_fails_is_undone_in_reverse_and_says_why(site: Site) -> None:
    # P14
    shop = Shop()
    shop.failing["confirm"] = declined
    async with rescind.AsyncClient(**site.options) as client:
        with pytest.raises(rescind.SagaUndone, match="declined") as undone:
            await client.run(shop.saga, id="4711", input={"order_id": "4711"})
    assert undone.value.cause["step"] == "confirm"
    assert shop.undone == ["payment.capture", "stock.reserve"]


async def test_what_is_started_is_carried_out_by_any_worker_and_awaited_from_anywhere(site: Site) -> None:
    shop = Shop()
    async with rescind.AsyncClient(**site.options) as worker, rescind.AsyncClient(**site.options) as caller:
        handle = await caller.start(shop.saga, id="4711", input={"order_id": "4711"})
        with pytest.raises(TimeoutError, match="has not ended"):
            await handle.result(timeout_seconds=0.2)
        async with working(worker, shop.saga):
            assert await handle.result(SECONDS) == RESULTS
            assert await worker.result(shop.saga, "4711", timeout_seconds=SECONDS) == RESULTS
    assert shop.done == ["reserve", "capture", "confirm"]


async def test_a_started_one_that_fails_is_undone_by_the_worker(site: Site) -> None:
    shop = Shop()
    shop.failing["capture"] = declined
    async with rescind.AsyncClient(**site.options) as client, working(client, shop.saga):
        handle = await client.start(shop.saga, id="4711", input={"order_id": "4711"})
        with pytest.raises(rescind.SagaUndone) as undone:
            await handle.result(SECONDS)
    assert undone.value.cause["step"] == "capture"
    assert shop.undone == ["stock.reserve"]
    assert "confirm" not in shop.done


async def test_starting_again_changes_nothing_and_another_input_is_a_conflict(site: Site) -> None:
    # P9
    shop = Shop()
    async with rescind.AsyncClient(**site.options) as client, working(client, shop.saga):
        handles = await asyncio.gather(*(client.start(shop.saga, id="1", input={"order_id": "4711"}) for _ in range(5)))
        results = await asyncio.gather(*(handle.result(SECONDS) for handle in handles))
        assert results == [RESULTS] * 5
        with pytest.raises(rescind.SagaConflict):
            await client.start(shop.saga, id="1", input={"order_id": "another"})
        with pytest.raises(rescind.SagaRefused, match="is missing"):
            await client.start(shop.saga, id="2", input={})
        with pytest.raises(rescind.SagaUnknown):
            await client.result(shop.saga, "3", timeout_seconds=SECONDS)
    assert shop.done == ["reserve", "capture", "confirm"]


async def test_many_are_started_and_awaited_in_few_requests(site: Site) -> None:
    shop = Shop()
    async with rescind.AsyncClient(**site.options) as caller, rescind.AsyncClient(**site.options) as worker:
        async with working(worker, shop.saga, concurrency=64):
            await caller.run(shop.saga, id="first", input={"order_id": "first"})
            before = caller.core.api.call_count
            handles = await asyncio.gather(
                *(caller.start(shop.saga, id=str(number), input={"order_id": str(number)}) for number in range(200))
            )
            started = caller.core.api.call_count - before
            await asyncio.gather(*(handle.result(SECONDS) for handle in handles))
    assert started <= 10
    assert worker.core.api.call_count < 300, "of 600 steps"
    assert shop.done.count("confirm") == 201


async def test_a_failure_that_another_try_mends_is_tried_again(site: Site) -> None:
    shop = Shop()
    tries = iter([rescind.NotDone("busy")])
    original = shop.act

    async def act(step: str, of: str) -> dict[str, Any]:
        if step == "capture" and (error := next(tries, None)):
            raise error
        return await original(step, of)

    shop.act = act  # type: ignore[method-assign]
    async with rescind.AsyncClient(**site.options) as client, working(client, shop.saga):
        handle = await client.start(shop.saga, id="4711", input={"order_id": "4711"})
        assert await handle.result(SECONDS) == RESULTS
    assert list(shop.keys.values()) == [2], "the same key for the provider in both"


async def test_a_cancelled_caller_leaves_its_run_to_whoever_takes_over(site: Site) -> None:
    # P16, P18
    shop = Shop()
    shop.held["capture"] = asyncio.Event()
    async with rescind.AsyncClient(**site.options) as client, rescind.AsyncClient(**site.options) as other:
        run = asyncio.create_task(client.run(shop.saga, id="4711", input={"order_id": "4711"}, lease_seconds=2))
        await until(lambda: "capture" in shop.done)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        shop.held.clear()
        async with working(other, shop.saga):
            with pytest.raises(rescind.SagaUndone):
                await other.result(shop.saga, "4711", timeout_seconds=SECONDS)
    assert shop.undone == ["payment.capture", "stock.reserve"], "in doubt counts as done, and is undone first"


async def test_a_step_may_take_longer_than_its_lease(site: Site) -> None:
    # P13
    shop = Shop()
    shop.held["capture"] = asyncio.Event()
    seen: set[str] = set()
    async with rescind.AsyncClient(**site.options) as client, working(client, shop.saga, lease_seconds=1):
        handle = await client.start(shop.saga, id="4711", input={"order_id": "4711"})
        await until(lambda: "capture" in shop.done)
        await until(lambda: leases(site, seen))
        shop.held["capture"].set()
        assert await handle.result(SECONDS) == RESULTS
    assert list(shop.keys.values()) == [1]


async def leases(site: Site, seen: set[str]) -> bool:
    """Whether the lease of `capture` was seen to move five times: longer than it was asked for."""
    path = site.api.within("/sagas/order/instances/4711")
    steps = (await asyncio.to_thread(site.api.request, "GET", path))["steps"]
    seen.update(step["lease_until"] for step in steps if step["step"] == "capture")
    return len(seen) > 5


async def test_a_client_closes_at_once_while_someone_waits(site: Site) -> None:
    shop = Shop()
    async with rescind.AsyncClient(**site.options) as client:
        handle = await client.start(shop.saga, id="4711", input={"order_id": "4711"})
        waiting = asyncio.create_task(handle.result())
        await until(lambda: client.core.instances.tasks())
    with pytest.raises(rescind.ClientClosed):
        await waiting
    assert client.core.instances.tasks() == []
    listed = await asyncio.to_thread(site.api.request, "GET", site.api.within("/instances"))
    assert [one["live"] for one in listed["instances"]] == [False], "it has signed off"


async def test_a_worker_that_has_gone_takes_nothing_with_it(site: Site) -> None:
    # P10: a claim that waited at the server when its worker stopped is answered to nobody
    gone, shop = Shop(), Shop()
    async with rescind.AsyncClient(**site.options, sagas=[shop.saga]) as client:
        async with rescind.AsyncClient(**site.options) as first, working(first, gone.saga):
            earlier = await client.start(shop.saga, id="first", input={"order_id": "first"})
            assert await earlier.result(SECONDS)
        handle = await client.start(shop.saga, id="4711", input={"order_id": "4711"})
        async with working(client, shop.saga):
            assert await handle.result(SECONDS) == RESULTS
    effects = await asyncio.to_thread(site.effects)
    assert {effect["attempt"] for effect in effects} == {1}


async def test_one_worker_serves_several_versions(site: Site) -> None:
    first, second = Shop("1"), Shop("2")

    @second.saga.step(kind="parcel.ship", key="ship:{order_id}", step_class="irreversible")
    def ship(order_id: str) -> str:
        second.done.append("ship")
        return f"parcel {order_id}"

    async with rescind.AsyncClient(**site.options) as client, working(client, first.saga, second.saga):
        sagas = (first.saga, second.saga)
        handles = [await client.start(saga, id=saga.version, input={"order_id": saga.version}) for saga in sagas]
        results = [await handle.result(SECONDS) for handle in handles]
    assert (first.done, second.done) == (["reserve", "capture", "confirm"], ["reserve", "capture", "confirm", "ship"])
    assert results[1]["ship"] == "parcel 2"


async def test_of_a_killed_flag_nothing_begins_and_the_old_path_goes_on(site: Site) -> None:
    # P8
    shop = Shop()
    async with rescind.AsyncClient(**site.options, sagas=[shop.saga]) as client:
        client.boolean(FLAG, False)
        await asyncio.to_thread(site.kill)
        with pytest.raises(rescind.SagaKilled):
            await client.start(shop.saga, id="1", input={"order_id": "1"}, variant="on")
        with pytest.raises(rescind.SagaKilled):
            await client.run(shop.saga, id="2", input={"order_id": "2"}, variant="on")
        assert shop.done == []
        await until(lambda: not client.boolean(FLAG, True))
        results = await client.run(shop.saga, id="3", input={"order_id": "4711"})
    assert results == RESULTS


async def test_a_kill_takes_what_a_running_instance_has_done(site: Site) -> None:
    # P8, P14
    shop = Shop()
    shop.held["capture"] = asyncio.Event()
    async with rescind.AsyncClient(**site.options) as client, working(client, shop.saga):
        handle = await client.start(shop.saga, id="4711", input={"order_id": "4711"})
        await until(lambda: "capture" in shop.done)
        await asyncio.to_thread(site.kill)
        shop.held["capture"].set()
        with pytest.raises(rescind.SagaKilled):
            await handle.result(SECONDS)
        await until(lambda: len(shop.undone) == 2)
    assert shop.undone == ["payment.capture", "stock.reserve"]
    assert "confirm" not in shop.done


async def test_a_saga_that_finishes_first_is_done_and_then_undone_by_the_kill(site: Site) -> None:
    # P8, P14
    shop = Shop()
    shop.saga.on_kill = "finish_then_compensate"
    shop.held["capture"] = asyncio.Event()
    async with rescind.AsyncClient(**site.options) as client, working(client, shop.saga):
        handle = await client.start(shop.saga, id="4711", input={"order_id": "4711"})
        await until(lambda: "capture" in shop.done)
        await asyncio.to_thread(site.kill)
        await until(lambda: not client.boolean(FLAG, True))
        shop.held["capture"].set()
        assert await handle.result(SECONDS) == RESULTS
        await until(lambda: len(shop.undone) >= 2)
    assert shop.done[-1] == "confirm"
    assert shop.undone[-1] == "stock.reserve"


async def test_a_step_evaluates_as_a_request_of_its_own(site: Site) -> None:
    # P3
    saga, seen = rescind.Saga("seeing", version="1", flag=FLAG), []
    site.put("other.flag")
    async with rescind.AsyncClient(**site.options) as client:
        assert client.boolean("other.flag", False)

        @saga.step(kind="look", key="look:{id}", step_class="irreversible")
        def look(id: str) -> None:  # noqa: A002
            pin = client.core.context.pin.get()
            seen.append((client.boolean("other.flag", False), pin is not None and pin.revision == client.core.current.revision))

        await client.run(saga, id="1", input={"id": "1"})
    assert seen == [(True, True)]


async def test_a_step_goes_on_in_the_trace_that_its_instance_was_started_in(site: Site) -> None:
    saga, seen = rescind.Saga("traced", version="1", flag=FLAG), []

    @saga.step(kind="look", key="look:{n}", step_class="irreversible")
    async def look(n: int) -> None:
        seen.append(trace.get_current_span().get_span_context().trace_id)

    async with rescind.AsyncClient(**site.options) as client, working(client, saga):
        with TracerProvider().get_tracer("shop").start_as_current_span("order") as span:
            handle = await client.start(saga, id="1", input={"n": 1})
        await handle.result(SECONDS)
        await (await client.start(saga, id="2", input={"n": 2})).result(SECONDS)
    assert seen == [span.get_span_context().trace_id, 0]


def test_the_synchronous_client_runs_and_starts(site: Site) -> None:
    saga = rescind.Saga("simple", version="1", flag=FLAG)

    @saga.step(kind="add", key="add:{n}", step_class="irreversible")
    def add(n: int) -> int:
        return n + 1

    with rescind.Client(**site.options) as client:
        assert client.run(saga, id="1", input={"n": 1}) == {"add": 2}
        handle = client.start(saga, id="1", input={"n": 1})
        assert handle.result(SECONDS) == {"add": 2}
        assert client.result("simple", "1") == {"add": 2}

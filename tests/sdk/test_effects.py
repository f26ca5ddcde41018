"""Effects through the SDK against a real server: the fence, keys, doubt, and news that must not be lost."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from typing import Any

import pytest
import rescind
from rescind.clock import Clock
from rescind.journal import read_lines
from rescind.permits import START_WINDOW_MS

from tests.sdk.conftest import FLAG, Site, capture
from tests.sdk.proxy import proxied
from tests.waiting import until


class Provider:
    """The world outside: counts what was done."""

    def __init__(self) -> None:
        self.captured: list[str] = []

    async def capture(self, effect: rescind.Effect) -> dict[str, str]:
        self.captured.append(effect.provider_key)
        return {"id": f"pi_{len(self.captured)}"}


async def test_an_effect_is_done_once_and_replayed_with_its_result(site: Site) -> None:
    # P9, P10
    provider = Provider()
    async with rescind.AsyncClient(**site.options) as client:
        assert client.boolean(FLAG, False, {"targetingKey": "u"})
        for replayed in (False, True):
            async with capture(client, "capture:1", subject="u", saga=("order", "1", "1"), step="capture") as effect:
                assert effect.replayed is replayed
                if not effect.replayed:
                    assert (effect.variant, effect.attempt) == ("on", 1)
                    effect.result = await provider.capture(effect)
                assert effect.result == {"id": "pi_1"}
    assert len(provider.captured) == 1
    (row,) = await asyncio.to_thread(site.effects)
    assert row["status"] == "succeeded"
    assert row["id"] == provider.captured[0]


def test_the_same_object_is_a_context_manager_for_threads(site: Site) -> None:
    # P9
    with rescind.Client(**site.options) as client:
        results: list[bool] = []

        def act(number: int) -> None:
            with capture(client, f"capture:{number % 10}") as effect:
                results.append(effect.replayed)
                effect.result = number

        threads = [threading.Thread(target=act, args=(number,)) for number in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        act(3)
        assert results == [False] * 10 + [True]


async def test_the_key_held_by_another_or_used_for_another_payload_is_refused(site: Site) -> None:
    # P9
    async with rescind.AsyncClient(**site.options) as client:
        async with capture(client, "capture:1"):
            with pytest.raises(rescind.EffectInProgress) as refused:
                async with capture(client, "capture:1"):
                    pytest.fail("two hold the right to act")
        assert refused.value.retry_after_ms
        with pytest.raises(rescind.EffectConflict):
            async with client.effect("payment.capture", flag=FLAG, key="capture:1", payload={"amount_cents": 1}):
                pytest.fail("another payload")
        with pytest.raises(rescind.EffectRefused) as unknown:
            async with client.effect("payment.capture", flag="checkout.new-flo", key="k", payload={}):
                pytest.fail("an unknown flag")
        assert unknown.value.error["code"] == "unknown_flag"


async def test_an_exception_leaves_the_effect_in_doubt_and_not_done_lets_the_key_be_used_again(site: Site) -> None:
    # P10
    async with rescind.AsyncClient(**site.options) as client:
        with pytest.raises(TimeoutError):
            async with capture(client, "doubt"):
                raise TimeoutError("the provider said nothing")
        with pytest.raises(rescind.EffectInProgress) as refused:
            async with capture(client, "doubt"):
                pytest.fail("its outcome is not known")
        assert refused.value.effect_status == "in_doubt"
        with pytest.raises(rescind.NotDone):
            async with capture(client, "declined"):
                raise rescind.NotDone("card declined")
        async with capture(client, "declined") as effect:
            assert effect.attempt == 2
    assert sorted(await asyncio.to_thread(site.statuses)) == ["in_doubt", "succeeded"]


async def test_an_error_that_the_definition_lists_is_proof_that_nothing_happened(site: Site) -> None:
    # P10
    order = rescind.Saga("order", version="1", flag=FLAG)
    order.declare(
        "capture", kind="payment.capture", key="capture:{order_id}", proof_of_failure=[ConnectionRefusedError, "Declined"]
    )
    async with rescind.AsyncClient(**site.options, sagas=[order]) as client:
        with pytest.raises(ConnectionRefusedError):
            async with capture(client, "1", saga=order.instance("1"), step="capture"):
                raise ConnectionRefusedError
    assert await asyncio.to_thread(site.statuses) == ["failed"]
    assert site.api.request("GET", site.api.within("/sagas"))["sagas"]


async def test_a_cancelled_body_is_in_doubt_and_the_cancellation_goes_on(site: Site) -> None:
    # P10
    begun = asyncio.Event()

    async def act(client: rescind.AsyncClient) -> None:
        async with capture(client, "1"):
            begun.set()
            await asyncio.Event().wait()

    async with rescind.AsyncClient(**site.options) as client:
        task = asyncio.create_task(act(client))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: in_threads(site.statuses, ["in_doubt"]))


async def test_the_death_of_a_process_leaves_its_effect_on_record(site: Site) -> None:
    # P10
    code = f"""
        import os, rescind
        client = rescind.Client(**{ {name: str(value) for name, value in site.options.items()}!r})
        with client.effect("payment.capture", flag={FLAG!r}, key="1", payload={{}}):
            os._exit(9)
    """
    ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", textwrap.dedent(code)], timeout=120)
    assert ended.returncode == 9
    assert await asyncio.to_thread(site.statuses) == ["admitted"]


async def test_after_a_kill_the_new_path_is_refused_and_the_old_path_goes_on(site: Site) -> None:
    # P8
    async with rescind.AsyncClient(**site.options) as client:
        assert client.boolean(FLAG, False) is True
        answer = await asyncio.to_thread(site.kill)
        with pytest.raises(rescind.EffectKilled) as killed:
            async with capture(client, "new:1"):
                pytest.fail("admitted under the closed epoch")
        assert killed.value.rollback_id == answer["rollback_id"]
        assert killed.value.off_variant == "off"
        assert client.boolean(FLAG, True) is False, "the refusal itself teaches the instance"
        async with capture(client, "old:1") as effect:
            assert effect.variant == "off"
    assert await asyncio.to_thread(site.statuses) == ["succeeded"]


async def test_no_body_begins_after_an_acknowledged_kill(site: Site) -> None:
    # P8
    async with rescind.AsyncClient(**site.options) as client:
        holding = asyncio.Event()
        admitted = await granted(client, "held")

        async def act() -> None:
            async with capture(client, "running"):
                holding.set()
                await until(lambda: FLAG in client.core.current.killed)

        running = asyncio.create_task(act())
        await holding.wait()
        await asyncio.to_thread(site.kill)
        await running
        verdict, kill = client.core.permits.bodies.begin(admitted)
        assert verdict.value == "killed"
        assert kill is not None
        await client.core.permits.give_back(admitted)
        rows = await until(lambda: drained(site))
        assert {row["key"]: row["status"] for row in rows} == {"held": "failed", "running": "succeeded"}


async def test_a_permission_that_ran_out_is_given_back_and_asked_for_again(site: Site) -> None:
    # P8
    async with rescind.AsyncClient(**site.options) as client:
        client.core.permits.bodies._clock = SlowStart()
        async with capture(client, "1") as effect:
            assert effect.attempt == 2
    assert await asyncio.to_thread(site.statuses) == ["succeeded"]


@pytest.mark.parametrize("is_lost", [False, True], ids=["the answer is slow", "the answer is lost and asked for again"])
async def test_the_window_counts_from_before_the_first_ask_and_not_from_the_answer(site: Site, is_lost: bool) -> None:
    # P8, hazards 1 and 10: a permission that spent its window on the wire begins nothing
    hand = HandClock()
    async with proxied(site) as proxy, rescind.AsyncClient(**{**site.options, "url": proxy.url}) as client:
        client.core.permits._admission._clock = client.core.permits.bodies._clock = hand  # type: ignore[attr-defined]
        proxy.lose_answers_to = b"/effects:admit" if is_lost else None
        proxy.meanwhile = (b"/effects:admit", hand.pass_window)
        assert (await enter(client, "1")).attempt == 2, "the first was given back"
        assert proxy.lost_count == int(is_lost)
        assert (await enter(client, "2")).attempt == 1
    assert await asyncio.to_thread(site.statuses) == ["succeeded", "succeeded"]


async def test_a_long_body_keeps_its_lease(site: Site) -> None:
    # P8
    async with rescind.AsyncClient(**site.options) as client:
        async with capture(client, "1", lease_seconds=1.5):
            (first,) = await asyncio.to_thread(site.effects)
            await until(lambda: later_lease(site, first["lease_until"]))
            with pytest.raises(rescind.EffectInProgress):
                async with capture(client, "1"):
                    pytest.fail("two hold the right to act")


async def test_an_outcome_is_journaled_while_the_server_is_down_and_delivered_when_it_is_back(fragile: Site) -> None:
    # P11
    async with rescind.AsyncClient(**fragile.options) as client:
        async with capture(client, "1") as effect:
            fragile.server.kill()
            effect.result = {"id": "pi_1"}
        assert client.status().held_outcome_count == 1
        (journal,) = fragile.state_dir.glob("*/journals/*.journal")
        assert [report.outcome for report in read_lines(journal.read_bytes())] == ["succeeded"]
        await asyncio.to_thread(fragile.server.start)
        await until(lambda: client.status().held_outcome_count == 0)
        assert await asyncio.to_thread(fragile.statuses) == ["succeeded"]
    assert list(fragile.state_dir.glob("*/journals/*.journal")) == []


async def test_an_outcome_in_a_dead_processs_journal_is_delivered_by_the_next_one(fragile: Site) -> None:
    # P11
    code = f"""
        import os, signal, rescind
        client = rescind.Client(**{ {name: str(value) for name, value in fragile.options.items()}!r})
        with client.effect("payment.capture", flag={FLAG!r}, key="1", payload={{}}) as effect:
            os.kill({fragile.server.pid}, signal.SIGKILL)
            effect.result = {{"id": "pi_1"}}
        os._exit(9)
    """
    ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", textwrap.dedent(code)], timeout=120)
    assert ended.returncode == 9
    fragile.server.kill()
    await asyncio.to_thread(fragile.server.start)
    assert await asyncio.to_thread(fragile.statuses) == ["admitted"]
    async with rescind.AsyncClient(**fragile.options):
        await until(lambda: in_threads(fragile.statuses, ["succeeded"]))


async def test_a_lease_is_extended_while_the_body_runs(site: Site) -> None:
    # P8: what has not reported is not compensated before its lease has run out
    async with rescind.AsyncClient(**site.options) as client, capture(client, "1", lease_seconds=3):
        (before,) = await asyncio.to_thread(site.effects)

        async def extended() -> bool:
            (now,) = await asyncio.to_thread(site.effects)
            return bool(now["lease_until"] > before["lease_until"])

        await until(extended)


async def test_an_effect_that_ends_after_close_is_journaled(site: Site) -> None:
    # P11
    client = rescind.Client(**site.options)
    assert await asyncio.to_thread(client.wait_ready)
    context = capture(client, "1")
    effect = await asyncio.to_thread(context.__enter__)
    effect.result = "done"
    await asyncio.to_thread(client.close)
    await asyncio.to_thread(context.__exit__, None, None, None)
    (journal,) = site.state_dir.glob("*/journals/*.journal")
    assert [report.result for report in read_lines(journal.read_bytes())] == ["done"]
    with pytest.raises(rescind.ClientClosed):
        await asyncio.to_thread(capture(client, "2").__enter__)


async def test_a_server_that_is_away_refuses_effects_in_bounded_time(fragile: Site) -> None:
    # P8
    async with rescind.AsyncClient(**fragile.options) as client:
        fragile.server.kill()
        with pytest.raises(rescind.Unreachable):
            async with capture(client, "1"):
                pytest.fail("nothing was admitted")


async def test_an_answer_that_was_lost_costs_nothing(site: Site) -> None:
    # P9: the ask is repeated under its token, and the ledger knows it
    async with proxied(site) as proxy, rescind.AsyncClient(**{**site.options, "url": proxy.url}) as client:
        proxy.lose_answers_to = b"/effects:admit"
        effect = await enter(client, "1")
        assert proxy.lost_count == 1
        assert effect.attempt == 1
        proxy.lose_answers_to = b"/effects:report"
        await enter(client, "2")
        assert proxy.lost_count == 2
        await until(lambda: client.status().held_outcome_count == 0)
    assert await asyncio.to_thread(site.statuses) == ["succeeded", "succeeded"]


async def test_an_instance_cut_off_from_the_stream_and_the_snapshot_still_leaves_the_new_path(site: Site) -> None:
    # P4, P8: the refusal of the fence alone is enough
    async with proxied(site) as proxy, rescind.AsyncClient(**{**site.options, "url": proxy.url}) as client:
        proxy.refuse = (b"/stream", b"/snapshot")
        await proxy.cut()
        answer = await asyncio.to_thread(site.kill)
        assert client.boolean(FLAG, False) is True
        with pytest.raises(rescind.EffectKilled):
            await enter(client, "new:1")
        details = client.boolean_details(FLAG, True)
        assert details.value is False
        assert details.metadata["rescind.rollback_id"] == answer["rollback_id"]
        assert (await enter(client, "old:1")).variant == "off"
        await asyncio.to_thread(site.lift)
        proxy.refuse = ()
        await until(lambda: client.boolean(FLAG, False))


async def test_what_cannot_be_written_as_json_is_done_all_the_same(site: Site) -> None:
    # P10
    async with rescind.AsyncClient(**site.options) as client:
        async with capture(client, "1") as effect:
            effect.result = object()
    (row,) = await asyncio.to_thread(site.effects)
    assert row["status"] == "succeeded"


async def test_a_thousand_effects_leave_in_few_requests(site: Site) -> None:
    async with rescind.AsyncClient(**site.options) as client:
        before = client.core.api.call_count
        await asyncio.gather(*(enter(client, str(number)) for number in range(1000)))
        assert client.core.api.call_count - before < 200
    assert await asyncio.to_thread(site.statuses) == ["succeeded"] * 100, "the first page"


async def enter(client: rescind.AsyncClient, key: str) -> rescind.Effect:
    """An effect with a body that does nothing."""
    effect: rescind.Effect
    async with capture(client, key) as effect:
        effect.result = key
    return effect


async def granted(client: rescind.AsyncClient, key: str) -> Any:
    """A permission whose body has not begun."""
    return (await client.core.permits.permit(capture(client, key)._request(), None)).permission


async def in_threads(statuses: Any, wanted: list[str]) -> bool:
    return bool(await asyncio.to_thread(statuses) == wanted)


async def drained(site: Site) -> list[dict[str, Any]] | None:
    """The ledger, once nothing in it is pending."""
    rows = await asyncio.to_thread(site.effects)
    return rows if all(row["status"] != "admitted" for row in rows) else None


async def later_lease(site: Site, than: str) -> bool:
    (row,) = await asyncio.to_thread(site.effects)
    return bool(row["lease_until"] > than)


class SlowStart(Clock):
    """A process that stalls for three seconds once, between the answer and the body."""

    def __init__(self) -> None:
        self._stalls = iter((3.0,))

    def monotonic(self) -> float:
        return super().monotonic() + next(self._stalls, 0.0)


class HandClock(Clock):
    """A clock that can be moved on by more than a start window."""

    def __init__(self) -> None:
        self._passed = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self._passed

    def pass_window(self) -> None:
        self._passed += START_WINDOW_MS / 1000 + 0.5

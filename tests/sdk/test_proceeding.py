"""Effects that go on without the server, on a synced line: delivered, undone, and waited for (P8, P9, P10, P11, P12)."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import rescind
from rescind.errors import Unreachable
from rescind.journal import read_lines
from rescind.proceeding import fault_of
from rescind.wire import EffectRequest, ProceededEffect, effect_name

from tests.children import die_with_parent
from tests.sdk.conftest import FLAG, Site, capture
from tests.sdk.proxy import Proxy, proxied
from tests.waiting import until


class Shop:
    """A saga whose captures are undone by a handler, also where it is not known whether they were done."""

    def __init__(self) -> None:
        self.refunded: list[rescind.Effect] = []
        self.saga = rescind.Saga("order", version="1", flag=FLAG)
        step = self.saga.declare(
            "capture", kind="payment.capture", key="capture:{order_id}", settle_seconds=0, in_doubt="assume_done"
        )
        step.compensation(self.refund)

    async def refund(self, effect: rescind.Effect) -> dict[str, str]:
        self.refunded.append(effect)
        return {"refund": effect.id}


@pytest.fixture
def proceeding(fragile: Site) -> Site:
    """An environment whose flag lets effects go on without the server, which this test may kill."""
    fragile.put(on_unreachable="proceed", services=["checkout"])
    return fragile


@pytest.fixture
def reached(site: Site) -> Site:
    """The same on the server that stays up."""
    site.put(on_unreachable="proceed", services=["checkout"])
    return site


def name_of(site: Site, key: str) -> str:
    """The effect's name, which is the key that its provider is given."""
    return str(effect_name(site.environment, "payment.capture", key))


def lines(site: Site) -> list[ProceededEffect]:
    """What stands in the journals."""
    paths = sorted(site.state_dir.glob("*/journals/*.proceeded"))
    return [line for path in paths for line in read_lines(path.read_bytes(), ProceededEffect)]


async def rollback(site: Site, rollback_id: str) -> dict[str, Any]:
    """As the server shows it."""
    found = await asyncio.to_thread(site.api.request, "GET", f"/v1/rollbacks/{rollback_id}")
    assert isinstance(found, dict)
    return found


async def missing(site: Site, rollback_id: str) -> list[str]:
    """The instances for which it waits."""
    found = await rollback(site, rollback_id)
    holders = (found["proceeding"] or {}).get("holders", [])
    return [holder["instance"] for holder in holders if holder["cleared_at"] is None]


async def is_in(site: Site, rollback_id: str, state: str) -> bool:
    return bool((await rollback(site, rollback_id))["state"] == state)


async def served(client: rescind.AsyncClient) -> None:
    """The flag is known to let effects go on, and the server has heard so."""
    await until(lambda: client.core.proceeding.allows(FLAG))
    await client.core.beats.beat(False)


async def cut_off(proxy: Proxy) -> None:
    """Nobody reaches the server by it any more."""
    proxy.refuse = (b"/",)
    await proxy.cut()


def through(site: Site, proxy: Proxy, **more: Any) -> rescind.AsyncClient:
    """A client behind the proxy."""
    return rescind.AsyncClient(**{**site.options, "url": proxy.url, **more})


CUT_SHORT = """
with effect("done") as done:
    done.result = {"id": "pi_1"}
with effect("cut"):
    os._exit(9)
"""
FULL_DISK = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
try:
    with effect("1"):
        os._exit(1)
except rescind.Unreachable as error:
    os._exit(9 if "nothing begins without a line" in str(error) and client.status().disk_error else 2)
"""


async def run_apart(what: str, url: str, site: Site, cut: Callable[[], Awaitable[None]]) -> None:
    """A service, an instance of the name "doomed", that does `what` once it is cut off, and ends at once by itself."""
    options = {name: str(value) for name, value in {**site.options, "url": url}.items()}
    code = f"""
        import os, time, rescind
        client = rescind.Client(**{options!r}, instance="doomed")
        client.wait_ready()
        end = time.monotonic() + 60
        while not (client.core.proceeding.is_prepared and client.core.beats.told.n) and time.monotonic() < end:
            time.sleep(0.01)
        print("ready", flush=True)
        input()
        def effect(key):
            return client.effect("payment.capture", flag={FLAG!r}, key=key, payload={{"amount_cents": 1}},
                saga=("order", "1", key), step="capture", subject=key)
    """
    service = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        textwrap.dedent(code) + what,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=die_with_parent,
    )
    assert service.stdin is not None
    assert service.stdout is not None
    assert await service.stdout.readline() == b"ready\n"
    await cut()
    service.stdin.write(b"\n")
    assert await service.wait() == 9


async def test_what_a_dead_process_began_is_delivered_by_the_next_and_undone_once(proceeding: Site) -> None:
    # P10, P11, P12, P13
    site, shop = proceeding, Shop()
    async with rescind.AsyncClient(**site.options, sagas=[shop.saga]):
        pass
    await run_apart(CUT_SHORT, site.server.url, site, lambda: asyncio.to_thread(site.server.kill))
    assert [(line.request.key, line.outcome) for line in lines(site)] == [("done", None), ("done", "succeeded"), ("cut", None)]
    await asyncio.to_thread(site.server.start)
    assert await asyncio.to_thread(site.effects) == []
    killed = (await asyncio.to_thread(site.kill))["rollback_id"]
    await until(lambda: is_in(site, killed, "waiting"))
    assert await missing(site, killed) == ["doomed"]
    async with rescind.AsyncClient(**site.options, sagas=[shop.saga]) as client:
        working = asyncio.create_task(client.work(shop.saga, concurrency=4))
        await until(lambda: is_in(site, killed, "settled"))
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await until(lambda: client.status().held_effect_count == 0)
    assert sorted(effect.key for effect in shop.refunded) == ["cut", "done"]
    assert sorted(effect.id for effect in shop.refunded) == sorted([name_of(site, "cut"), name_of(site, "done")])
    found = await rollback(site, killed)
    assert found["counts"]["payment.capture"]["compensated"] == 2
    assert (found["proceeding"]["effects"], found["proceeding"]["flags"], await missing(site, killed)) == (2, [FLAG], [])
    assert lines(site) == []
    rows = {row["key"]: row for row in await asyncio.to_thread(site.effects)}
    assert {key: row["status"] for key, row in rows.items()} == {"done": "succeeded", "cut": "in_doubt"}
    assert all(row["proceeded_at"] and row["instance_id"] == "doomed" for row in rows.values())
    report = await asyncio.to_thread(site.api.request, "GET", f"/v1/rollbacks/{killed}/report")
    assert report["sum"]["adds_up"]


async def test_late_news_reopens_a_rollback_that_had_settled(reached: Site) -> None:
    # P11: the instance was written off, and comes back with what it did
    site, shop = reached, Shop()
    async with proxied(site) as proxy, rescind.AsyncClient(**site.options, sagas=[shop.saga]) as client:
        await run_apart(CUT_SHORT, proxy.url, site, lambda: cut_off(proxy))
        (line_place,) = site.state_dir.glob("*/journals/doomed.proceeded")
        away = line_place.rename(site.state_dir / "the disk that was lost")
        killed = (await asyncio.to_thread(site.kill))["rollback_id"]
        await until(lambda: is_in(site, killed, "waiting"))
        body = {"reason": "its disk is gone", "instances": await missing(site, killed)}
        answer = await asyncio.to_thread(site.api.request, "POST", f"/v1/rollbacks/{killed}/skip", json=body)
        assert answer["changed"] == 1
        await until(lambda: is_in(site, killed, "settled"))
        (holder,) = (await rollback(site, killed))["proceeding"]["holders"]
        assert (holder["instance"], holder["how"], holder["reason"]) == ("doomed", "written_off", "its disk is gone")
        away.rename(line_place)
        proxy.refuse = ()
        working = asyncio.create_task(client.work(shop.saga, concurrency=4))
        async with through(site, proxy):
            await until(lambda: len(shop.refunded) == 2)
            await until(lambda: is_in(site, killed, "settled"))
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    found = await rollback(site, killed)
    assert (found["reopened_count"] > 0, found["counts"]["payment.capture"]["compensated"]) == (True, 2)


async def test_the_whole_request_is_in_the_journal_while_the_body_runs(reached: Site) -> None:
    # P10
    site = reached
    async with proxied(site) as proxy, through(site, proxy) as client:
        await served(client)
        await cut_off(proxy)
        async with capture(client, "1", subject="ann", attributes={"country": "DE"}) as effect:
            (line,) = lines(site)
            assert (line.request.payload, line.request.subject, line.request.attributes) == (
                {"amount_cents": 1299}, "ann", {"country": "DE"}
            )  # fmt: skip
            assert (line.effect_id, line.epoch, line.request.variant, line.outcome) == (effect.provider_key, 1, "on", None)
            assert effect.provider_key == name_of(site, "1")


async def test_a_full_disk_refuses(reached: Site) -> None:
    # P10: nothing begins without its line
    async with proxied(reached) as proxy:
        await run_apart(FULL_DISK, proxy.url, reached, lambda: cut_off(proxy))
    assert lines(reached) == []


async def test_a_home_that_cannot_be_written_refuses(reached: Site, tmp_path: Path) -> None:
    # P10
    place = tmp_path / "a file, no folder"
    place.write_bytes(b"")
    async with proxied(reached) as proxy, through(reached, proxy, state_dir=place) as client:
        await served(client)
        await cut_off(proxy)
        with pytest.raises(Unreachable, match="nothing begins without a line"):
            async with capture(client, "1"):
                pytest.fail("its line is not on disk")


async def test_a_flag_that_does_not_say_so_refuses_and_leaves_no_line(site: Site) -> None:
    # P8
    async with proxied(site) as proxy, through(site, proxy) as client:
        await client.core.beats.beat(False)
        await cut_off(proxy)
        with pytest.raises(Unreachable):
            async with capture(client, "1"):
                pytest.fail("nothing was admitted")
        assert list(site.state_dir.glob("*/journals/*.proceeded")) == []


async def test_without_the_server_a_key_is_held_replayed_and_refused_as_far_as_is_known(reached: Site) -> None:
    # P9
    site = reached
    async with proxied(site) as proxy, through(site, proxy) as client:
        await served(client)
        async with capture(client, "before") as before:
            before.result = {"id": "pi_0"}
        await cut_off(proxy)
        async with capture(client, "before") as again:
            assert (again.replayed, again.result, again.id) == (True, {"id": "pi_0"}, before.id)
        async with capture(client, "1") as effect:
            with pytest.raises(rescind.EffectInProgress):
                async with capture(client, "1"):
                    pytest.fail("two hold the right to act")
            effect.result = {"id": "pi_1"}
        with pytest.raises(rescind.EffectConflict):
            async with client.effect("payment.capture", flag=FLAG, key="1", payload={"amount_cents": 1}):
                pytest.fail("another payload")
        await fails(client, "doubt", TimeoutError())
        with pytest.raises(rescind.EffectInProgress):
            await fails(client, "doubt", TimeoutError())
        assert [await fails(client, "declined", rescind.NotDone("card declined")) for _ in range(2)] == [
            (1, name_of(site, "declined")), (2, name_of(site, "declined"))
        ]  # fmt: skip
        proxy.refuse = ()
        await until(lambda: client.status().held_effect_count == 0)
        async with capture(client, "1") as replayed:
            assert (replayed.replayed, replayed.result) == (True, {"id": "pi_1"})
    rows = {row["key"]: row["status"] for row in await asyncio.to_thread(site.effects)}
    assert rows == {"before": "succeeded", "1": "succeeded", "doubt": "in_doubt", "declined": "failed"}


async def fails(client: rescind.AsyncClient, key: str, error: Exception) -> tuple[int, str]:
    """An effect whose body raises; its attempt and its name."""
    effect: rescind.Effect | None = None
    try:
        async with capture(client, key) as effect:
            raise error
    except type(error):
        assert effect is not None
        return effect.attempt, effect.id


async def test_instances_that_cannot_hear_each_other_give_the_provider_one_key(reached: Site) -> None:
    # P9, P13: the second is an attempt at the first's effect, for the provider knew the key
    site = reached
    async with proxied(site) as proxy:
        one, two = through(site, proxy), through(site, proxy, state_dir=site.state_dir / "elsewhere")
        async with one, two:
            await asyncio.gather(served(one), served(two))
            await cut_off(proxy)
            for client in (one, two):
                async with capture(client, "1") as effect:
                    assert effect.provider_key == name_of(site, "1")
                    effect.result = {"id": "pi_1"}
            proxy.refuse = ()
            await until(lambda: one.status().held_effect_count + two.status().held_effect_count == 0)
    (row,) = await asyncio.to_thread(site.effects)
    assert (row["id"], row["status"], row["result"]) == (name_of(site, "1"), "succeeded", {"id": "pi_1"})


async def test_an_admission_whose_answer_was_lost_and_what_went_on_without_it_are_one_effect(reached: Site) -> None:
    # P9
    site = reached
    async with proxied(site) as proxy, rescind.AsyncClient(**{**site.options, "url": proxy.url}) as client:
        await served(client)
        proxy.holds = (b"/effects:admit",)
        async with capture(client, "1") as effect:
            effect.result = {"id": "pi_1"}
        await until(lambda: client.status().held_effect_count == 0)
    (row,) = await asyncio.to_thread(site.effects)
    assert (row["id"], row["status"], row["attempt"]) == (name_of(site, "1"), "succeeded", 1)


async def test_a_kill_that_is_known_refuses_also_without_the_server(reached: Site) -> None:
    # P8
    site = reached
    async with proxied(site) as proxy, through(site, proxy) as client:
        await served(client)
        await asyncio.to_thread(site.kill)
        await until(lambda: not client.boolean(FLAG, True))
        await cut_off(proxy)
        with pytest.raises(rescind.EffectKilled):
            async with capture(client, "new", variant="on"):
                pytest.fail("it is known to be killed")
        async with capture(client, "old") as effect:
            assert effect.variant == "off"


async def test_a_rollback_waits_for_an_instance_that_is_cut_off_and_names_it(reached: Site) -> None:
    # P10, P12
    site = reached
    async with proxied(site) as proxy, rescind.AsyncClient(**site.options) as near, through(site, proxy, instance="far") as far:
        await asyncio.gather(served(far), served(near))
        await cut_off(proxy)
        async with capture(far, "1"):
            pass
        killed = (await asyncio.to_thread(site.kill))["rollback_id"]
        await until(lambda: is_in(site, killed, "waiting"))
        await until(lambda: is_missing(site, killed, ["far"]))
        proxy.refuse = ()
        await until(lambda: is_missing(site, killed, []))
    assert await asyncio.to_thread(site.statuses) == ["succeeded"]
    assert (await rollback(site, killed))["proceeding"]["effects"] == 1


async def is_missing(site: Site, rollback_id: str, names: list[str]) -> bool:
    return await missing(site, rollback_id) == names


async def test_an_older_server_makes_no_line_lost(reached: Site) -> None:
    # P21: it knows no such route, and answers 404
    site = reached
    async with proxied(site) as proxy, rescind.AsyncClient(**{**site.options, "url": proxy.url}) as client:
        await served(client)
        proxy.answers = {b"/effects:proceeded": b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"}
        proxy.refuse = (b"/effects:admit",)
        async with capture(client, "1"):
            pass
        await until(lambda: sum(b":proceeded" in line for _, line in proxy.asked) > 2)
        assert (client.status().held_effect_count, client.status().refused_outcome_count) == (1, 0)
        proxy.answers = {}
        await until(lambda: client.status().held_effect_count == 0)


def test_what_the_ledger_could_not_keep_does_not_go_on() -> None:
    # P10
    sound = {"key": "k", "kind": "mail", "flag": "f", "payload": {"to": "ann"}}
    assert fault_of(EffectRequest(**sound)) == ""
    for more in (
        {"payload": {"x": "y" * 70_000}},
        {"payload": {"x": "\0"}},
        {"subject": "s" * 600},
        {"attributes": {"a": "b" * 20_000}},
    ):
        assert fault_of(EffectRequest(**{**sound, **more}))

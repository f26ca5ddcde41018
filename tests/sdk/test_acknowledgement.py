"""What an instance says of itself: which revision it has applied, how it learned of it, how long ago; what it has declared."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import rescind
from rescind.core import Core
from rescind.declarations import DECLARED_MAX
from rescind.errors import ApiError
from rescind.httpx import instrument
from rescind.settings import settings_from
from rescind.wire import HEADER

from tests.sdk.conftest import FLAG, Site
from tests.sdk.proxy import proxied
from tests.sdk.test_causality import Service, calling, cut_off
from tests.sdk.test_faults import SNAPSHOT, STREAM, JumpingClock
from tests.waiting import until

BOOTSTRAP = {"flags": {FLAG: {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on"}}}


async def row_of(site: Site, instance: str, **expected: Any) -> dict[str, Any]:
    """The instance as the server lists it, once it is listed so."""

    def find() -> dict[str, Any]:
        rows = site.api.request("GET", site.api.within("/instances"), params={"limit": 1000})["instances"]
        found = [row for row in rows if row["instance"] == instance and expected.items() <= row.items()]
        return found[0] if found else {}

    return await until(lambda: asyncio.to_thread(find))


@asynccontextmanager
async def two(site: Site) -> AsyncIterator[tuple[rescind.AsyncClient, rescind.AsyncClient]]:
    """One that follows the stream, and one that is cut off from it."""
    async with rescind.AsyncClient(**site.options) as ahead, rescind.AsyncClient(**site.options) as behind:
        await cut_off(behind)
        yield ahead, behind


def learned_of(site: Site, rollback_id: str) -> list[dict[str, Any]]:
    """Who has told how it learned of the kill; the record says it once the watch over it has looked."""
    told: list[dict[str, Any]] = site.api.request("GET", f"/v1/rollbacks/{rollback_id}")["containment"]["learned"]
    return told


async def test_an_instance_that_follows_the_stream_says_push_and_how_long_ago(site: Site) -> None:
    async with rescind.AsyncClient(**{**site.options, "service_version": "1.4"}) as client:
        await row_of(site, client.status().instance)  # only who was known before a kill is asked whether it obeys it
        killed = await asyncio.to_thread(site.kill)
        row = await row_of(site, client.status().instance, revision=killed["revision"])
        assert (row["how"], row["service_version"], row["sdk_version"]) == ("push", "1.4", rescind.__version__)
        assert datetime.fromisoformat(row["applied_at"]) <= datetime.fromisoformat(row["seen_at"])
        assert (row["behind"], row["behind_count"], row["behind_seconds"]) == (False, 0, None)
        (learned,) = await until(lambda: asyncio.to_thread(learned_of, site, killed["rollback_id"]))
        assert (learned["how"], learned["applied_at"] <= learned["done_at"]) == ("push", True)


async def test_the_header_of_a_request_is_a_catch_up(site: Site) -> None:
    async with two(site) as (_, behind), calling(Service(behind), budget_seconds=5) as http:
        killed = await asyncio.to_thread(site.kill)
        await http.get("/", headers={HEADER: f"{site.environment}.{killed['revision']}"})
        row = await row_of(site, behind.status().instance, revision=killed["revision"])
        assert row["how"] == "catch-up"


async def test_the_header_of_a_reply_is_a_reply(site: Site) -> None:
    async with AsyncExitStack() as stack:
        ahead, behind = await stack.enter_async_context(two(site))
        inside = await stack.enter_async_context(calling(Service(ahead)))
        instrument(inside, behind, budget_seconds=5)
        killed = await asyncio.to_thread(site.kill)
        await until(lambda: ahead.status().revision == killed["revision"])
        assert (await inside.get("/")).text == "False"
        row = await row_of(site, behind.status().instance, revision=killed["revision"])
        assert row["how"] == "reply"


async def test_where_no_stream_comes_through_it_is_a_poll(site: Site) -> None:
    async with proxied(site) as proxy:
        proxy.holds = (STREAM,)
        async with rescind.AsyncClient(**{**site.options, "url": proxy.url}) as client:
            row = await row_of(site, client.status().instance, revision="1.1")
            assert row["how"] == "poll"


async def test_what_a_service_brings_along_is_a_start(site: Site) -> None:
    async with proxied(site) as proxy:
        proxy.refuse = (STREAM, SNAPSHOT)
        client = rescind.AsyncClient(**{**site.options, "url": proxy.url, "bootstrap": BOOTSTRAP})
        await client.start()
        row = await row_of(site, client.status().instance)
        assert (row["how"], row["revision"], row["behind"]) == ("start", "0.0", True)
        await client.close()


async def test_a_limit_that_ran_out_is_staleness_until_it_is_current_again(site: Site) -> None:  # P6
    await asyncio.to_thread(site.put, max_staleness_seconds=60)
    clock = JumpingClock()
    async with proxied(site) as proxy:
        core = Core(settings_from(**{**site.options, "url": proxy.url}), clock=clock)
        core.launch()
        assert await core.wait_ready(60)
        proxy.refuse = (STREAM, SNAPSHOT)
        await proxy.cut()
        clock.later = 61.0
        assert core.current.evaluator is not None
        assert core.current.evaluator.evaluate(FLAG, {}, None, "boolean").reason == "STALE"
        row = await row_of(site, core.settings.instance, how="staleness")
        assert row["revision"] == "1.2"
        proxy.refuse = ()
        await until(lambda: core.follower.connected)
        killed = await asyncio.to_thread(site.kill)
        row = await row_of(site, core.settings.instance, revision=killed["revision"])
        assert row["how"] == "push"
        await core.close(2.0)


async def test_a_flag_that_requires_it_is_turned_on_when_every_instance_has_declared(site: Site) -> None:
    off = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off"}
    gated = {"services": ["checkout"], "requires_declaration": True}
    await asyncio.to_thread(lambda: site.put("new", definition=off, **gated))
    early = rescind.AsyncClient(**site.options)
    early.declare("new", FLAG)
    assert early.status().declared == [FLAG, "new"]
    async with early, rescind.AsyncClient(**site.options) as late:
        await row_of(site, early.status().instance, declared=[FLAG, "new"])
        name = late.status().instance
        await row_of(site, name, declared=[])
        with pytest.raises(ApiError) as refused:
            await asyncio.to_thread(lambda: site.put("new", **gated))
        assert (refused.value.status, refused.value.code) == (409, "undeclared")
        assert name in str(refused.value)
        late.declare("new")
        await row_of(site, name, declared=["new"])
        await asyncio.to_thread(lambda: site.put("new", **gated))
        await until(lambda: late.boolean("new", False))


def test_declaring_does_no_io_and_is_bounded(tmp_path: Path) -> None:
    threads = threading.active_count()
    client = rescind.Client(url="http://127.0.0.1:9", token="t", state_dir=tmp_path / "state")
    client.declare(*(f"flag-{number}" for number in range(DECLARED_MAX)))
    client.declare("flag-1")
    with pytest.raises(rescind.ConfigurationError, match="at most"):
        client.declare("one-more")
    assert len(client.status().declared) == DECLARED_MAX
    assert threading.active_count() == threads
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("wrong", ["", "x" * 256, "half a surrogate \ud800", 7, None])
def test_what_is_no_key_of_a_flag_is_not_declared(tmp_path: Path, wrong: Any) -> None:
    client = rescind.Client(url="http://127.0.0.1:9", token="t", state_dir=tmp_path)
    with pytest.raises(rescind.ConfigurationError, match="keys of flags"):
        client.declare("right", wrong)
    assert client.status().declared == []

"""Counts on their way: each window reaches the server once, whatever becomes of requests, answers and servers (P6, P21)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import rescind
from rescind.counts import SERIES_MAX, Counts
from rescind.settings import settings_from
from rescind.summaries import Summaries
from rescind.transport import AsyncApi
from rescind.wire import CountsAnswer

from tests.sdk.conftest import FLAG, Site
from tests.sdk.proxy import proxied
from tests.sdk.test_counts import Hand
from tests.sdk.test_faults import behind, refusal
from tests.waiting import until

COUNTS = b"/counts"


async def totals(site: Site, key: str = FLAG) -> dict[str, Any]:
    """What the server says, by variant."""
    answer = await asyncio.to_thread(site.api.request, "GET", site.api.within(f"/flags/{key}/counts"))
    return {one["variant"]: one for one in answer["totals"]}


def evaluate(client: rescind.AsyncClient, times: int) -> None:
    for _ in range(times):
        client.boolean(FLAG, False)


async def send(client: rescind.AsyncClient) -> None:
    """What a window's end does."""
    client.core.counts.close_window(client.core.summaries._next_end())
    await client.core.summaries.deliver()


async def test_closing_sends_what_was_counted_with_its_outcomes(site: Site) -> None:
    async with rescind.AsyncClient(**site.options) as client:
        evaluate(client, 7)
        client.track(FLAG, ok=True, duration_ms=12.0)
        client.track(FLAG, ok=False, duration_ms=15.0)
        client.boolean("no.such-flag", False)
    found = (await totals(site))["on"]
    assert (found["service"], found["evaluations"], found["share"]) == ("checkout", {"STATIC": 7}, 1.0)
    assert (found["ok"], found["failed"], found["duration_ms"]["count"]) == (1, 1, 2)
    assert found["duration_ms"]["p50"] == pytest.approx(12, rel=0.045)


async def test_the_synchronous_client_sends_too(site: Site) -> None:
    def serve() -> None:
        with rescind.Client(**site.options) as client:
            client.boolean(FLAG, False)
            with client.tracked(FLAG):
                pass

    await asyncio.to_thread(serve)
    found = (await totals(site))["on"]
    assert (found["count"], found["ok"]) == (1, 1)


async def test_an_answer_that_is_lost_costs_nothing_and_counts_nothing_twice(site: Site) -> None:
    async with behind(site) as (proxy, client):
        proxy.lose_answers_to = COUNTS
        evaluate(client, 5)
        await send(client)
        assert proxy.lost_count == 1
        evaluate(client, 3)
        await send(client)
        assert client.status().counts_age_seconds is None
    assert (await totals(site))["on"]["count"] == 8


@pytest.mark.parametrize("status", [403, 500, 503])
async def test_a_server_that_does_not_take_them_costs_evaluations_nothing(site: Site, status: int) -> None:
    async with behind(site) as (proxy, client):
        proxy.answers = {COUNTS: refusal(status)}
        for _ in range(3):
            evaluate(client, 2)
            await send(client)
        told = client.status()
        assert (told.state, len(client.core.counts.held)) == ("ready", 3)
        assert str(status) in told.counts_error
        assert told.counts_age_seconds is not None
        proxy.answers = {}
        evaluate(client, 2)
        await send(client)
        assert (client.status().counts_error, client.status().counts_dropped_count) == ("", 0)
    assert (await totals(site))["on"]["count"] == 8


async def test_what_is_refused_for_good_is_dropped_and_counted(site: Site) -> None:
    async with behind(site) as (proxy, client):
        proxy.answers = {COUNTS: refusal(422)}
        evaluate(client, 2)
        await send(client)
        assert (client.status().counts_dropped_count, len(client.core.counts.held)) == (2, 0)


async def test_retry_after_holds_them_back(site: Site) -> None:
    async with behind(site) as (proxy, client):
        proxy.answers = {COUNTS: refusal(429, "retry-after: 60")}
        for _ in range(3):
            evaluate(client, 1)
            await send(client)
        assert sum(COUNTS in line for _, line in proxy.asked) == 1


async def test_a_server_that_knows_no_counts_is_asked_again_when_it_is_found_anew(site: Site) -> None:
    # P21: a server of the last release
    async with behind(site) as (proxy, client):
        proxy.answers = {COUNTS: refusal(404)}
        for _ in range(3):
            evaluate(client, 1)
            await send(client)
        assert sum(COUNTS in line for _, line in proxy.asked) == 1
        proxy.answers = {}
        found = client.core.follower.found_count
        await proxy.cut()
        await until(lambda: client.core.follower.found_count > found)
        evaluate(client, 1)
        await send(client)
    assert (await totals(site))["on"]["count"] == 4


async def test_a_server_that_is_away_gets_what_was_counted_meanwhile(site: Site) -> None:
    async with behind(site) as (proxy, client):
        proxy.refuse = (COUNTS,)
        for times in (4, 3):
            evaluate(client, times)
            await send(client)
        assert [window.total for window in client.core.counts.held] == [4, 3]
        proxy.refuse = ()
        await send(client)
        assert len(client.core.counts.held) == 0
    assert (await totals(site))["on"]["count"] == 7


async def test_closing_without_a_server_is_bounded(site: Site) -> None:
    async with proxied(site) as proxy:
        client = rescind.AsyncClient(**{**site.options, "url": proxy.url})
        await client.wait_ready()
        proxy.holds = (COUNTS,)
        evaluate(client, 1)
        async with asyncio.timeout(4):
            await client.close()
        assert client.status().state == "closed"


async def test_as_many_series_as_there_may_be_go_in_one_window(site: Site) -> None:
    async with rescind.AsyncClient(**site.options) as client:
        for number in range(SERIES_MAX):
            client.track(FLAG, ok=True, duration_ms=float(number), variant=f"v{number}")
        await send(client)
        assert client.status().counts_error == ""
    assert sum(one["ok"] for one in (await totals(site)).values()) == SERIES_MAX


def test_windows_follow_the_servers_clock() -> None:
    clock = Hand()
    settings = settings_from(url="http://rescind.invalid", token="none")
    summaries = Summaries(AsyncApi(settings.url, settings.token), settings, Counts(clock), clock, lambda: 0)
    summaries._follow(CountsAnswer(next_window_in_ms=400))
    assert summaries._next_end() == pytest.approx(0.4)
    clock.at = 3.0
    assert summaries._next_end() == pytest.approx(10.4)
    summaries._follow(CountsAnswer(next_window_in_ms=7_600))
    assert summaries._next_end() == pytest.approx(10.4), "a little is no reason"
    summaries._follow(CountsAnswer())
    summaries._follow(CountsAnswer(next_window_in_ms=9_000))
    assert summaries._next_end() == pytest.approx(12.0)


async def test_a_window_ends_and_goes_by_itself(site: Site) -> None:
    client = rescind.AsyncClient(**site.options)
    client.core.summaries._follow(CountsAnswer(next_window_in_ms=1_000))
    async with client:
        evaluate(client, 1)
        await until(lambda: totals(site))
    assert (await totals(site))["on"]["count"] == 1

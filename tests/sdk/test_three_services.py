"""Three services of eight instances each, one of them cut off from the server: no request sees new, then old (P3)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from rescind.causality import BUDGET_SECONDS

from load.services.fleet import CUT, Fleet, fleet
from load.services.simulation import Carries, Plan, simulate
from load.services.traces import STALE, Look, hops_of, looks_of, mixed, values_at
from tests.sdk.conftest import Site
from tests.sdk.proxy import Proxy, proxied
from tests.waiting import CEILING_SECONDS, until

OFF_BY_DEFAULT = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off"}
ROUNDS = 3
CALLERS = 6
REQUESTS_PER_FLIP = 40


@asynccontextmanager
async def cut_off(site: Site, budget_seconds: float) -> AsyncIterator[tuple[Fleet, Proxy]]:
    """The services, one instance of them behind the proxy."""
    async with proxied(site) as proxy:
        environment, state_dir = site.environment, site.state_dir
        async with fleet(site.server.url, proxy.url, site.token, environment, state_dir, budget_seconds) as services:
            try:
                yield services, proxy
            finally:
                proxy.flowing.set()


async def flipped(site: Site, services: Fleet) -> None:
    """Kills, lifts and changes, one after another, while requests go through; each is met by many of them."""
    async with services.asked(CALLERS):
        for _ in range(ROUNDS):
            for flip in flips(site):
                await asyncio.to_thread(flip)
                enough = len(services.hops) + REQUESTS_PER_FLIP
                await until(lambda enough=enough: len(services.hops) >= enough)


def flips(site: Site) -> list[Callable[[], object]]:
    """Off and on, in each of the ways."""
    return [site.kill, site.lift, lambda: site.put(definition=OFF_BY_DEFAULT), site.put]


def looks_of_the_one(services: Fleet) -> list[Look]:
    """The evaluations of the instance that is cut off."""
    hops = [hop for request in services.hops for hop in hops_of(request)]
    return [look for hop in hops if (hop.service, hop.instance) == CUT for look in hop.looks]


def assert_whole(services: Fleet) -> None:
    """No request saw a revision and evaluated at an older one, and each revision gave one value everywhere."""
    assert [one for hop in services.hops for one in mixed(hop)] == []
    assert {revision: values for revision, values in values_at(services.hops).items() if len(values) > 1} == {}


async def test_an_instance_whose_stream_is_silent_catches_up_with_what_its_requests_have_seen(site: Site) -> None:
    # P3
    async with cut_off(site, CEILING_SECONDS) as (services, proxy):
        proxy.silent = (b"/stream",)
        await flipped(site, services)
    assert_whole(services)
    assert [look for hop in services.hops for look in looks_of(hop) if look.reason == STALE] == []
    assert len({look.revision for look in looks_of_the_one(services)}) > ROUNDS


async def test_an_instance_that_reaches_nothing_serves_off_variants_to_requests_that_are_ahead_of_it(site: Site) -> None:
    # P3
    async with cut_off(site, BUDGET_SECONDS) as (services, proxy):
        proxy.flowing.clear()
        await flipped(site, services)
    assert_whole(services)
    ahead = [look for look in looks_of_the_one(services) if look.reason == STALE]
    assert ahead
    assert {look.value for look in ahead} == {False}
    assert len({look.revision for look in looks_of_the_one(services)}) == 1


@pytest.mark.parametrize("cut_fetches", [False, True])
@pytest.mark.parametrize("seed", [1, 2])
def test_no_request_is_mixed_in_a_simulation_of_many_quick_flips(seed: int, cut_fetches: bool) -> None:
    # P3
    plan = Plan(seed=seed, flips=20, flip_seconds=0.1, requests_per_second=400, cut_fetches=cut_fetches)
    assert simulate(plan, Carries.STALE).mixed == 0


def test_a_simulation_sees_what_is_mixed_without_the_header() -> None:
    plan = Plan(flips=1)
    found = [simulate(plan, carries).mixed for carries in (Carries.NOTHING, Carries.REQUESTS, Carries.REPLIES)]
    assert found[0] > found[1] > found[2]

"""# P21: a server of the last release and one of today, on one database that today's `rescind migrate` has prepared."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from runtime.embedded import EmbeddedPostgres, EmbeddedValkey
from runtime.postgres import Postgres
from tests.compatibility.conftest import StartService
from tests.compatibility.releases import TODAY, Version
from tests.compatibility.systems import Server, Service, Site, admin_token, database_of, migrate
from tests.sagas.retention.world import History
from tests.server.partner import Partner, listening_partner
from tests.waiting import until

OLD, NEW = 0, 1
EITHER = pytest.mark.parametrize("first", [OLD, NEW], ids=["last release", "today"])
EFFECTS = 60
WEBHOOK = {
    "kind": "partner.call",
    "version": "1",
    "class": "compensatable",
    "compensation": {"executor": "webhook", "connection": "partner"},
    "pace": {"per_second": 40.0},
}


class Pair:
    """Servers of both versions on one database: the last release installs and serves, today's migrates beside it and serves."""

    def __init__(self, last: Version, database_url: str, redis_url: str, ends: ExitStack) -> None:
        self._urls = (database_url, redis_url)
        self._token = admin_token(last, database_url)
        self._ends = ends
        old = self.start(last).wait_ready()
        migrate(TODAY, database_url, "--phase", "pre")
        self.servers = [old, self.start(TODAY).wait_ready()]

    @property
    def database_url(self) -> str:
        """Of the database that they share."""
        return self._urls[0]

    def start(self, version: Version) -> Server:
        """One more server."""
        server = Server(version, *self._urls, self._token)
        self._ends.callback(server.end)
        return server


@contextmanager
def side_by_side(last: Version, postgres_url: str, redis_url: str) -> Iterator[Pair]:
    """A pair on a database of its own, ended whatever happens."""
    with database_of(last, postgres_url) as url, ExitStack() as ends:
        yield Pair(last, url, redis_url, ends)


@pytest.fixture(scope="module")
def both(last_release: Version, postgres_server: EmbeddedPostgres, valkey_server: EmbeddedValkey) -> Iterator[Pair]:
    """Two servers that stay up."""
    with side_by_side(last_release, postgres_server.url, valkey_server.url) as pair:
        yield pair


@pytest.fixture
def mortals(last_release: Version, postgres_server: EmbeddedPostgres, valkey_server: EmbeddedValkey) -> Iterator[Pair]:
    """Two servers of this test's own."""
    with side_by_side(last_release, postgres_server.url, valkey_server.url) as pair:
        yield pair


@pytest.fixture
def old_alone(
    last_release: Version, postgres_server: EmbeddedPostgres, valkey_server: EmbeddedValkey
) -> Iterator[tuple[Server, str]]:
    """A server of the last release on a database that today's version has not met yet, and the database's URL."""
    with database_of(last_release, postgres_server.url) as url:
        server = Server(last_release, url, valkey_server.url, admin_token(last_release, url))
        try:
            yield server.wait_ready(), url
        finally:
            server.end()


@pytest.fixture
async def sites(both: Pair) -> AsyncIterator[list[Site]]:
    """One environment, seen through either."""
    old = await Site(both.servers[OLD]).create()
    pair = [old, Site(both.servers[NEW], old.environment)]
    await old.put("on")
    await until(lambda: all_hold(pair, True))
    yield pair
    for site in pair:
        await site.http.aclose()


async def all_hold(sites: list[Site], wanted: bool) -> bool:
    return [await site.value() for site in sites] == [wanted] * len(sites)


@pytest.fixture
async def services(sites: list[Site], start_service: StartService, last_release: Version) -> list[Service]:
    """Each version's SDK at its own version's server."""
    return [await start_service(version, site) for version, site in zip((last_release, TODAY), sites, strict=True)]


@pytest.fixture
async def partner() -> AsyncIterator[Partner]:
    """Who takes the webhooks."""
    async with listening_partner() as one:
        yield one


@EITHER
async def test_a_kill_at_one_reaches_the_services_of_both(first: int, sites: list[Site], services: list[Service]) -> None:
    # P1, P4, P8
    assert [await service.value() for service in services] == [True, True]
    killed = await sites[first].kill(compensate="none")
    await until(lambda: both_say(services, False))
    assert [await service.outcome(f"late:{n}", variant="on") for n, service in enumerate(services)] == ["EffectKilled"] * 2
    record = await sites[1 - first].rollback(killed, "contained")
    assert record["contained_at"]
    assert (await sites[1 - first].kill(compensate="none"))["rollback_id"] == killed["rollback_id"]
    await sites[1 - first].lift(kill_count=2)
    await until(lambda: both_say(services, True))


async def both_say(services: list[Service], wanted: bool) -> bool:
    return [await service.value() for service in services] == [wanted, wanted]


@EITHER
async def test_an_effect_admitted_at_one_is_known_at_the_other(first: int, sites: list[Site]) -> None:  # P9, P10
    here, there = sites[first], sites[1 - first]
    (admitted,) = await here.admit("capture:1")
    assert admitted["outcome"] == "admitted"
    (second,) = await there.admit("capture:1")
    assert second["outcome"] == "in_progress"
    await there.succeed(admitted)
    for site in sites:
        (replayed,) = await site.admit("capture:1")
        assert (replayed["outcome"], replayed["result"]) == ("replayed", {"id": admitted["effect_id"]})


async def test_a_key_whose_history_has_gone_is_acted_under_at_neither(both: Pair, sites: list[Site]) -> None:  # P9
    """Today's server answers from what remains; the last release knows the key, finds nothing beside it, and admits nobody."""
    (admitted,) = await sites[OLD].admit("capture:old")
    await sites[OLD].succeed(admitted)
    pg = await Postgres.open(both.database_url, application_name="tests", size_max=1)
    try:
        history = History(pg)
        await history.age()
        await history.drop()
    finally:
        await pg.close()
    (replayed,) = await sites[NEW].admit("capture:old")
    assert (replayed["outcome"], replayed["result"]) == ("replayed", {"id": admitted["effect_id"]})
    with pytest.raises(AssertionError, match='"status":503'):
        await sites[OLD].admit("capture:old")
    (fresh,) = await sites[OLD].admit("capture:fresh")
    assert fresh["outcome"] == "admitted"


@EITHER
async def test_a_kill_at_one_closes_the_set_of_both(first: int, sites: list[Site]) -> None:  # P8: nothing gets by either fence
    begun, fenced = asyncio.Event(), asyncio.Event()

    async def hammer(site: Site, name: str) -> int:
        """Ask until killed; how many were admitted, none of them after the kill was answered."""
        count = 0
        while True:
            was_fenced = fenced.is_set()
            outcomes = [result["outcome"] for result in await site.admit(*(f"{name}:{count + n}" for n in range(5)))]
            count += outcomes.count("admitted")
            if outcomes != ["admitted"] * 5:
                assert set(outcomes) <= {"admitted", "killed"}
                return count
            assert not was_fenced
            begun.set()

    writers = [asyncio.create_task(hammer(site, f"{n}-{i}")) for i in range(3) for n, site in enumerate(sites)]
    await begun.wait()
    killed = await sites[first].kill()
    fenced.set()
    admitted = sum(await asyncio.gather(*writers))
    await sites[first].rollback(killed, "drained")
    for site in sites:
        await until(lambda site=site: counts(site, killed, "payment.capture", admitted=admitted))


async def counts(site: Site, killed: dict[str, Any], kind: str, **wanted: int) -> bool:
    """Whether the rollback counts these of a kind."""
    found = (await site.ok("GET", f"/v1/rollbacks/{killed['rollback_id']}"))["counts"].get(kind, {})
    return {name: found.get(name) for name in wanted} == wanted


async def test_a_rollback_that_one_version_began_is_carried_on_by_the_other(  # P13, P15, P18
    mortals: Pair, partner: Partner
) -> None:
    """An upgrade in the middle of a rollback, and then a way back in the middle of the next."""
    await hand_over(mortals.servers[OLD], mortals.servers[NEW], partner)
    back = mortals.start(mortals.servers[OLD].version)
    await asyncio.to_thread(back.wait_ready)
    partner.taken.clear()
    await hand_over(mortals.servers[NEW], back, partner)


async def hand_over(ending: Server, staying: Server, partner: Partner) -> None:
    """Begin to undo effects at one server, end it half-way, and see the other make it whole."""
    here = await Site(ending).create()
    there = Site(staying, here.environment)
    await here.ok("PUT", f"{here.within}/connections/partner", partner.connection)
    await here.ok("PUT", f"{here.within}/kinds/partner.call/versions/1", WEBHOOK)
    keys = [f"call:{number}" for number in range(EFFECTS)]
    await here.succeed(*await here.admit(*keys, kind="partner.call", kind_version="1"))
    killed = await here.kill()
    await until(lambda: len(partner.taken) >= EFFECTS // 10)
    assert await asyncio.to_thread(ending.end, signal.SIGTERM) == 0
    assert len(partner.taken) < EFFECTS
    await there.rollback(killed, "settled")
    assert await counts(there, killed, "partner.call", admitted=EFFECTS, compensated=EFFECTS)
    assert sorted(partner.taken.values()) == [1] * EFFECTS
    report = await there.ok("GET", f"/v1/rollbacks/{killed['rollback_id']}/report")
    assert report["sum"]["adds_up"] is True
    for site in (here, there):
        await site.http.aclose()


async def test_the_last_release_serves_on_while_today_migrates(
    old_alone: tuple[Server, str], start_service: StartService
) -> None:
    """Pre phase: additive, under traffic; and the last release starts again on what today's has made."""
    server, url = old_alone
    site = await Site(server).create()
    service = await start_service(server.version, site)
    migrated = asyncio.Event()
    using = asyncio.create_task(use(site, service, migrated))
    applied = await asyncio.to_thread(migrate, TODAY, url, "--phase", "pre")
    migrated.set()
    assert await using > 0
    assert "applied" in applied
    assert await asyncio.to_thread(migrate, TODAY, url, "--phase", "pre") == "nothing is pending\n"
    assert await asyncio.to_thread(migrate, server.version, url, "--check") == "nothing is pending\n"
    again = Server(server.version, url, server.redis_url, server.token)
    try:
        await asyncio.to_thread(again.wait_ready)
    finally:
        await asyncio.to_thread(again.end)
    await site.http.aclose()


async def use(site: Site, service: Service, until_set: asyncio.Event) -> int:
    """Change the flag, evaluate it, do effects under it, for as long as the event is not set; how often."""
    rounds = 0
    while not until_set.is_set():
        wanted = rounds % 2 == 0
        await site.put("on" if wanted else "off")
        await until(lambda wanted=wanted: says(service, wanted))
        assert await service.outcome(f"capture:{rounds}") == "done"
        rounds += 1
    return rounds


async def says(service: Service, wanted: bool) -> bool:
    return await service.value() is wanted

"""# P21: the SDK of the last release against today's server, and today's SDK against the server of the last release."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec import Struct

from tests.compatibility.conftest import StartService
from tests.compatibility.relay import relay_to
from tests.compatibility.releases import TODAY, Version
from tests.compatibility.systems import Server, Service, Site
from tests.waiting import until


class Mixed(Struct, frozen=True):
    """A service on one version's SDK, and an environment on the other version's server."""

    site: Site
    service: Service


@pytest.fixture(params=["last SDK, today's server", "today's SDK, last server"])
def mix(request: pytest.FixtureRequest) -> tuple[Version, Server]:
    """An SDK's version, and a server of the other."""
    last: Version = request.getfixturevalue("last_release")
    is_last = request.param.startswith("last")
    return (last, request.getfixturevalue("new_server")) if is_last else (TODAY, request.getfixturevalue("old_server"))


@pytest.fixture
async def parts(mix: tuple[Version, Server]) -> AsyncIterator[tuple[Version, Site]]:
    """The SDK's version, and a new environment on the server of the other."""
    sdk, server = mix
    assert server.version.name != sdk.name
    site = await Site(server).create()
    yield sdk, site
    await site.http.aclose()


@pytest.fixture
async def mixed(parts: tuple[Version, Site], start_service: StartService) -> Mixed:
    sdk, site = parts
    return Mixed(site, await start_service(sdk, site))


async def test_a_service_evaluates_as_the_server_does(mixed: Mixed) -> None:  # P7
    for context in ({"country": "NO"}, {"country": "SE"}, {}):
        found = await mixed.service.ask("evaluate", context=context)
        assert found["value"] is await mixed.site.value(**context)
        assert found["error"] is None
    assert (await mixed.service.ask("evaluate", context={"country": "NO"}))["reason"] == "TARGETING_MATCH"


async def test_a_service_follows_every_change(mixed: Mixed) -> None:  # P1, P2
    assert await mixed.service.value() is False
    for default in ("on", "off", "on"):
        await mixed.site.put(default)
        await until(lambda wanted=default == "on": holds(mixed.service, wanted))
    status = await mixed.service.ask("status")
    assert status["connected"] is True
    assert status["faults"] == 0
    assert len(status["changes"]) >= 3


async def holds(service: Service, wanted: bool, **context: Any) -> bool:
    return await service.value(**context) is wanted


async def test_what_becomes_of_effects_is_understood_by_both(mixed: Mixed) -> None:  # P9, P10
    await mixed.site.put("on")
    await until(lambda: holds(mixed.service, True))
    assert [await mixed.service.outcome(key, fate=fate) for key, fate in FATES] == [
        "done", "NotDone", "ConnectionError",
    ]  # fmt: skip
    again = await mixed.service.ask("effect", key="done")
    assert (again["outcome"], again["result"]) == ("replayed", {"charge": "ch_done"})
    assert await mixed.service.outcome("done", amount=2) == "EffectConflict"
    assert await mixed.service.outcome("unknown") == "EffectInProgress"
    assert await mixed.service.outcome("not done") == "done"
    found = await mixed.site.effects()
    assert {key: (effect["status"], effect["variant"]) for key, effect in found.items()} == {
        "done": ("succeeded", "on"), "not done": ("succeeded", "on"), "unknown": ("in_doubt", "on"),
    }  # fmt: skip


FATES = [("done", "done"), ("not done", "not done"), ("unknown", "unknown")]


async def test_a_kill_reaches_the_service_is_acknowledged_and_fences_its_effects(mixed: Mixed) -> None:  # P4, P8
    assert await mixed.service.value(country="NO") is True
    killed = await mixed.site.kill(compensate="none")
    await until(lambda: holds(mixed.service, False, country="NO"))
    assert await mixed.service.outcome("stale", variant="on") == "EffectKilled"
    assert await mixed.service.outcome("old path") == "done"
    record = await mixed.site.rollback(killed, "contained")
    assert record["contained_at"]
    assert await has_acknowledged(mixed.site, mixed.service)
    await mixed.site.lift()
    await until(lambda: holds(mixed.service, True, country="NO"))
    assert await mixed.service.outcome("later") == "done"


async def has_acknowledged(site: Site, service: Service) -> bool:
    """Whether the server knows the service's instance, and at the revision that it is at."""
    status = await service.ask("status")
    (mine,) = (await site.ok("GET", f"{site.within}/instances"))["instances"]
    return (mine["instance"], mine["service"], mine["revision"]) == (status["instance"], "checkout", status["revision"])


async def test_what_was_done_is_undone_by_the_services_own_worker_and_adds_up(mixed: Mixed) -> None:  # P12, P13, P15
    await mixed.site.put("on")
    await until(lambda: holds(mixed.service, True))
    for number in range(3):
        assert await mixed.service.outcome(f"capture:{number}") == "done"
    await mixed.service.ask("work")
    record = await mixed.site.rollback(await mixed.site.kill(), "settled")
    assert (record["state"], record["counts"]["payment.capture"]["compensated"]) == ("settled", 3)
    assert sorted((await mixed.service.ask("status"))["undone"]) == [f"capture:{number}" for number in range(3)]
    report = await mixed.site.ok("GET", f"/v1/rollbacks/{record['id']}/report")
    assert report["sum"]["adds_up"] is True


async def test_fields_that_a_peer_does_not_know_disturb_nothing(
    parts: tuple[Version, Site], start_service: StartService
) -> None:
    sdk, site = parts
    async with relay_to(site.server.url) as (relay, url):
        service = await start_service(sdk, site, url)
        await site.put("on")
        await until(lambda: holds(service, True))
        assert await service.outcome("capture:1") == "done"
        await service.ask("work")
        record = await site.rollback(await site.kill(), "settled")
        assert record["counts"]["payment.capture"]["compensated"] == 1
        assert await has_acknowledged(site, service)
        assert await service.outcome("late", variant="on") == "EffectKilled"
        status = await service.ask("status")
        assert (status["faults"], status["undone"]) == (0, ["capture:1"])
    assert relay.seen >= {"stream", "heartbeats", "effects:admit", "effects:report", "tasks:claim", "tasks:report"}

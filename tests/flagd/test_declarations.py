"""A flag that requires declarations is not turned on before its live instances have given them, on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import msgspec
import pytest
from rescind import wire

from flagd.core import flagset
from flagd.core.changes import Operation, Put, PutSegment, SetBucketing
from flagd.instances import DECLARED_MAX, UNPROVEN_MAX, Filter
from runtime.problem import Problem
from tests.flagd.world import PRODUCTION, World, definition, flag
from tests.waiting import until

KEY = "checkout.new-flow"
BASE = f"/v1/environments/{PRODUCTION}"
OFF = definition(defaultVariant="off", targeting={})
ON = definition(targeting={})


def gated(what: dict[str, Any], key: str = KEY, **more: Any) -> wire.Flag:
    return wire.Flag(key=key, **{"definition": what, "services": ["web"], "requires_declaration": True, **more})


async def beat(world: World, instance: str = "new", **how: Any) -> wire.InstanceBeatAnswer:
    how = {"service": "web", "revision": wire.Revision(1, 1), **how}
    return await world.instances.beat(PRODUCTION, wire.InstanceBeat(instance=instance, **how), wire.Revision(1, 1))


async def refused(world: World, *operations: Operation, **how: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        await world.apply(operations, **how)
    return caught.value


def told(problem: Problem) -> list[str]:
    assert (problem.status, problem.code) == (409, "undeclared"), problem
    assert "client.declare()" in str(problem.next_step)
    return [one.detail for one in problem.errors]


async def test_who_has_not_declared_is_named_until_everyone_has(world: World) -> None:
    await world.put(gated(OFF))
    for service in ("web", "other"):
        await beat(world, f"{service}-old", service=service, service_version="1.0", declared=[])
    await beat(world, "silent")
    await beat(world, "new", service_version="1.1", declared=[KEY])
    assert told(await refused(world, Put(flag=gated(ON)))) == [
        f"flag `{KEY}`: instance `silent` of service `web` has not declared it",
        f"flag `{KEY}`: instance `web-old` of service `web`, version 1.0, has not declared it",
    ]
    await beat(world, "silent", signing_off=True)
    await beat(world, "web-old", declared=[KEY, "b"])
    before = await world.put(gated(ON))
    assert before.n == 2, "a refusal takes no revision"


async def test_what_was_declared_stays_on_record_and_the_answer_says_so(world: World) -> None:
    await world.put(gated(OFF))
    many = [f"flag-{number}" for number in range(DECLARED_MAX + 5)]
    for declared, count in ((None, 0), ([KEY, KEY, "a/b", "\0"], 1), (None, 1), (many, DECLARED_MAX), ([], 0)):
        assert (await beat(world, declared=declared)).declared_count == count
    assert [row.declared for row in await world.instances.listing(PRODUCTION)] == [[]]


@pytest.mark.parametrize(("services", "why"), [(["ghost"], "service `ghost` has no live instance"), ([], "names no services")])
async def test_without_anyone_who_could_have_declared_it_is_refused(world: World, services: list[str], why: str) -> None:
    await world.put(gated(OFF, services=services))
    (detail,) = told(await refused(world, Put(flag=gated(ON, services=services))))
    assert why in detail


async def test_many_are_counted(world: World) -> None:
    await world.put(gated(OFF))
    await asyncio.gather(*(beat(world, f"pod-{number:03}") for number in range(50)))
    details = told(await refused(world, Put(flag=gated(ON))))
    assert (len(details), details[-1]) == (21, f"flag `{KEY}`: 30 more have not declared it")


async def test_turning_off_and_all_else_is_never_asked(world: World) -> None:
    await world.put(gated(ON), past_gate=True)
    await world.put(flag("plain"))
    await beat(world, "old")
    await world.put(gated(ON, owner="ann"))
    await world.put(gated(definition(targeting={"if": [{"==": [{"var": "plan"}, "free"]}, "off", "on"]})))
    await world.kill(KEY)
    await world.put(gated(OFF))
    await world.archive("plain")


async def test_every_way_to_turn_on_asks(world: World) -> None:
    needs = [wire.Prerequisite(flag="needed", variant="on")]
    await world.apply(
        [
            PutSegment(name="beta", rule={"==": [{"var": "country"}, "DE"]}),
            Put(flag=gated(OFF)),
            Put(flag=gated(ON, "dependent", prerequisites=needs)),
            Put(flag=gated(definition(defaultVariant="off", targeting={"if": [{"$ref": "beta"}, "on"]}), "sharing")),
            Put(flag=gated(definition(targeting={"fractional": [{"var": "a"}, ["on", 1], ["off", 1]]}), "split")),
            Put(flag=flag("needed", definition=OFF)),
        ],
        past_gate=True,
    )
    await beat(world, "old")
    ways: dict[str, Sequence[Operation]] = {
        KEY: [Put(flag=gated(ON))],
        "dependent": [Put(flag=flag("needed", definition=ON))],
        "sharing": [PutSegment(name="beta", rule={"==": [{"var": "country"}, "FR"]})],
        "split": [SetBucketing(generation="v2")],
    }
    for key, operations in ways.items():
        (detail,) = told(await refused(world, *operations))
        assert detail.startswith(f"flag `{key}`: instance `old`")
    both = [*ways[KEY], *ways["dependent"]]
    assert len(told(await refused(world, *both))) == 2
    await beat(world, "old", declared=[KEY, *ways])
    for operations in ways.values():
        await world.apply(operations)


async def test_a_list_tells_of_its_other_faults_too(world: World) -> None:
    await world.put(gated(OFF))
    problem = await refused(
        world, Put(flag=gated(ON)), Put(flag=flag("b", prerequisites=[wire.Prerequisite(flag="x", variant="y")]))
    )
    assert problem.status == 422
    assert {one.code for one in problem.errors} == {"undeclared", "unknown_flag"}


async def test_an_import_keeps_the_requirement_and_meets_the_gate_with_all_faults_at_once(world: World) -> None:
    await world.put(gated(OFF), gated(OFF, "b"))
    exported = await world.service.export_document(PRODUCTION)
    for one in exported["flags"].values():
        one["defaultVariant"] = "on"
    document, faults = flagset.read(exported)
    assert document is not None, faults
    operations = [Put(flag=one) for one in document.flags]
    problem = await refused(world, *operations, document=document, pointers=document.pointers)
    assert [(one.pointer, one.code) for one in problem.errors] == [("/flags/b", "undeclared"), (f"/flags/{KEY}", "undeclared")]
    await beat(world, declared=[KEY, "b"])
    await world.apply(operations, document=document, pointers=document.pointers)
    assert (await world.service.flag(PRODUCTION, KEY)).stored.flag.requires_declaration


async def test_past_the_gate_goes_a_reason_and_the_audit_log_names_who_had_not_declared(
    world: World, admin: httpx.AsyncClient
) -> None:
    await world.put(gated(OFF))
    await beat(world, "old", service_version="1.0")
    body = {"flag": msgspec.to_builtins(gated(ON)), "past_gate": True}
    bare = await admin.put(f"{BASE}/flags/{KEY}", json=body)
    assert (bare.status_code, bare.json()["errors"][0]["pointer"]) == (422, "/reason")
    passed = await admin.put(f"{BASE}/flags/{KEY}", json={**body, "reason": "an emergency"})
    assert (passed.status_code, passed.json()["requires_declaration"]) == (200, True)
    async with world.pg.connection() as connection:
        rows = await connection.fetch("SELECT reason, object, detail FROM runtime.audit WHERE action = 'flag.past_gate'")
    ((reason, about, detail),) = rows
    assert (reason, about, detail["undeclared_count"]) == ("an emergency", KEY, 1)
    assert detail["undeclared"] == [{"service": "web", "instance": "old", "service_version": "1.0"}]


async def test_a_scheduled_change_and_a_rollout_that_meet_the_gate_say_why_and_are_kept(
    world: World, admin: httpx.AsyncClient
) -> None:
    await world.put(gated(OFF), gated(OFF, "rolled"))
    await beat(world, "old", declared=["rolled"])
    later = {"in_seconds": 0, "operations": [{"op": "put", "flag": msgspec.to_builtins(gated(ON))}], "reason": "later"}
    made = (await admin.post(f"{BASE}/schedules", json=later)).json()
    await world.schedules.apply_due()
    found = (await admin.get(f"{BASE}/schedules/{made['id']}")).json()
    assert (found["state"], found["faults"][0]["code"], found["operations"]) == ("refused", "undeclared", made["operations"])
    steps = {"variant": "on", "steps": [1, 100], "every_seconds": 1, "reason": "slowly"}
    refused_now = await admin.post(f"{BASE}/flags/{KEY}/rollout", json=steps)
    assert (refused_now.status_code, refused_now.json()["code"]) == (409, "undeclared")
    assert (await admin.post(f"{BASE}/flags/rolled/rollout", json=steps)).status_code == 201
    await beat(world, "older")
    async with world.pg.connection() as connection:
        await connection.execute("UPDATE flagd.rollouts SET next_at = clock_timestamp()")
    await world.rollouts.carry_on()
    rolled = (await admin.get(f"{BASE}/flags/rolled/rollout")).json()
    assert (rolled["state"], rolled["stopped"], rolled["percent"]) == ("stopped", "refused", 1)
    assert "`older`" in rolled["faults"][0]["detail"]
    assert (await admin.post(f"{BASE}/schedules", json={**later, "past_gate": True})).status_code == 422


async def test_an_instance_that_comes_up_meanwhile_is_recorded_after_the_change(world: World) -> None:
    await world.put(gated(OFF))
    await beat(world, declared=[KEY])
    async with world.service.transaction() as connection:
        await world.service.write(connection, PRODUCTION, [Put(flag=gated(ON))], actor="test")
        late = asyncio.create_task(beat(world, "late"))
        await until(lambda: is_waiting(world))
        assert not late.done()
    await late
    missing = [row.instance for row in await world.instances.listing(PRODUCTION) if KEY not in (row.declared or ())]
    assert missing == ["late"]


async def is_waiting(world: World) -> bool:
    async with world.pg.connection() as connection:
        query = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid IN (SELECT pid FROM pg_stat_activity "
        return bool(await connection.fetchval(query + "WHERE datname = current_database()))"))


async def test_instances_are_listed_by_service_by_flag_and_by_who_is_behind(world: World, admin: httpx.AsyncClient) -> None:
    await world.put(gated(OFF))
    await world.put(flag("b"))
    await world.put(flag("c"))
    await beat(world, "a", revision=wire.Revision(1, 3), how="catch-up", applied_ago_ms=90_000.0, declared=[KEY])
    await beat(world, "b", service="api")
    (behind,) = (await admin.get(f"{BASE}/instances", params={"behind": "true"})).json()["instances"]
    assert (behind["instance"], behind["behind_count"], behind["applied_at"]) == ("b", 2, None)
    assert behind["behind_seconds"] >= 0
    for query in ({"service": "web"}, {"flag": KEY}, {"behind": "false"}):
        (found,) = (await admin.get(f"{BASE}/instances", params=query)).json()["instances"]
        assert (found["instance"], found["how"], found["declared"], found["behind_count"]) == ("a", "catch-up", [KEY], 0)
    (row,) = await world.instances.listing(PRODUCTION, which=Filter(service="web"))
    assert row.applied_at is not None
    assert 89 < (row.seen_at - row.applied_at).total_seconds() < 120, "the age counts, no clock of the instance"
    await beat(world, "a", revision=wire.Revision(1, 3), applied_ago_ms=1.0)
    assert (await world.instances.listing(PRODUCTION))[0].applied_at == row.applied_at, "the first word on it stays"


@pytest.mark.parametrize(
    "absurd", [wire.Revision(9, 1), wire.Revision(1, 2**53), wire.Revision(2, 0), wire.Revision(1, 3 + UNPROVEN_MAX)]
)
async def test_an_absurd_revision_is_not_believed_and_acknowledges_nothing(world: World, absurd: wire.Revision) -> None:  # P2
    await world.put(flag("a"))
    await beat(world, "i")
    killed = await world.kill("a")
    for instance in ("i", "forged"):
        await beat(world, instance, revision=absurd, proven=absurd, proof="f" * 64)
    await world.put(flag("b"))
    assert [(row.revision, row.behind) for row in await world.instances.listing(PRODUCTION)] == [("0.0", True), ("1.1", True)]
    async with world.pg.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM flagd.acknowledgements") == 0
    await beat(world, "i", revision=killed)
    assert (await world.instances.listing(PRODUCTION, "forged"))[0].revision == str(killed), "it is not stuck"


async def test_a_lost_future_is_believed_of_who_can_prove_it(world: World) -> None:  # P2
    await world.put(flag("a"))
    far = wire.Revision(1, 2 + 2 * UNPROVEN_MAX)
    async with world.pg.connection() as connection:
        await connection.execute("UPDATE flagd.environments SET revision = $1", far.n)
        await world.instances.beat(PRODUCTION, wire.InstanceBeat(instance="i", service="web", revision=far), far)
        proven = await world.instances.beat(PRODUCTION, wire.InstanceBeat(instance="i", service="web", revision=far), far)
        await connection.execute("DELETE FROM flagd.instances")
        await connection.execute("UPDATE flagd.environments SET revision = 1")
    assert proven.proven == far
    await beat(world, "i", revision=far)
    await world.put(flag("b"))
    await beat(world, "i", revision=far, proven=far, proof=proven.proof)
    with pytest.raises(Problem) as caught:
        await world.put(flag("c"))
    assert caught.value.code == "environment_in_recovery"

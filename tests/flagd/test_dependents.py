"""Prerequisites on real servers: what one flag serves, kills included, binds the others in the same revision (P1, P4, P7)."""

from __future__ import annotations

from typing import Any

import httpx
from rescind import wire

from flagd.core.plain import plain_document
from tests.flagd.oracle import DEFAULT, answer_of, oracle_answer
from tests.flagd.world import PRODUCTION, World, definition, flag
from tests.waiting import until

E = f"/v1/environments/{PRODUCTION}"
BY = {"cat": [{"var": "$flagd.flagKey"}, {"var": "targetingKey"}]}
FREE = {"if": [{"==": [{"var": "plan"}, "free"]}, "off", "on"]}


def needing(key: str, *needs: str, **changed: Any) -> wire.Flag:
    """A flag that is on where all these serve `on`."""
    made = definition(targeting=changed.pop("targeting", {}))
    return flag(key, definition=made, prerequisites=[wire.Prerequisite(flag=one, variant="on") for one in needs], **changed)


async def values(world: World, key: str, **context: Any) -> str | None:
    """The variant by our evaluator, and the same by flagd's own from the effective export."""
    replica = await world.replicas.get(PRODUCTION)
    user = context.pop("targetingKey", "u")
    ours = answer_of(replica.evaluator.evaluate(key, {"targetingKey": user, **context}, DEFAULT))
    assert oracle_answer(plain_document(replica.snapshot), key, context, user) == ours
    return ours[0]


async def test_a_kill_of_a_prerequisite_changes_its_dependents_in_its_own_revision_on_every_replica(  # P1, P4, P7
    world: World, other: World
) -> None:
    await world.put(flag("b"), needing("a", "b"), needing("top", "a"), flag("apart"))
    replica = await other.replicas.get(PRODUCTION)
    await until(lambda: "top" in replica.snapshot.flags)
    assert [await values(other, key, plan="paid") for key in ("b", "a", "top")] == ["on"] * 3
    assert [await values(other, key, plan="free") for key in ("b", "a", "top")] == ["off"] * 3
    subscription = replica.subscribe()
    killed = await world.kill("b")
    await world.replicas.refresh(PRODUCTION, killed)
    event = await anext(subscription)
    assert (event.kind, event.revision) == ("change", killed), "small, as every kill"
    assert set(replica.snapshot.flags) == {"b", "a", "top", "apart"}
    assert [await values(other, key, plan="paid") for key in ("b", "a", "top", "apart")] == ["off", "off", "off", "on"]
    assert b'"apart"' not in event.frame
    lifted = await world.lift("b")
    await until(lambda: replica.revision == lifted)
    assert [await values(other, key, plan="paid") for key in ("b", "a", "top")] == ["on"] * 3
    replica.leave(subscription)
    whole = await world.replicas._load(PRODUCTION)
    assert whole.snapshot.flags == replica.snapshot.flags, "loaded whole or change by change, it is the same"


async def test_a_narrowed_kill_of_a_prerequisite_narrows_its_dependents(world: World) -> None:  # P4, P7
    await world.put(flag("b", definition=definition(targeting={})), needing("a", "b"))
    await world.replicas.refresh(PRODUCTION, await world.kill("b", scope={"region": "eu"}))
    assert [await values(world, "a", region=region) for region in ("eu", "us")] == ["off", "on"]
    assert await values(world, "a") == "off", "whoever cannot tell is in scope"


async def test_a_flag_killed_to_on_lets_its_dependents_go_on(world: World) -> None:  # P4
    await world.put(flag("breaker", off_variant="on", definition=definition(targeting=FREE)), needing("a", "breaker"))
    assert await values(world, "a", plan="free") == "off"
    await world.replicas.refresh(PRODUCTION, await world.kill("breaker"))
    assert await values(world, "a", plan="free") == "on"


async def test_an_edit_of_a_prerequisite_reaches_its_dependents(world: World, other: World) -> None:  # P1
    await world.put(
        flag("b", definition=definition(targeting={"fractional": [BY, ["on", 50], ["off", 50]]})), needing("a", "b")
    )
    for user in ("u-1", "u-2", "u-3", "u-4", "u-5"):
        assert await values(world, "a", targetingKey=user) == await values(world, "b", targetingKey=user)
    revision = await world.put(flag("b", definition=definition(targeting={}, defaultVariant="off")))
    replica = await other.replicas.get(PRODUCTION)
    await until(lambda: replica.revision == revision)
    assert await values(other, "a") == "off"
    await world.put(flag("b", definition=definition(state="DISABLED")))
    assert await values(world, "a") == "off"


async def test_what_others_depend_on_is_neither_archived_nor_taken_the_variant(admin: httpx.AsyncClient, world: World) -> None:
    await world.put(flag("b"), needing("a", "b"))
    archived = await admin.delete(f"{E}/flags/b")
    assert (archived.status_code, archived.json()["code"]) == (409, "in_use")
    assert archived.json()["detail"] == "flag `a` is served only where `b` serves `on`"
    smaller = {"state": "ENABLED", "variants": {"off": False}, "defaultVariant": "off"}
    taken = (await admin.put(f"{E}/flags/b", json={"flag": {"definition": smaller}, "reason": "x"})).json()
    assert [(one["pointer"], one["code"]) for one in taken["errors"]] == [("/flag/definition/variants/on", "in_use")]
    shares = definition(targeting={"fractional": [["on", 1], ["off", 1]]})
    split = (await admin.put(f"{E}/flags/b", json={"flag": {"definition": shares}, "reason": "x"})).json()
    assert [(one["pointer"], one["code"]) for one in split["errors"]] == [("/flag", "unrepeatable")]
    operations = [{"op": "archive", "key": "b"}, {"op": "archive", "key": "a"}]
    assert (await admin.post(f"{E}/changes", json={"operations": operations, "reason": "both"})).status_code == 200
    async with world.pg.connection() as connection:
        assert await connection.fetch("SELECT * FROM flagd.prerequisites") == []


async def test_every_fault_of_prerequisites_is_told_at_once_with_its_pointer(admin: httpx.AsyncClient, world: World) -> None:
    await world.put(flag("b"), flag("c", definition=definition(targeting={"fractional": [["on", 1], ["off", 1]]})))
    written = [{"flag": "b"}, {"flag": "b", "variant": "on", "not": 1}, {"flag": "b", "variant": "off"}, 7, {}]
    body = {"flag": {"definition": definition(), "prerequisites": written}, "reason": "x"}
    found = (await admin.put(f"{E}/flags/a", json=body)).json()["errors"]
    assert [(one["pointer"], one["code"]) for one in found] == [
        ("/flag/prerequisites/0/variant", "missing"),
        ("/flag/prerequisites/1/not", "unknown_field"),
        ("/flag/prerequisites/2/flag", "twice"),
        ("/flag/prerequisites/3", "wrong_type"),
        ("/flag/prerequisites/4/flag", "missing"),
        ("/flag/prerequisites/4/variant", "missing"),
    ]
    body["flag"]["prerequisites"] = [{"flag": one, "variant": "on"} for one in ("nowhere", "a", "c")]  # type: ignore[index]
    found = (await admin.put(f"{E}/flags/a", json=body)).json()["errors"]
    assert [(one["pointer"], one["code"]) for one in found] == [
        ("/flag/prerequisites/0/flag", "unknown_flag"),
        ("/flag/prerequisites/2", "unrepeatable"),
        ("/flag/prerequisites/1", "cycle"),
    ]
    assert (await admin.get(f"{E}/flags/a")).status_code == 404


async def test_a_switch_of_bucketing_does_not_break_what_depends_on_a_split(admin: httpx.AsyncClient, world: World) -> None:
    await admin.put(f"{E}/bucketing", json={"generation": "v2", "reason": "as they do"})
    await world.put(flag("b", definition=definition(targeting={"fractional": [["on", 1], ["off", 1]]})), needing("a", "b"))
    refused = (await admin.put(f"{E}/bucketing", json={"generation": "v3", "reason": "newer"})).json()
    assert [(one["pointer"], one["code"]) for one in refused["errors"]] == [("/generation", "unrepeatable")]


async def test_a_segment_that_moves_changes_whoever_depends_on_its_flags(admin: httpx.AsyncClient, world: World) -> None:  # P1
    await admin.put(f"{E}/segments/s", json={"segment": {"==": [{"var": "plan"}, "free"]}, "reason": "x"})
    await world.put(flag("b", definition=definition(targeting={"if": [{"$ref": "s"}, "off", "on"]})), needing("a", "b"))
    assert await values(world, "a", plan="free") == "off"
    await admin.put(f"{E}/segments/s", json={"segment": {"==": [{"var": "plan"}, "paid"]}, "reason": "x"})
    assert [await values(world, "a", plan=plan) for plan in ("free", "paid")] == ["on", "off"]
    split = {"fractional": [["on", 1], ["off", 1]]}
    refused = (await admin.put(f"{E}/segments/s", json={"segment": {"==": [split, "on"]}, "reason": "x"})).json()
    assert [(one["pointer"], one["code"]) for one in refused["errors"]] == [("/segment", "unrepeatable")]


async def test_prerequisites_are_read_as_they_were_written_and_stay_in_an_import(
    admin: httpx.AsyncClient, world: World
) -> None:
    needs = [{"flag": "b", "variant": "on"}]
    await world.put(flag("b"))
    put = await admin.put(f"{E}/flags/a", json={"flag": {"definition": definition(), "prerequisites": needs}, "reason": "x"})
    assert put.json()["prerequisites"] == needs
    assert put.json()["definition"] == definition()
    document = (await admin.get(f"{E}/export")).json()
    first, *others = document["flags"]["a"]["targeting"]["if"]
    assert (first["and"][0], others) == ("needs b to serve on", ["off", *definition()["targeting"]["if"]])
    assert (await admin.post(f"{E}/import", params={"dry_run": True}, json=document)).json()["changed"] == []
    document["flags"]["a"]["defaultVariant"] = "off"
    assert (await admin.post(f"{E}/import", json=document)).status_code == 200
    written = (await admin.get(f"{E}/flags/a")).json()
    assert (written["prerequisites"], written["definition"]) == (needs, definition(defaultVariant="off"))

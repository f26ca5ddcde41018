"""Segments through the API, on real servers: ordinary revisions that reach every replica, and break no flag (P1, P2, P20)."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from rescind import wire

from flagd.core.changes import DeleteSegment, Put, PutSegment
from flagd.core.segments import references, when_of
from runtime.problem import Problem
from tests.flagd.oracle import oracle_answer
from tests.flagd.world import PRODUCTION, World, definition, flag
from tests.waiting import until

E = f"/v1/environments/{PRODUCTION}"
WHEN = [{"attribute": "country", "operator": "in", "value": ["DE", "AT"]}]
RULE: dict[str, Any] = {"in": [{"var": "country"}, ["DE", "AT"]]}
TARGETED = {"if": [{"$ref": "dach"}, "on", "off"]}


async def put(admin: httpx.AsyncClient, name: str, segment: object, **body: Any) -> httpx.Response:
    return await admin.put(f"{E}/segments/{name}", json={"segment": segment, "reason": "new", **body})


async def test_a_segment_is_written_read_and_deleted_as_revisions(admin: httpx.AsyncClient, world: World) -> None:  # P20
    made = await put(admin, "dach", {"when": WHEN})
    assert (made.status_code, made.json()) == (
        201,
        {"name": "dach", "when": WHEN, "rule": RULE, "flags": [], "revision": "1.1"},
    )
    assert (await put(admin, "dach", {"rule": RULE})).json()["revision"] == "1.2"
    assert (await put(admin, "dach", RULE, expected_revision="1.2")).json()["revision"] == "1.3"
    assert (await put(admin, "dach", RULE, expected_revision="1.2")).status_code == 409
    listed = (await admin.get(f"{E}/segments")).json()
    assert ([one["name"] for one in listed["segments"]], listed["revision"]) == (["dach"], "1.3")
    gone = await admin.request("DELETE", f"{E}/segments/dach", json={"reason": "unused"})
    assert gone.json() == {"revision": "1.4"}
    for method, path in (("GET", "dahc"), ("DELETE", "dach")):
        assert (await admin.request(method, f"{E}/segments/{path}")).json()["code"] == "unknown_segment"
    async with world.pg.connection() as connection:
        rows = await connection.fetch(
            "SELECT action, object, reason, detail ->> 'revision' FROM runtime.audit WHERE action LIKE 'segment%' ORDER BY id"
        )
        operations = await connection.fetchval("SELECT operations FROM flagd.revisions WHERE revision = 1")
    assert [tuple(row) for row in rows] == [
        *(("segment.put", "dach", "new", f"1.{n}") for n in (1, 2, 3)),
        ("segment.delete", "dach", "unused", "1.4"),
    ]
    assert operations == [{"op": "put_segment", "key": "dach"}]


async def test_every_fault_of_a_segment_is_told_at_once(admin: httpx.AsyncClient) -> None:
    faults = (
        await put(admin, "a b", {"when": [{"attribute": "", "operator": "eqals"}, {"segment": "x"}], "wen": 1}, reson=1)
    ).json()
    assert sorted((one["pointer"], one["code"]) for one in faults["errors"]) == [
        ("/name", "bad_name"),
        ("/reson", "unknown_field"),
        ("/segment/wen", "unknown_field"),
        ("/segment/when/0/attribute", "wrong_type"),
        ("/segment/when/0/operator", "unknown_operator"),
    ]
    nested = (await put(admin, "ok", {"when": [{"segment": "x"}]})).json()["errors"]
    assert [(one["pointer"], one["code"]) for one in nested] == [("/segment/when", "nested_reference")]
    raw = (await put(admin, "ok", {"rule": {"nope": []}})).json()["errors"]
    assert [(one["pointer"], one["code"]) for one in raw] == [("/segment/rule/nope", "unknown_operator")]
    for wrong in (None, [], "x", {"rule": 7}, {"==": [1, 1], "!=": [1, 2]}, {"when": []}):
        assert (await put(admin, "ok", wrong)).status_code == 422, wrong


async def test_a_segment_decides_for_all_its_flags_in_one_revision_everywhere(  # P1, P7
    admin: httpx.AsyncClient, world: World, other: World
) -> None:
    await put(admin, "dach", {"when": WHEN})
    await world.put(*(flag(key, definition=definition(targeting=TARGETED, defaultVariant="off")) for key in ("a", "b")))
    replica = await other.replicas.get(PRODUCTION)
    await until(lambda: replica.evaluator.boolean("a", False, {"country": "AT"}))
    assert (await admin.get(f"{E}/segments/dach")).json()["flags"] == ["a", "b"]
    answer = (await put(admin, "dach", {"rule": {"==": [{"var": "country"}, "NO"]}})).json()
    await until(lambda: str(replica.revision) == answer["revision"])
    for key in ("a", "b"):
        assert [replica.evaluator.boolean(key, False, {"country": one}) for one in ("AT", "NO")] == [False, True]
    exported = (await admin.get(f"{E}/export")).json()
    effective = (await admin.get(f"{E}/export", params={"effective": True})).json()
    for document in (exported, effective):
        assert oracle_answer(document, "a", {"country": "NO"}, "u") == ("on", True)


async def test_what_a_stream_sends_of_a_segment_is_the_whole_snapshot(world: World) -> None:  # P1
    await world.apply([PutSegment(name="dach", rule=RULE)])
    replica = await world.replicas.get(PRODUCTION)
    subscription = replica.subscribe()
    await world.put(flag("a", definition=definition(targeting=TARGETED)))
    await world.apply([PutSegment(name="dach", rule={"!": [RULE]})])
    events = [await anext(subscription) for _ in range(2)]
    assert [(event.kind, event.revision.n) for event in events] == [("change", 2), ("snapshot", 3)]
    replica.leave(subscription)


async def test_a_segment_that_is_referred_to_is_not_deleted(admin: httpx.AsyncClient, world: World) -> None:
    await put(admin, "dach", {"when": WHEN})
    await world.put(*(flag(key, definition=definition(targeting=TARGETED)) for key in ("a", "b")))
    refused = await admin.delete(f"{E}/segments/dach")
    assert (refused.status_code, refused.json()["code"]) == (409, "in_use")
    assert [one["detail"] for one in refused.json()["errors"]] == [
        "flag `a` refers to segment `dach`",
        "flag `b` refers to segment `dach`",
    ]
    await world.archive("b")
    operations = [
        {"op": "delete_segment", "name": "dach"},
        {"op": "put_segment", "name": "at", "segment": {"when": WHEN}},
        {"op": "put", "flag": {"key": "a", "definition": definition(targeting={"if": [{"$ref": "at"}, "on", "off"]})}},
    ]
    done = await admin.post(f"{E}/changes", json={"operations": operations, "reason": "renamed"})
    assert done.status_code == 200, done.text
    assert set((await world.replicas.get(PRODUCTION)).snapshot.evaluators) == {"at"}


async def test_an_edit_that_would_break_a_flag_is_refused_with_every_fault(admin: httpx.AsyncClient, world: World) -> None:
    await put(admin, "choice", {"rule": {"if": [{"var": "x"}, "on", "off"]}})
    await world.put(*(flag(key, definition=definition(targeting={"$ref": "choice"})) for key in ("a", "b")))
    refused = await put(admin, "choice", {"rule": {"if": [{"var": "x"}, "blue", "red"]}})
    assert refused.status_code == 422
    found = refused.json()["errors"]
    assert [one["code"] for one in found] == ["unknown_variant"] * 4
    assert {one["pointer"] for one in found} == {"/segment"}
    assert [one["detail"].split("/")[0] for one in found] == ["flag `a`", "flag `a`", "flag `b`", "flag `b`"]
    large = {"in": [{"var": "x"}, list(range(7_000))]}
    thrice = {"if": [{"$ref": "seg"}, "on", {"if": [{"$ref": "seg"}, "off", {"if": [{"$ref": "seg"}, "on"]}]}]}
    await put(admin, "seg", {"when": WHEN})
    await world.put(flag("c", definition=definition(targeting=thrice)))
    assert [one["code"] for one in (await put(admin, "seg", {"rule": large})).json()["errors"]] == ["too_large"]


async def test_a_flag_that_refers_to_what_is_gone_by_then_is_refused(world: World) -> None:
    """It was checked while the segment was there, and is checked again where nothing moves any more."""
    await world.apply([PutSegment(name="dach", rule=RULE)])
    targeted = flag("a", definition=definition(targeting=TARGETED))
    with pytest.raises(Problem) as refused:
        await world.apply([DeleteSegment(name="dach"), Put(flag=targeted)])
    assert [(one.pointer, one.code) for one in refused.value.errors] == [
        ("/operations/1/flag/definition/targeting/if/0/$ref", "unknown_evaluator")
    ]


async def test_an_import_does_not_take_segments_from_flags_that_it_does_not_name(
    admin: httpx.AsyncClient, world: World
) -> None:
    await put(admin, "dach", {"when": WHEN})
    await world.put(flag("a", definition=definition(targeting=TARGETED)))
    refused = await admin.post(f"{E}/import", json={"flags": {"new": definition(targeting={})}, "$evaluators": {"x": RULE}})
    assert (refused.status_code, refused.json()["code"]) == (409, "in_use")
    both = {"flags": {"a": definition(targeting={"if": [{"$ref": "x"}, "on"]})}, "$evaluators": {"x": RULE}}
    assert (await admin.post(f"{E}/import", json=both)).status_code == 200


def test_conditions_and_references_of_a_rule() -> None:
    assert when_of(RULE) == WHEN
    assert when_of({"missing": ["plan"]}) is None
    assert when_of({"and": ["named", RULE]}) is None
    assert references({"if": [{"$ref": "a"}, {"and": [{"$ref": "b"}, {"==": [{"var": "$ref"}, "$ref"]}]}]}) == {"a", "b"}
    assert references(None) == set()


async def test_a_reader_may_look_and_not_write(client: httpx.AsyncClient, world: World) -> None:
    client.headers["authorization"] = f"Bearer {await world.token('read')}"
    assert (await client.get(f"{E}/segments")).status_code == 200
    assert (await put(client, "dach", {"when": WHEN})).status_code == 403
    assert (await client.delete(f"{E}/segments/dach")).status_code == 403
    assert wire.Revision(1, 0) == (await world.replicas.get(PRODUCTION)).revision

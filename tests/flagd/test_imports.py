"""Imports: the difference that is shown is what is applied, or nothing (P1); rules over HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from rescind import wire

from flagd.core import difference, flagset
from tests.flagd.world import PRODUCTION, World, definition, flag

BASE = f"/v1/environments/{PRODUCTION}"
BETA = {"when": [{"segment": "beta"}], "serve": "off"}
FLAGS = 10_000


@pytest.fixture
async def admin(world: World, client: httpx.AsyncClient) -> httpx.AsyncClient:
    client.headers["authorization"] = f"Bearer {await world.token('admin', environment=None)}"
    return client


async def imported(admin: httpx.AsyncClient, document: Any, **params: Any) -> httpx.Response:
    return await admin.post(f"{BASE}/import", json=document, params=params)


def pointers(answer: httpx.Response) -> set[str]:
    return {fault["pointer"] for fault in answer.json()["errors"]}


def test_a_difference_names_each_field_with_before_and_after() -> None:
    before = {"a": 1, "b": {"c": [1, {"d": True}], "e": 1}, "gone": None}
    after = {"a": 1, "b": {"c": [1, {"d": 1}], "e": [1]}, "x/y": None}
    assert difference.fields(before, after, "/flags/f") == [
        difference.FieldChange(pointer="/flags/f/b/c/1/d", before=True, after=1),
        difference.FieldChange(pointer="/flags/f/b/e", before=1, after=[1]),
        difference.FieldChange(pointer="/flags/f/gone", before=None),
        difference.FieldChange(pointer="/flags/f/x~1y", after=None),
    ]
    assert difference.fields([1], [1, 2], "") == [difference.FieldChange(pointer="", before=[1], after=[1, 2])]


def test_a_list_of_flags_is_read_as_a_keyed_one_is_with_faults_where_they_stand() -> None:
    keyed, faults = flagset.read({"flags": {"f": definition(), "g": definition()}})
    listed, also = flagset.read({"flags": [{"key": "f", **definition()}, {"key": "g", **definition()}]})
    assert keyed is not None
    assert listed is not None
    assert keyed.flags == listed.flags
    assert (keyed.pointers, listed.pointers) == (["/flags/f", "/flags/g"], ["/flags/0", "/flags/1"])
    bad = [
        {"key": "f", **definition(state="ON")},
        {"key": "f", **definition()},
        definition(),
        7,
        {"key": "a b/c", **definition()},
    ]
    _, wrong = flagset.read({"flags": bad})
    assert {fault.pointer for fault in wrong} >= {"/flags/0/state", "/flags/1/key", "/flags/2/key", "/flags/3", "/flags/4/key"}
    assert faults == also == []


async def test_a_dry_run_shows_the_difference_and_changes_nothing(world: World, admin: httpx.AsyncClient) -> None:
    await world.put(flag("same"), flag("moved", owner="checkout"), flag("alone"))
    document = {
        "flags": {"same": definition(), "moved": definition(defaultVariant="off"), "new": definition(targeting={})},
        "$evaluators": {"beta": {"==": [{"var": "plan"}, "beta"]}},
        "metadata": {"team": "checkout"},
    }
    shown = (await imported(admin, document, dry_run=True)).json()
    assert shown == {
        "revision": "1.1",
        "added": [{"key": "new", "off_variant": "off"}],
        "changed": [{"key": "moved", "changes": [{"pointer": "/flags/moved/defaultVariant", "before": "on", "after": "off"}]}],
        "unchanged": ["same"],
        "staying": ["alone"],
        "evaluators": [{"pointer": "/$evaluators/beta", "after": {"==": [{"var": "plan"}, "beta"]}}],
        "metadata": [{"pointer": "/metadata/team", "after": "checkout"}],
    }
    assert (await admin.get(f"{BASE}/export")).json()["flags"].keys() == {"same", "moved", "alone"}
    applied = await imported(admin, document, expected_revision=shown["revision"], reason="a move")
    assert applied.json() == {"revision": "1.2", "flags": 3}
    assert (await admin.get(f"{BASE}/flags/moved")).json()["owner"] == "checkout"
    assert (await admin.get(f"{BASE}/flags/same")).json()["revision"] == "1.1", "what is the same is not written"
    again = (await imported(admin, document, dry_run=True)).json()
    assert (again["added"], again["changed"], again["evaluators"], again["metadata"]) == ([], [], [], [])


async def test_a_change_in_between_refuses_the_import(world: World, admin: httpx.AsyncClient) -> None:  # P1
    document = {"flags": {"f": definition()}}
    shown = (await imported(admin, document, dry_run=True)).json()
    await world.put(flag("f", definition=definition(defaultVariant="off")))
    refused = await imported(admin, document, expected_revision=shown["revision"])
    assert (refused.status_code, refused.json()["code"]) == (409, "revision_mismatch")
    assert (await admin.get(f"{BASE}/flags/f")).json()["definition"]["defaultVariant"] == "off"


async def test_a_dry_run_refuses_what_the_import_would(world: World, admin: httpx.AsyncClient) -> None:  # P4
    await world.put(flag("f"), flag("old"))
    await world.archive("old")
    await world.kill("f")
    traitor = {"flags": [{"key": "f", **definition(variants={"on": False, "off": True})}, {"key": "old", **definition()}]}
    for how in ({"dry_run": True}, {}):
        refused = await imported(admin, traitor, **how)
        assert refused.status_code == 422
        assert pointers(refused) == {"/flags/0/variants/off", "/flags/1/key"}
    assert (await imported(admin, {"flags": {}}, dry_run=True, expected_revision="soon")).status_code == 422


async def test_an_export_as_served_has_the_kills_in_it(world: World, admin: httpx.AsyncClient) -> None:  # P7
    await world.put(flag("f"))
    await world.kill("f")
    written = (await admin.get(f"{BASE}/export")).json()
    served = (await admin.get(f"{BASE}/export", params={"effective": True})).json()
    assert written["flags"]["f"] == definition()
    assert (served["flags"]["f"]["defaultVariant"], served["flags"]["f"]["metadata"]) == ("off", {"rescind.killed": True})
    assert served["metadata"]["version"] == "1.2"


async def test_ten_thousand_flags_are_imported_at_once(world: World, admin: httpx.AsyncClient) -> None:
    flags = {f"team-{number % 97}.flag-{number}": definition(metadata={"about": "x" * 200}) for number in range(FLAGS)}
    shown = (await imported(admin, {"flags": flags}, dry_run=True)).json()
    assert len(shown["added"]) == FLAGS
    applied = await imported(admin, {"flags": flags}, expected_revision=shown["revision"])
    assert applied.json() == {"revision": "1.1", "flags": FLAGS}
    flags["team-0.flag-0"] = definition(defaultVariant="off")
    shown = (await imported(admin, {"flags": flags}, dry_run=True)).json()
    assert [one["key"] for one in shown["changed"]] == ["team-0.flag-0"]
    assert len(shown["unchanged"]) == FLAGS - 1
    too_many = {"flags": {**flags, "one.more": definition()}}
    assert pointers(await imported(admin, too_many, dry_run=True)) == {"/flags"}


async def test_a_flag_is_written_and_read_as_rules(world: World, admin: httpx.AsyncClient) -> None:
    bare = {name: value for name, value in definition().items() if name != "targeting"}
    segments = {"flags": {"f": bare}, "$evaluators": {"beta": {"==": [{"var": "plan"}, "beta"]}}}
    assert (await imported(admin, segments)).status_code == 200
    put = await admin.put(f"{BASE}/flags/f", json={"flag": {"definition": bare, "rules": [BETA]}, "reason": "beta goes off"})
    assert put.json()["rules"] == [BETA]
    assert put.json()["definition"]["targeting"] == {"if": [{"$ref": "beta"}, "off"]}
    changed = [{**BETA, "name": "beta"}, {"serve": {"split": {"on": 5, "off": 95}}}]
    operations = [{"op": "put", "flag": {"key": "f", "definition": bare, "rules": changed}}]
    assert (await admin.post(f"{BASE}/changes", json={"operations": operations})).status_code == 200
    assert (await admin.get(f"{BASE}/flags/f")).json()["rules"] == changed
    raw = definition(targeting={"if": [{"missing": ["plan"]}, "off"]})
    beyond = await admin.put(f"{BASE}/flags/f", json={"flag": {"definition": raw}})
    assert beyond.json()["rules"] is None
    wrong = [{"when": [{"segment": "bata"}], "serve": "blue"}, {"when": [{"attribute": "a", "operator": "is"}], "serve": "on"}]
    refused = await admin.put(f"{BASE}/flags/f", json={"flag": {"definition": definition(), "rules": wrong}})
    assert pointers(refused) == {"/flag/rules", "/flag/rules/1/when/0/operator"}
    refused = await admin.put(f"{BASE}/flags/f", json={"flag": {"definition": bare, "rules": wrong[:1]}})
    assert pointers(refused) == {"/flag/rules/0/when/0", "/flag/rules/0/serve"}


async def test_an_export_has_prerequisites_as_rules_and_comes_back_as_nothing(  # P7
    world: World, admin: httpx.AsyncClient
) -> None:
    needs = [wire.Prerequisite(flag=name, variant="on") for name in ("always", "split", "never")]
    own: list[dict[str, Any]] = [
        {},
        {"if": ["on"]},
        {"if": [{"var": "beta"}, "on", "off"]},
        {"==": [{"var": "x"}, 1]},
        {"if": [{"if": [{"var": "x"}, "on"]}]},
    ]
    flags = [
        flag(f"f{number}-{count}", definition=definition(targeting=targeting), prerequisites=needs[:count])
        for number, targeting in enumerate(own)
        for count in range(4)
    ]
    bare = {name: value for name, value in definition().items() if name != "targeting"}
    needed = [
        flag("always", definition=definition(targeting={})),
        flag("split"),
        flag("never", definition={**bare, "defaultVariant": "off"}),
    ]
    await world.put(*needed, *flags, flag("bare", definition=bare, prerequisites=needs))
    exported = (await admin.get(f"{BASE}/export")).json()
    served = (await world.replicas.get(PRODUCTION)).snapshot
    assert exported["flags"] == {key: one.definition for key, one in served.flags.items()}
    assert exported["flags"]["bare"]["targeting"] == {"if": ["needs never to serve on", "off"]}
    again = (await imported(admin, exported, dry_run=True)).json()
    assert (again["added"], again["changed"], again["evaluators"], again["metadata"]) == ([], [], [], [])
    await world.kill("split")
    assert (await admin.get(f"{BASE}/export")).json() == exported, "kills are not in it"

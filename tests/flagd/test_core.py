"""The pure core: overlay, change lists, documents."""

from __future__ import annotations

from rescind import wire
from rescind.evaluation import Evaluator

from flagd.core import changes, documents, flagset
from flagd.core.overlay import effective
from tests.flagd.world import definition, flag


def kill(off_variant: str = "off", scope: dict[str, object] | None = None, n: int = 1) -> wire.Kill:
    return wire.Kill(rollback_id="r", off_variant=off_variant, closes_epoch=1, revision=wire.Revision(1, n), scope=scope or {})


def nothing_wrong(_: object) -> list[wire.Fault]:
    return []


def codes(faults: list[wire.Fault]) -> dict[str, str]:
    return {fault.pointer: fault.code for fault in faults}


def test_a_killed_flag_is_said_in_plain_flagd_terms() -> None:  # P7
    written = flag("f", definition=definition(state="DISABLED", metadata={"team": "checkout"}))
    assert effective(written, 2, [kill()]).definition == {
        "state": "ENABLED",
        "variants": {"on": True, "off": False},
        "defaultVariant": "off",
        "metadata": {"team": "checkout", "rescind.killed": True},
    }


def test_a_circuit_breaker_is_killed_to_on() -> None:  # P4
    breaker = effective(flag("breaker", off_variant="on", definition=definition(defaultVariant="off")), 2, [kill("on")])
    assert Evaluator({"breaker": breaker}).evaluate("breaker", {"plan": "free"}, False).variant == "on"


def test_the_kills_own_off_variant_wins_over_a_later_one() -> None:  # P4
    assert effective(flag("f", off_variant="on"), 2, [kill("off")]).definition["defaultVariant"] == "off"


def test_a_narrowed_kill_leaves_the_definition_and_travels_beside_it() -> None:  # P4
    laid = effective(flag("f"), 2, [kill(scope={"region": "eu"})])
    assert laid.definition == definition()
    evaluator = Evaluator({"f": laid})
    assert evaluator.evaluate("f", {"region": "eu"}, True).variant == "off"
    assert evaluator.evaluate("f", {"region": "us"}, True).variant == "on"
    assert evaluator.evaluate("f", {}, True).variant == "off", "whoever cannot tell is in scope"


def test_every_fault_of_a_flag_is_told_at_once() -> None:
    document = {
        "key": "a/b",
        "definition": {"state": "ON", "variants": {"on": True}},
        "tier": "gold",
        "services": ["ok", "not ok!"],
        "ownr": "me",
        "max_staleness_seconds": -1,
        "expires_at": "soon",
    }
    _, faults = documents.read_flag(document, "/flag", lambda _: [wire.Fault(pointer="/state", detail="bad")])
    assert codes(faults) == {
        "/flag/ownr": "unknown_field",
        "/flag/key": "bad_key",
        "/flag/definition/state": "invalid",
        "/flag/off_variant": "unknown_variant",
        "/flag/tier": "wrong_type",
        "/flag/services/1": "wrong_type",
        "/flag/max_staleness_seconds": "wrong_type",
        "/flag/expires_at": "wrong_type",
    }
    assert any("`owner`" in fault.detail for fault in faults)


def test_a_missing_key_and_definition_are_faults() -> None:
    _, faults = documents.read_flag({}, "/flag", nothing_wrong)
    assert codes(faults) == {"/flag/key": "missing", "/flag/definition": "missing"}


def test_an_edit_under_a_kill_cannot_change_what_the_kill_serves() -> None:  # P4
    held = {"f": changes.HeldFlag(flag=flag("f"), kills=[kill()])}
    traitor = flag("f", definition=definition(variants={"on": False, "off": True}))
    assert codes(changes.plan([changes.Put(flag=traitor)], held, ["/flag"])[1]) == {"/flag/definition/variants/off": "killed"}
    without = flag("f", off_variant="on", definition=definition(variants={"on": True}))
    assert codes(changes.plan([changes.Put(flag=without)], held, ["/flag"])[1]) == {
        "/flag/definition/variants/off": "killed",
        "/flag/off_variant": "killed",
    }
    allowed = flag("f", definition=definition(state="DISABLED", targeting={}))
    assert changes.plan([changes.Put(flag=allowed)], held, ["/flag"])[1] == []


def test_a_true_is_no_one_under_a_kill() -> None:  # P4
    assert not changes.same({"a": [True]}, {"a": [1]})
    assert changes.same({"a": [1.0, "x"]}, {"a": [1, "x"]})


def test_a_killed_flag_cannot_be_archived() -> None:  # P4
    held = {"f": changes.HeldFlag(flag=flag("f"), kills=[kill()])}
    assert codes(changes.plan([changes.Archive(key="f")], held, ["/0"])[1]) == {"/0/key": "killed"}


def test_a_key_once_used_is_never_given_to_another() -> None:
    held = {"f": changes.HeldFlag(flag=flag("f"), is_archived=True)}
    operations: list[changes.Operation] = [changes.Put(flag=flag("f")), changes.Archive(key="f")]
    _, faults = changes.plan(operations, held, ["/0/flag", "/1"])
    assert [fault.code for fault in faults] == ["key_was_used", "twice", "unknown_flag"]


def test_unknown_operations_are_named() -> None:
    items = [{"op": "destroy"}, {"op": "archive"}, 7, {"op": "put", "flag": {}, "when": 1}]
    _, faults = changes.read_operations(items, nothing_wrong)
    assert codes(faults) == {
        "/operations/0/op": "unknown_operation",
        "/operations/1/key": "bad_key",
        "/operations/2": "wrong_type",
        "/operations/3/when": "unknown_field",
        "/operations/3/flag/key": "missing",
        "/operations/3/flag/definition": "missing",
    }


def test_an_import_keeps_what_flagd_has_no_field_for() -> None:
    document = {
        "flags": {
            "f": definition(defaultVariant="off"),
            "breaker": definition(variants={"yes": True, "no": False}, defaultVariant="yes", targeting={}),
        },
        "metadata": {"team": "x"},
    }
    read, faults = flagset.read(document)
    assert faults == []
    assert read is not None
    assert [one.off_variant for one in read.flags] == ["off", "no"]
    held = {"f": changes.HeldFlag(flag=flag("f", owner="checkout", services=["web"]))}
    kept = flagset.keep([changes.Put(flag=one) for one in read.flags], held)
    first = kept[0]
    assert isinstance(first, changes.Put)
    assert (first.flag.owner, first.flag.services, first.flag.definition["defaultVariant"]) == ("checkout", ["web"], "off")


def test_every_fault_of_an_imported_document_is_told_at_once() -> None:
    _, faults = flagset.read({"flags": {"a b/c": definition(), "bad": {"state": "ON"}}, "metadata": []})
    assert {"/flags/a b~1c/key", "/flags/bad/state", "/flags/bad/variants", "/metadata"} <= set(codes(faults))


def test_a_bare_flagd_document_is_told_where_its_fields_belong() -> None:
    bare = {"key": "f", "state": "ENABLED", "variants": {"on": True}, "defaultVariant": "on"}
    _, faults = documents.read_flag(bare, "/flag", nothing_wrong)
    assert codes(faults) == {"/flag/state": "misplaced", "/flag/definition": "missing"}
    assert faults[0].detail == "state, variants, defaultVariant, targeting belong under `definition`"

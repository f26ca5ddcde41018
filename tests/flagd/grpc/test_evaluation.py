"""`flagd.evaluation.v1` and `v2`: one evaluation, and all of them (P4, P6, P7)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.flagd.grpc.serving import Client, end_of, json_of, v1, v2
from tests.flagd.world import PRODUCTION, World, definition, flag

VALUES: dict[str, tuple[str, Any]] = {
    "Boolean": ("bool", True),
    "String": ("string", "blue"),
    "Int": ("integer", 9_007_199_254_740_991),
    "Float": ("float", 2.5),
    "Object": ("object", {"a": [1.0, None, {"b": False}]}),
}
VERSIONS = {"v1": v1, "v2": v2}


def of(value: Any, **changed: Any) -> dict[str, Any]:
    """A flag's definition without targeting, that gives this value to everyone."""
    return {"state": "ENABLED", "variants": {"one": value, "off": value}, "defaultVariant": "one", **changed}


async def ask(clients: Client, version: str, kind: str, key: str, **context: Any) -> Any:
    request = getattr(VERSIONS[version], f"Resolve{kind}Request")(flag_key=key)
    request.context.update(context)
    return await getattr(getattr(clients, version), f"Resolve{kind}")(request)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", VALUES)
async def test_a_value_of_every_type_comes_with_variant_reason_and_metadata(
    world: World, clients: Client, version: str, kind: str
) -> None:  # P7
    key, value = VALUES[kind]
    revision = await world.put(flag(key, definition=of(value, metadata={"team": "checkout", "tier": 2})))
    answer = json_of(await ask(clients, version, kind, key, targetingKey="u"))
    told = {"team": "checkout", "tier": 2.0, "flagSetId": PRODUCTION, "version": str(revision)}
    expected = str(value) if kind == "Int" else value  # an int64 in protobuf's JSON
    assert answer == {"value": expected, "variant": "one", "reason": "STATIC", "metadata": told}


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_context_decides(world: World, clients: Client, version: str) -> None:
    rule = {"if": [{"and": [{"in": ["eu", {"var": "regions"}]}, {"===": [{"var": "n.deep"}, 3]}]}, "off", None]}
    await world.put(flag("f", definition=definition(targeting=rule)))
    matched = await ask(clients, version, "Boolean", "f", regions=["us", "eu"], n={"deep": 3})
    other = await ask(clients, version, "Boolean", "f", regions=["us"], n=None)
    assert (matched.value, matched.variant, matched.reason) == (False, "off", "TARGETING_MATCH")
    assert (other.value, other.variant, other.reason) == (True, "on", "DEFAULT")


@pytest.mark.parametrize("version", VERSIONS)
async def test_numbers_are_converted_where_nothing_is_lost(world: World, clients: Client, version: str) -> None:
    await world.put(flag("whole", definition=of(10.0)), flag("int", definition=of(10)), flag("half", definition=of(0.5)))
    assert (await ask(clients, version, "Int", "whole")).value == 10
    assert (await ask(clients, version, "Float", "int")).value == 10.0
    assert (await end_of(ask(clients, version, "Int", "half")))[0] == "INVALID_ARGUMENT"


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_goes_wrong_is_a_status(world: World, clients: Client, version: str) -> None:  # P6
    failing = {"if": [{"==": [{"var": "x"}, 1]}, {"cat": [{"var": "x"}, "nowhere"]}]}
    await world.put(
        flag("checkout.new-flow"),
        flag("failing", definition=definition(targeting=failing)),
    )
    missing = await end_of(ask(clients, version, "Boolean", "nothing"))
    mismatch = await end_of(ask(clients, version, "String", "checkout.new-flow"))
    failed = await end_of(ask(clients, version, "Boolean", "failing", x=1))
    assert [one[0] for one in (missing, mismatch, failed)] == ["NOT_FOUND", "INVALID_ARGUMENT", "UNKNOWN"]
    assert "FLAG_NOT_FOUND" in missing[1]
    assert "'nothing'" in missing[1]
    assert "TYPE_MISMATCH" in mismatch[1]


@pytest.mark.parametrize(
    ("changed", "reason"), [({"state": "DISABLED"}, "DISABLED"), ({"defaultVariant": None, "targeting": {}}, "DEFAULT")]
)
async def test_what_is_left_to_the_caller_has_no_value_and_no_variant(
    world: World, clients: Client, changed: dict[str, Any], reason: str
) -> None:
    await world.put(flag("f", definition=definition(**changed)))
    old, new = await ask(clients, "v1", "Boolean", "f"), await ask(clients, "v2", "Boolean", "f")
    assert (old.value, old.variant, old.reason) == (False, "", reason)
    assert (new.HasField("value"), new.HasField("variant"), new.variant, new.reason) == (False, False, "", reason)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_killed_flag_gives_its_off_variant(world: World, clients: Client, version: str) -> None:  # P4
    await world.put(flag("f", definition=definition(targeting={"if": [True, "on"]})))
    assert (await ask(clients, version, "Boolean", "f")).value is True
    await world.replicas.refresh(PRODUCTION, await world.kill("f"))
    killed = await ask(clients, version, "Boolean", "f")
    assert (killed.value, killed.variant, killed.reason) == (False, "off", "STATIC")
    assert killed.metadata["rescind.killed"] is True
    await world.replicas.refresh(PRODUCTION, await world.lift("f"))
    assert (await ask(clients, version, "Boolean", "f")).value is True


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_narrowed_kill_is_never_static_because_clients_would_keep_it_for_everyone(
    world: World, clients: Client, version: str
) -> None:  # P4
    await world.put(flag("f", definition=definition(targeting={})))
    assert (await ask(clients, version, "Boolean", "f", region="eu")).reason == "STATIC"
    await world.replicas.refresh(PRODUCTION, await world.kill("f", scope={"region": "eu"}))
    answers = [await ask(clients, version, "Boolean", "f", **context) for context in ({"region": "eu"}, {"region": "us"}, {})]
    assert [(one.value, one.variant, one.reason) for one in answers] == [
        (False, "off", "TARGETING_MATCH"),
        (True, "on", "DEFAULT"),
        (False, "off", "TARGETING_MATCH"),
    ]


async def test_all_flags_at_once(world: World, clients: Client) -> None:
    failing = {"cat": ["no", "where"]}
    revision = await world.put(
        *(flag(key, definition=of(value)) for key, value in VALUES.values()),
        flag("killed"),
        flag("disabled", definition=definition(state="DISABLED")),
        flag("failing", definition=definition(targeting=failing)),
    )
    await world.replicas.refresh(PRODUCTION, revision := await world.kill("killed"))
    request = v1.ResolveAllRequest()
    request.context.update({"targetingKey": "u"})
    answer = json_of(await clients.v1.ResolveAll(request))
    assert answer["metadata"] == {"flagSetId": PRODUCTION, "version": str(revision)}
    given = {key: {name: one[name] for name in one if name != "metadata"} for key, one in answer["flags"].items()}
    assert given == {
        "bool": {"bool_value": True, "variant": "one", "reason": "STATIC"},
        "string": {"string_value": "blue", "variant": "one", "reason": "STATIC"},
        "integer": {"double_value": 9_007_199_254_740_991.0, "variant": "one", "reason": "STATIC"},
        "float": {"double_value": 2.5, "variant": "one", "reason": "STATIC"},
        "object": {"object_value": {"a": [1.0, None, {"b": False}]}, "variant": "one", "reason": "STATIC"},
        "killed": {"bool_value": False, "variant": "off", "reason": "STATIC"},
        "disabled": {"reason": "DISABLED"},
    }


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1e308, 2.0**70])
async def test_an_absurd_context_is_answered(world: World, clients: Client, number: float) -> None:  # P6
    await world.put(flag("f", definition=definition(targeting={"fractional": [{"var": "n"}, ["on", 50], ["off", 50]]})))
    answer = await ask(clients, "v2", "Boolean", "f", n=number, targetingKey=None, **{"$flagd": "mine", "": []})
    assert answer.variant in ("on", "off")

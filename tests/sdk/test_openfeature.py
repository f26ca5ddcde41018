"""`RescindProvider` under OpenFeature's own client, on a real server: evaluations, kills, events, domains, telemetry."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import rescind
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import EventDetails, ProviderEvent
from openfeature.exception import ErrorCode, OpenFeatureError
from openfeature.flag_evaluation import FlagEvaluationDetails, FlagEvaluationOptions, Reason
from openfeature.hook import Hook, HookContext, HookHints
from openfeature.provider import ProviderStatus
from rescind.openfeature import RescindProvider
from rescind.wire import Revision, Snapshot, SnapshotFlag

from tests.sdk.conftest import FLAG, Server, Site, capture
from tests.waiting import until, until_sync

USER = EvaluationContext("user-1")


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    """OpenFeature's registry is the process's own: nothing of a test is left in it."""
    yield
    api.shutdown()


@pytest.fixture
def client(site: Site) -> Iterator[rescind.Client]:
    with rescind.Client(**site.options) as client:
        yield client


def client_of(provider: RescindProvider) -> OpenFeatureClient:
    """An OpenFeature client on a domain of its own, once the provider is initialized."""
    domain = uuid.uuid4().hex
    api.set_provider_and_wait(provider, domain)
    return api.get_client(domain)


def test_a_killed_flag_is_the_off_variant_and_the_change_is_told_by_key(site: Site, client: rescind.Client) -> None:
    # P4, P7
    flags = client_of(RescindProvider(client))
    heard: list[EventDetails] = []
    flags.add_handler(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, heard.append)
    before = flags.get_boolean_details(FLAG, False, USER)
    assert (before.value, before.variant, before.reason, before.error_code) == (True, "on", Reason.STATIC, None)
    assert before.flag_metadata["flagSetId"] == site.environment
    site.kill()
    until_sync(lambda: heard)
    after = flags.get_boolean_details(FLAG, True, USER)
    assert (after.value, after.variant, after.reason, after.error_code) == (False, "off", Reason.STATIC, None)
    assert after.flag_metadata["rescind.killed"] is True
    assert after.flag_metadata["version"] == client.status().revision != before.flag_metadata["version"]
    assert [(event.flags_changed, event.provider_name) for event in heard] == [([FLAG], "rescind")]


async def test_the_asynchronous_client_serves_both_ways_of_asking(site: Site) -> None:
    # P7
    async with rescind.AsyncClient(**site.options) as client:
        domain = uuid.uuid4().hex
        api.set_provider(RescindProvider(client), domain)
        flags = api.get_client(domain)
        await until(lambda: flags.get_provider_status() is ProviderStatus.READY)
        assert await flags.get_boolean_value_async(FLAG, False, USER) is True
        await asyncio.to_thread(site.kill)
        await until(lambda: flags.get_boolean_value(FLAG, True, USER) is False)
        assert (await flags.get_boolean_details_async(FLAG, True, USER)).variant == "off"


async def test_on_its_own_loop_an_unready_asynchronous_client_says_what_to_do(site: Site) -> None:
    client = rescind.AsyncClient(**site.options)
    with pytest.raises(OpenFeatureError) as refused:
        client_of(RescindProvider(client))
    assert "await client.wait_ready()" in str(refused.value.error_message)
    assert await client.wait_ready()
    assert client_of(RescindProvider(client)).get_boolean_value(FLAG, False, USER) is True
    await client.close()


def test_every_type_has_its_value_and_every_fault_its_code(site: Site, client: rescind.Client) -> None:
    # P6
    on_for_ada = {"if": [{"==": [{"var": "targetingKey"}, "ada"]}, "a"]}
    missing_variant = {"if": [True, "nowhere"]}
    definitions: dict[str, tuple[dict[str, Any], Any]] = {
        "s": ({"a": "text", "b": "other"}, {"fractional": [["a", 1]]}),
        "i": ({"a": 7, "b": 8}, on_for_ada),
        "f": ({"a": 1.5, "b": 2}, on_for_ada),
        "o": ({"a": {"x": [1]}, "b": {}}, None),
        "broken": ({"a": "text", "b": "other"}, missing_variant),
    }
    for key, (variants, targeting) in definitions.items():
        definition = {"state": "ENABLED", "variants": variants, "defaultVariant": "b", "targeting": targeting or {}}
        if key == "broken":
            definition["targeting"] = {"if": [{"in": ["x", {"var": "list"}]}, {"var": "variant"}, None]}
        site.put(key, definition=definition, off_variant="b")
    until_sync(lambda: client.status().revision == "1.6")
    flags, ada = client_of(RescindProvider(client)), EvaluationContext("ada", {"list": ["x"], "variant": "nowhere"})
    split = flags.get_string_details("s", "", ada)
    assert (split.value, split.variant, split.reason) == ("text", "a", Reason.SPLIT)
    matched = flags.get_integer_details("i", 0, ada)
    assert (matched.value, matched.variant, matched.reason) == (7, "a", Reason.TARGETING_MATCH)
    fallen = flags.get_float_details("f", 0.0, USER)
    assert (fallen.value, type(fallen.value), fallen.variant, fallen.reason) == (2.0, float, "b", Reason.DEFAULT)
    assert flags.get_object_value("o", {}, ada) == {}
    for details, code in (
        (flags.get_integer_details("s", 3, ada), ErrorCode.TYPE_MISMATCH),
        (flags.get_integer_details("missing", 3, ada), ErrorCode.FLAG_NOT_FOUND),
        (flags.get_integer_details("broken", 3, ada), ErrorCode.GENERAL),
    ):
        assert (details.value, details.reason, details.error_code, details.variant) == (3, Reason.ERROR, code, None)


async def test_a_definition_that_cannot_be_read_serves_the_off_variant_through_openfeature(site: Site) -> None:
    # P6, P21: the value stands although OpenFeature's client replaces the values of errors
    definition = {
        "state": "ENABLED",
        "variants": {"on": True, "off": False},
        "defaultVariant": "on",
        "targeting": {"if": [{"operator_of_tomorrow": [1]}, "on"]},
    }
    client = rescind.AsyncClient(**site.options)
    flag = SnapshotFlag(definition=definition)
    client.core.current.take_snapshot(Snapshot(environment=site.environment, revision=Revision(1, 999), flags={FLAG: flag}))
    flags = client_of(RescindProvider(client))
    for details in (flags.get_boolean_details(FLAG, True), await flags.get_boolean_details_async(FLAG, True)):
        assert (details.value, details.variant, details.reason) == (False, "off", Reason.ERROR)
        assert details.flag_metadata["rescind.error_code"] == "PARSE_ERROR"
        assert details.error_message
    await client.close()


def test_an_effect_takes_the_variant_that_openfeature_served(site: Site, client: rescind.Client) -> None:
    # P8
    targeting = {"if": [{"==": [{"var": "plan"}, "pro"]}, "off", "on"]}
    definition = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on", "targeting": targeting}
    site.put(FLAG, definition=definition)
    until_sync(lambda: client.status().revision == "1.2")
    flags = client_of(RescindProvider(client))
    assert flags.get_boolean_value(FLAG, True, EvaluationContext("u", {"plan": "pro"})) is False
    with capture(client, "capture:1"):
        pass
    until_sync(lambda: [effect["variant"] for effect in site.effects()] == ["off"])


def test_a_lost_server_makes_the_provider_stale_and_its_return_ready(fragile: Site) -> None:
    # P6
    with rescind.Client(**fragile.options) as client:
        flags = client_of(RescindProvider(client))
        heard: list[ProviderEvent] = []
        flags.add_handler(ProviderEvent.PROVIDER_STALE, lambda _: heard.append(ProviderEvent.PROVIDER_STALE))
        fragile.server.kill()
        until_sync(lambda: flags.get_provider_status() is ProviderStatus.STALE)
        assert flags.get_boolean_value(FLAG, False, USER) is True
        until_sync(lambda: heard)
        flags.add_handler(ProviderEvent.PROVIDER_READY, lambda _: heard.append(ProviderEvent.PROVIDER_READY))
        fragile.server.start()
        until_sync(lambda: ProviderEvent.PROVIDER_READY in heard)
        assert flags.get_provider_status() is ProviderStatus.READY
    until_sync(lambda: flags.get_provider_status() is ProviderStatus.STALE)


def test_without_a_snapshot_it_is_in_error_and_ready_once_there_is_one(fragile: Site) -> None:
    # P6
    fragile.server.kill()
    with rescind.Client(**fragile.options) as client:
        provider = RescindProvider(client, ready_seconds=0.2)
        with pytest.raises(OpenFeatureError) as refused:
            api.set_provider_and_wait(provider, "early")
        assert refused.value.error_code is ErrorCode.PROVIDER_NOT_READY
        flags = api.get_client("early")
        assert flags.get_provider_status() is ProviderStatus.ERROR
        details = flags.get_boolean_details(FLAG, True, USER)
        assert (details.value, details.error_code) == (True, ErrorCode.PROVIDER_NOT_READY)
        fragile.server.start()
        until_sync(lambda: flags.get_provider_status() is ProviderStatus.READY)
        assert flags.get_boolean_value(FLAG, False, USER) is True


def test_a_refused_token_is_an_error_and_the_last_snapshot_still_answers(fragile: Site) -> None:
    # P6
    body = {"name": "short-lived", "environment": fragile.environment, "scopes": ["read", "evaluate"], "reason": "test"}
    made = fragile.api.request("POST", "/v1/tokens", json=body)
    with rescind.Client(**{**fragile.options, "token": made["token"]}) as client:
        flags = client_of(RescindProvider(client))
        heard: list[EventDetails] = []
        flags.add_handler(ProviderEvent.PROVIDER_ERROR, heard.append)
        fragile.api.request("POST", f"/v1/tokens/{made['id']}/revoke", json={"reason": "test"})
        fragile.server.kill()
        fragile.server.start()
        until_sync(lambda: flags.get_provider_status() is ProviderStatus.ERROR)
        until_sync(lambda: heard)
        assert "401" in str(heard[0].message)
        assert flags.get_boolean_value(FLAG, False, USER) is True


def test_domains_have_providers_of_their_own_and_each_hears_only_its_changes(server: Server, new_site: Any) -> None:
    one, two = new_site(server), new_site(server)
    with rescind.Client(**one.options) as first, rescind.Client(**two.options) as second:
        api.set_provider_and_wait(RescindProvider(first), "one")
        api.set_provider_and_wait(RescindProvider(second), "two")
        heard: dict[str, list[EventDetails]] = {"one": [], "two": []}
        for domain, events in heard.items():
            api.get_client(domain).add_handler(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, events.append)
        two.kill()
        until_sync(lambda: heard["two"])
        assert api.get_client("one").get_boolean_value(FLAG, False, USER) is True
        assert api.get_client("two").get_boolean_value(FLAG, True, USER) is False
        assert heard["one"] == []


def test_shutdown_leaves_a_client_that_it_does_not_own(site: Site, client: rescind.Client) -> None:
    flags = client_of(RescindProvider(client))
    heard: list[EventDetails] = []
    flags.add_handler(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, heard.append)
    api.clear_providers()
    assert not client.core.closed
    site.kill()
    until_sync(lambda: client.boolean(FLAG, True) is False)
    assert heard == []
    client_of(RescindProvider(client, close_client=True))
    api.clear_providers()
    assert client.core.closed
    with pytest.raises(OpenFeatureError) as refused:
        client_of(RescindProvider(client))
    assert refused.value.error_code is ErrorCode.PROVIDER_FATAL


class Recorder(Hook):
    """Notes the stages it is called at."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def before(self, hook_context: HookContext, hints: HookHints) -> EvaluationContext | None:
        self.stages.append("before")
        return EvaluationContext(attributes={"plan": "pro"})

    def after(self, hook_context: HookContext, details: FlagEvaluationDetails[Any], hints: HookHints) -> None:
        self.stages.append(f"after {details.variant}")

    def error(self, hook_context: HookContext, exception: Exception, hints: HookHints) -> None:
        self.stages.append("error")

    def finally_after(self, hook_context: HookContext, details: FlagEvaluationDetails[Any], hints: HookHints) -> None:
        self.stages.append("finally")


def test_the_providers_hooks_run_with_all_the_others(site: Site, client: rescind.Client) -> None:
    targeting = {"if": [{"==": [{"var": "plan"}, "pro"]}, "off", "on"]}
    definition = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on", "targeting": targeting}
    site.put(FLAG, definition=definition)
    until_sync(lambda: client.status().revision == "1.2")
    own, of_the_call = Recorder(), Recorder()
    flags = client_of(RescindProvider(client, hooks=[own]))
    assert flags.get_boolean_value(FLAG, True, USER, FlagEvaluationOptions(hooks=[of_the_call])) is False
    assert own.stages == of_the_call.stages == ["before", "after off", "finally"]
    flags.get_boolean_value("missing", True, USER)
    assert own.stages[3:] == ["before", "error", "finally"]


def test_importing_rescind_brings_openfeature_in_only_when_asked() -> None:
    script = """
import sys
import rescind
rescind.Client, rescind.AsyncClient
assert not [name for name in sys.modules if name.split(".")[0] in ("openfeature", "opentelemetry")]
sys.modules["openfeature.provider"] = None
try:
    import rescind.openfeature
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "pip install 'rescind[openfeature]'" in done.stdout

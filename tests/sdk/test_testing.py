"""`rescind.testing`: the real evaluator and the real client without a server, overrides, kills, and what it records."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rescind
from rescind.asgi import RescindMiddleware
from rescind.openfeature import RescindProvider
from rescind.testing import FlagsFixture

FLAG = "checkout.new-flow"
TARGETED = {
    "state": "ENABLED",
    "variants": {"new": True, "old": False},
    "defaultVariant": "old",
    "targeting": {"if": [{"==": [{"var": "country"}, "NO"]}, "new"]},
}


def capture(client: rescind.Client | rescind.AsyncClient, key: str = "capture:1", **more: Any) -> Any:
    return client.effect("payment.capture", flag=FLAG, key=key, payload={"amount_cents": 1299}, **more)


def outcomes(flags: FlagsFixture) -> list[tuple[str, str | None]]:
    return [(effect.outcome, effect.status) for effect in flags.effects]


def test_plain_values_of_every_type_are_served_by_both_faces() -> None:
    flags = FlagsFixture({"b": True, "s": "blue", "i": 3, "f": 0.5, "o": {"a": [1]}})
    for client in (flags.client, flags.async_client):
        assert client.boolean("b", False) is True
        assert client.string("s", "") == "blue"
        assert client.integer("i", 0) == 3
        assert client.float("f", 0.0) == 0.5
        assert client.object("o", None) == {"a": [1]}
        assert client.string("b", "default") == "default"
        assert client.boolean_details("missing", True).error_code == "FLAG_NOT_FOUND"
        status = client.status()
        assert (status.ready, status.source, status.environment) == (True, "fixture", "testing")


def test_flagd_definitions_are_evaluated_by_the_real_evaluator() -> None:
    evaluators = {"nordic": {"in": [{"var": "country"}, ["NO", "SE"]]}}
    shared = {**TARGETED, "targeting": {"if": [{"$ref": "nordic"}, "new"]}}
    flags = FlagsFixture(document={"flags": {FLAG: TARGETED, "shared": shared}, "$evaluators": evaluators})
    assert flags.client.boolean_details(FLAG, False, {"country": "NO"}).reason == "TARGETING_MATCH"
    assert flags.client.boolean("shared", False, {"country": "SE"}) is True
    assert flags.client.boolean("shared", True, {"country": "DE"}) is False


def test_a_faulty_definition_is_refused_with_every_fault() -> None:
    with pytest.raises(rescind.ConfigurationError, match=r"(?s)state.*defaultVariant"):
        FlagsFixture().define(FLAG, {"state": "ON", "variants": {"on": True}, "defaultVariant": "off"})
    with pytest.raises(rescind.ConfigurationError, match="/flags/a/state"):
        FlagsFixture(document={"flags": {"a": {"variants": {"on": True}}}})


def test_overrides_nest_and_end_in_any_order() -> None:
    flags = FlagsFixture({FLAG: True})
    with flags.override(FLAG, False), flags.override("other", "x"):
        assert flags.client.boolean(FLAG, True) is False
        assert flags.client.string("other", "") == "x"
        with flags.override(FLAG, True):
            assert flags.client.boolean(FLAG, False) is True
        assert flags.client.boolean(FLAG, True) is False
    assert flags.client.boolean(FLAG, False) is True
    assert flags.client.string_details("other", "").error_code == "FLAG_NOT_FOUND"
    first, second = flags.override(FLAG, False), flags.override(FLAG, True)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert flags.client.boolean(FLAG, False) is True
    second.__exit__(None, None, None)
    assert flags.client.boolean(FLAG, False) is True


def test_an_override_of_a_defined_flag_keeps_its_variants_names() -> None:
    flags = FlagsFixture(document={"flags": {FLAG: TARGETED}})
    with flags.override(FLAG, True):
        assert flags.client.boolean_details(FLAG, False).variant == "new"
    with flags.override(FLAG, False):
        assert flags.client.boolean_details(FLAG, True, {"country": "NO"}).variant == "old"
    assert flags.client.boolean_details(FLAG, False, {"country": "NO"}).variant == "new"


def test_what_is_set_within_an_override_holds_from_then_on() -> None:
    flags = FlagsFixture({FLAG: False})
    with flags.override(FLAG, False):
        flags.set(FLAG, True)
        assert flags.client.boolean(FLAG, False) is True
    assert flags.client.boolean(FLAG, False) is True
    flags.remove(FLAG)
    assert flags.client.boolean(FLAG, False) is False


def test_a_kill_wins_over_what_is_beneath_until_it_is_lifted() -> None:  # P4
    flags = FlagsFixture({FLAG: True})
    client = flags.client
    flags.kill(FLAG)
    with flags.override(FLAG, True):
        found = client.boolean_details(FLAG, True)
        assert (found.value, found.reason, found.metadata["rescind.killed"]) == (False, "STATIC", True)
    flags.lift(FLAG)
    assert client.boolean(FLAG, False) is True


def test_a_narrowed_kill_takes_its_scope_and_whoever_may_be_in_it() -> None:
    flags = FlagsFixture({FLAG: True})
    flags.kill(FLAG, scope={"region": "eu"})
    served = [flags.client.boolean(FLAG, False, context) for context in ({"region": "eu"}, {"region": "us"}, {})]
    assert served == [False, True, False]


def test_only_a_flag_with_an_off_variant_can_be_killed() -> None:
    flags = FlagsFixture({"theme": "blue"})
    with pytest.raises(rescind.ConfigurationError, match="off="):
        flags.kill("theme")
    with pytest.raises(rescind.ConfigurationError, match="set it first"):
        flags.kill("missing")
    flags.set("theme", "blue", off="plain")
    flags.kill("theme")
    assert flags.client.string("theme", "") == "plain"


def test_every_evaluation_of_the_code_under_test_is_recorded_and_no_other() -> None:
    flags = FlagsFixture({FLAG: True, "theme": "blue"})
    flags.client.boolean(FLAG, False, {"targetingKey": "ann"})
    flags.client.string("theme", "")
    with capture(flags.client):
        pass
    assert [(seen.key, seen.value, seen.variant, seen.context) for seen in flags.evaluations] == [
        (FLAG, True, "on", {"targetingKey": "ann"}),
        ("theme", "blue", "on", {}),
    ]
    flags.forget()
    assert (flags.evaluations, flags.effects) == ([], [])


def test_effects_of_synchronous_code_are_recorded_from_the_ask_to_the_outcome() -> None:
    flags = FlagsFixture({FLAG: True})
    with capture(flags.client, subject="ann", attributes={"region": "eu"}) as effect:
        assert flags.effects[0].status == "admitted"
        effect.result = {"charge": "ch_1"}
    with capture(flags.client) as again:
        assert (again.replayed, again.result, again.provider_key) == (True, {"charge": "ch_1"}, effect.provider_key)
    with pytest.raises(RuntimeError), capture(flags.client, "capture:2"):
        raise RuntimeError("the answer was lost")
    with pytest.raises(rescind.NotDone), capture(flags.client, "capture:3"):
        raise rescind.NotDone
    assert outcomes(flags) == [("admitted", "succeeded"), ("replayed", None), ("admitted", "in_doubt"), ("admitted", "failed")]
    first = flags.effects[0]
    assert (first.kind, first.key, first.variant, first.payload) == (
        "payment.capture",
        "capture:1",
        "on",
        {"amount_cents": 1299},
    )
    assert (first.subject, first.attributes, first.result) == ("ann", {"region": "eu"}, {"charge": "ch_1"})


async def test_effects_of_asynchronous_code_are_too_even_where_they_are_cancelled() -> None:
    flags = FlagsFixture({FLAG: True})

    async def pay() -> None:
        async with capture(flags.async_client, "capture:2"):
            await asyncio.Event().wait()

    async with flags.async_client as client, capture(client) as effect:
        effect.result = 1
    flags = FlagsFixture({FLAG: True})
    paying = asyncio.create_task(pay())
    await asyncio.sleep(0)
    paying.cancel()
    await asyncio.gather(paying, return_exceptions=True)
    assert outcomes(flags) == [("admitted", "in_doubt")]
    with capture(flags.client, "sync code on a loop"):
        pass
    assert outcomes(flags)[1] == ("admitted", "succeeded")


def test_a_kill_refuses_effects_but_those_of_the_old_path() -> None:  # P8
    flags = FlagsFixture({FLAG: True})
    flags.kill(FLAG)
    with pytest.raises(rescind.EffectKilled) as killed, capture(flags.client, variant="on"):
        pytest.fail("the body began")
    assert killed.value.off_variant == "off"
    assert flags.client.boolean(FLAG, True) is False
    with capture(flags.client):
        pass
    assert outcomes(flags) == [("killed", None), ("admitted", "succeeded")]


def test_what_a_kill_took_is_undone_and_may_be_done_again_later() -> None:  # P9
    flags = FlagsFixture({FLAG: True})
    with capture(flags.client):
        pass
    flags.kill(FLAG)
    flags.lift(FLAG)
    for is_replayed in (False, True):
        with capture(flags.client) as effect:
            assert effect.replayed is is_replayed


async def test_an_effect_evaluated_before_the_kill_stays_undone() -> None:
    flags = FlagsFixture({FLAG: True})
    with capture(flags.client):
        pass

    async with flags.async_client as client:
        app = RescindMiddleware(stale_application(flags), client)
        await app({"type": "http", "headers": []}, never, ignore)
    assert [effect.outcome for effect in flags.effects] == ["admitted", "compensated"]


def stale_application(flags: FlagsFixture) -> Callable[..., Any]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        client = flags.async_client
        assert client.boolean(FLAG, False) is True
        flags.kill(FLAG)
        flags.lift(FLAG)
        with pytest.raises(rescind.EffectCompensated):
            async with capture(client):
                pytest.fail("the body began")

    return app


async def never() -> dict[str, Any]:
    return await asyncio.Event().wait()  # type: ignore[return-value]


async def ignore(message: Any) -> None:
    """Nobody reads it."""


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        ("in_progress", rescind.EffectInProgress),
        ("conflict", rescind.EffectConflict),
        ("compensated", rescind.EffectCompensated),
        ("tombstoned", rescind.EffectTombstoned),
        ("invalid", rescind.EffectRefused),
    ],
)
def test_a_test_can_ask_for_a_refusal(outcome: Any, error: type[Exception]) -> None:
    flags = FlagsFixture({FLAG: True})
    with flags.refusing("payment.capture", outcome, key="capture:1"):
        with pytest.raises(error), capture(flags.client):
            pytest.fail("the body began")
        with capture(flags.client, "capture:2"):
            pass
    with capture(flags.client):
        pass
    assert [effect.outcome for effect in flags.effects] == [outcome, "admitted", "admitted"]


def test_a_test_can_ask_for_a_server_that_is_away() -> None:
    flags = FlagsFixture({FLAG: True})
    with flags.refusing("payment.capture", "unreachable"), pytest.raises(rescind.Unreachable), capture(flags.client):
        pytest.fail("the body began")
    assert [effect.outcome for effect in flags.effects] == ["unreachable"]


def test_an_error_that_the_step_lists_is_proof_that_nothing_happened() -> None:
    saga = rescind.Saga("order", version="1", flag=FLAG)
    saga.declare("capture", kind="payment.capture", key="capture:{id}", proof_of_failure=[LookupError])
    flags = FlagsFixture({FLAG: True}, sagas=[saga])
    with pytest.raises(KeyError), capture(flags.client, saga=saga.instance("1"), step="capture"):
        raise KeyError
    assert outcomes(flags) == [("admitted", "failed")]
    assert flags.client.register(saga) is True
    with pytest.raises(rescind.ConfigurationError, match="coordinator"):
        flags.client.work(saga)
    with pytest.raises(rescind.ConfigurationError, match="coordinator"):
        flags.client.run(saga, id="1", input={})
    with pytest.raises(rescind.ConfigurationError, match="coordinator"):
        flags.client.start(saga, id="1", input={})


async def test_who_watches_a_flag_is_called_in_plain_and_in_asynchronous_code() -> None:
    flags = FlagsFixture({FLAG: True})
    seen: list[tuple[str, bool]] = []

    async def later(change: rescind.FlagChange) -> None:
        seen.append((change.key, change.killed))

    end = flags.async_client.on_change(FLAG, later)
    flags.kill(FLAG)
    await asyncio.sleep(0)
    await asyncio.to_thread(flags.lift, FLAG)
    end()
    flags.set(FLAG, False)
    assert seen == [(FLAG, True), (FLAG, False)]


async def test_a_closed_client_admits_nothing() -> None:
    flags = FlagsFixture({FLAG: True})
    for close in (flags.client.close, flags.client.close):
        close()
    await flags.async_client.close()
    with pytest.raises(rescind.ClientClosed), capture(flags.client):
        pytest.fail("the body began")
    with pytest.raises(rescind.ClientClosed):
        async with capture(flags.async_client):
            pytest.fail("the body began")
    assert flags.client.boolean(FLAG, False) is True


def test_no_thread_is_started_and_no_file_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = threading.active_count()
    flags = FlagsFixture({FLAG: True})
    with flags.client as client, capture(client):
        assert threading.active_count() == before
    assert list(tmp_path.iterdir()) == []
    assert not Path("/nonexistent").exists()


def test_threads_see_one_flag_and_every_evaluation_is_counted() -> None:
    flags = FlagsFixture({FLAG: True})
    client = flags.client
    workers = [threading.Thread(target=lambda: [client.boolean(FLAG, False) for _ in range(500)]) for _ in range(4)]
    for worker in workers:
        worker.start()
    for _ in range(50):
        with flags.override(FLAG, False):
            pass
    for worker in workers:
        worker.join()
    assert len(flags.evaluations) == 2_000


def test_openfeature_works_over_it() -> None:
    flags = FlagsFixture({FLAG: True})
    provider = RescindProvider(flags.client)
    assert provider.resolve_boolean_details(FLAG, False).variant == "on"
    assert [seen.key for seen in flags.evaluations] == [FLAG]

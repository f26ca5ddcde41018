"""The payment server, met through Stripe's own client and on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
import stripe

from demo.world.payment_ledger import Keys, StripeError
from tests.demo.world import CONTROL_TOKEN, KEY
from tests.waiting import until

FORM = {"amount": "1299", "currency": "usd", "confirm": "true", "payment_method": "pm_card_visa"}


@pytest.fixture
def client(payments_url: str) -> stripe.StripeClient:
    return stripe.StripeClient(KEY, base_addresses={"api": payments_url}, max_network_retries=0)


@pytest_asyncio.fixture
async def wire(payments_url: str) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {KEY}", "x-control-token": CONTROL_TOKEN}
    async with httpx.AsyncClient(base_url=payments_url, headers=headers, trust_env=False) as wire:
        yield wire


async def fault(wire: httpx.AsyncClient, path: str, *fates: str, outage_seconds: float = 0.0) -> None:
    document = {"path": path, "fates": fates, "outage_seconds": outage_seconds}
    (await wire.post("/control/faults", json=document)).raise_for_status()


async def ledger(wire: httpx.AsyncClient) -> dict[str, Any]:
    answer = await wire.get("/control/ledger")
    answer.raise_for_status()
    document: dict[str, Any] = answer.json()
    return document


async def capture(client: stripe.StripeClient, key: str, amount: int = 1299, effect: str = "e1") -> stripe.PaymentIntent:
    return await asyncio.to_thread(
        client.v1.payment_intents.create,
        {
            "amount": amount,
            "currency": "usd",
            "confirm": True,
            "payment_method": "pm_card_visa",
            "metadata": {"rescind_effect": effect, "order_id": "0001"},
        },
        {"idempotency_key": key},
    )


async def is_indexed(client: stripe.StripeClient, intent: str) -> bool:
    found = await asyncio.to_thread(client.v1.payment_intents.search, {"query": "metadata['rescind_effect']:'e1'"})
    return [each.id for each in found.data] == [intent]


async def refund(client: stripe.StripeClient, intent: str, key: str, amount: int | None = None) -> stripe.Refund:
    params: Any = {"payment_intent": intent} | ({} if amount is None else {"amount": amount})
    return await asyncio.to_thread(client.v1.refunds.create, params, {"idempotency_key": key})


async def test_stripes_own_client_captures_finds_and_refunds(client: stripe.StripeClient) -> None:
    intent = await capture(client, "k1")
    assert (intent.status, intent.amount_received, intent.metadata["order_id"]) == ("succeeded", 1299, "0001")
    again = await asyncio.to_thread(client.v1.payment_intents.retrieve, intent.id)
    assert again.latest_charge == intent.latest_charge
    await until(lambda: is_indexed(client, intent.id))
    back = await refund(client, intent.id, "k1:refund")
    assert (back.status, back.amount, back.payment_intent) == ("succeeded", 1299, intent.id)
    listed = await asyncio.to_thread(client.v1.refunds.list, {"payment_intent": intent.id})
    assert [each.id for each in listed.data] == [back.id]


async def test_a_search_for_what_never_happened_finds_nothing(client: stripe.StripeClient) -> None:
    found = await asyncio.to_thread(client.v1.payment_intents.search, {"query": "metadata['rescind_effect']:'e2'"})
    assert found.data == []


async def test_a_search_comes_late_and_a_list_at_once(client: stripe.StripeClient) -> None:  # P16
    intent = await capture(client, "k1")
    query = {"query": "metadata['rescind_effect']:'e1'"}
    assert (await asyncio.to_thread(client.v1.payment_intents.search, query)).data == []
    listed = await asyncio.to_thread(client.v1.payment_intents.list, {"created": {"gte": intent.created}})
    assert [each.id for each in listed.data] == [intent.id]
    later = await asyncio.to_thread(client.v1.payment_intents.list, {"created": {"gt": intent.created + 1}})
    assert later.data == []


async def test_a_list_goes_page_by_page_newest_first(client: stripe.StripeClient) -> None:
    made = [(await capture(client, f"k{n}")).id for n in range(5)]
    page = await asyncio.to_thread(client.v1.payment_intents.list, {"limit": 2})
    assert ([each.id for each in page.data], page.has_more) == (made[:2:-1], True)
    walked = await asyncio.to_thread(lambda: [each.id for each in page.auto_paging_iter()])
    assert walked == made[::-1]
    newer = await asyncio.to_thread(client.v1.payment_intents.list, {"limit": 2, "ending_before": made[1]})
    assert [each.id for each in newer.data] == [made[3], made[2]]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": "101"}, "limit"),
        ({"created[gte]": "yesterday"}, "created[gte]"),
        ({"created[from]": "1"}, "created[from]"),
        ({"starting_after": "pi_nobody"}, "starting_after"),
        ({"starting_after": "pi_1", "ending_before": "pi_2"}, "starting_after"),
        ({"metadata[rescind_effect]": "e1"}, "metadata[rescind_effect]"),
    ],
)
async def test_a_list_refuses_what_stripe_refuses(
    client: stripe.StripeClient, wire: httpx.AsyncClient, query: dict[str, str], param: str
) -> None:
    await capture(client, "k1")
    answer = await wire.get("/v1/payment_intents", params=query)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_one_key_captures_once(client: stripe.StripeClient, wire: httpx.AsyncClient) -> None:
    first, second = await capture(client, "k1"), await capture(client, "k1")
    assert first.id == second.id
    assert len((await ledger(wire))["intents"]) == 1


async def test_one_key_with_other_parameters_is_an_idempotency_error(client: stripe.StripeClient) -> None:
    await capture(client, "k1")
    with pytest.raises(stripe.IdempotencyError):
        await capture(client, "k1", amount=1300)


async def test_a_key_in_progress_is_409(wire: httpx.AsyncClient) -> None:
    await fault(wire, "/v1/payment_intents", "delayed")
    with pytest.raises(httpx.RemoteProtocolError):
        await wire.post("/v1/payment_intents", data=FORM, headers={"idempotency-key": "k1"})
    answer = await wire.post("/v1/payment_intents", data=FORM, headers={"idempotency-key": "k1"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "idempotency_key_in_use")


def test_a_key_is_forgotten_after_its_window() -> None:
    keys = Keys(window_seconds=10)
    assert keys.begin("k1", b"a", at=0.0) is None
    keys.finish("k1", 200, b"{}")
    assert keys.begin("k1", b"a", at=9.9) is not None
    with pytest.raises(StripeError):
        keys.begin("k1", b"b", at=9.9)
    assert keys.begin("k1", b"b", at=10.0) is None


async def test_more_than_was_captured_is_never_given_back(client: stripe.StripeClient, wire: httpx.AsyncClient) -> None:
    intent = await capture(client, "k1")
    with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded"):
        await refund(client, intent.id, "r0", amount=1300)
    await refund(client, intent.id, "r1", amount=300)
    await refund(client, intent.id, "r2")
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await refund(client, intent.id, "r3")
    assert caught.value.code == "charge_already_refunded"
    assert [each["amount"] for each in (await ledger(wire))["refunds"]] == [300, 999]


async def test_one_key_refunds_once(client: stripe.StripeClient, wire: httpx.AsyncClient) -> None:
    intent = await capture(client, "k1")
    first, second = await refund(client, intent.id, "r1"), await refund(client, intent.id, "r1")
    assert first.id == second.id
    assert len((await ledger(wire))["refunds"]) == 1


async def test_a_lost_reply_has_captured(client: stripe.StripeClient, wire: httpx.AsyncClient) -> None:
    await fault(wire, "/v1/payment_intents", "lost_reply")
    with pytest.raises(stripe.APIConnectionError):
        await capture(client, "k1")
    intents = (await ledger(wire))["intents"]
    assert [each["status"] for each in intents] == ["succeeded"]
    assert (await capture(client, "k1")).id == intents[0]["id"]


async def test_a_lost_request_and_an_outage_have_not_captured(client: stripe.StripeClient, wire: httpx.AsyncClient) -> None:
    await fault(wire, "/v1/payment_intents", "lost_request", outage_seconds=60)
    for key in ("k1", "k2"):
        with pytest.raises(stripe.APIConnectionError):
            await capture(client, key)
    assert (await ledger(wire))["intents"] == []


async def test_a_delayed_commit_comes_after_the_connection(client: stripe.StripeClient, wire: httpx.AsyncClient) -> None:
    await fault(wire, "/v1/payment_intents", "delayed")
    with pytest.raises(stripe.APIConnectionError):
        await capture(client, "k1")
    assert (await ledger(wire))["intents"] == []

    async def committed() -> bool:
        return len((await ledger(wire))["intents"]) == 1

    await until(committed)


async def test_a_rate_limit_and_an_unavailable_server_do_nothing(client: stripe.StripeClient, wire: httpx.AsyncClient) -> None:
    await fault(wire, "/v1/payment_intents", "rate_limited", "unavailable")
    with pytest.raises(stripe.RateLimitError):
        await capture(client, "k1")
    with pytest.raises(stripe.APIError):
        await capture(client, "k1")
    assert (await capture(client, "k1")).status == "succeeded"
    assert len((await ledger(wire))["intents"]) == 1


async def test_sabotage_answers_well_and_only_the_ledger_knows(client: stripe.StripeClient, wire: httpx.AsyncClient) -> None:
    kept, doubled = await capture(client, "k1"), await capture(client, "k2")
    await fault(wire, "/v1/refunds", "acknowledged_only", "doubled")
    lie = await refund(client, kept.id, "r1")
    assert (await asyncio.to_thread(client.v1.refunds.retrieve, lie.id)).status == "succeeded"
    await refund(client, doubled.id, "r2")
    assert [each["payment_intent"] for each in (await ledger(wire))["refunds"]] == [doubled.id, doubled.id]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"amount": "0"}, "amount"),
        ({"amount": "12.99"}, "amount"),
        ({"amount": ""}, "amount"),
        ({"payment_method": ""}, "payment_method"),
        ({"confirm": "yes"}, "confirm"),
        ({"surprise": "1"}, "surprise"),
    ],
)
async def test_a_bad_parameter_is_named(wire: httpx.AsyncClient, change: dict[str, str], param: str) -> None:
    answer = await wire.post("/v1/payment_intents", data=FORM | change)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_strangers_are_refused(payments_url: str) -> None:
    async with httpx.AsyncClient(base_url=payments_url, trust_env=False) as stranger:
        assert (await stranger.post("/v1/payment_intents", data=FORM)).status_code == 401
        assert (await stranger.get("/control/ledger")).status_code == 401

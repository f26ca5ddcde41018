"""The sagas of the loop, as a team writes them: `rescind work load.chaos.shop:order`, and so on.

`order` ends with a mail, which is sent once at most; `parcel` has a pivot, and goes forward past it; `gift` begins with two
steps beside each other, which are completed in either order.
"""

from __future__ import annotations

import os
from typing import Any

import httpx
import rescind

FLAGS = {"order": "chaos.order", "parcel": "chaos.parcel", "gift": "chaos.gift"}
RECOGNISED_SECONDS = 15.0
"""Half of the provider's window: what was begun within it, and then stopped for the longest stop, still arrives inside that."""
RETRY = {"first_seconds": 0.1, "factor": 2.0, "cap_seconds": 1.0, "attempts_max": 12}
ASK_SECONDS = 3.0
UNDOING: Any = {
    "settle_seconds": 0,
    "retry": {**RETRY, "attempts_max": 40},
    "act": {"retry": RETRY},
    "in_doubt": "assume_done",
    "provider_window_seconds": RECOGNISED_SECONDS,
}
_clients: list[httpx.AsyncClient] = []

order = rescind.Saga("order", version="1", flag=FLAGS["order"])
parcel = rescind.Saga("parcel", version="1", flag=FLAGS["parcel"])
gift = rescind.Saga("gift", version="1", flag=FLAGS["gift"])
SAGAS = {"order": order, "parcel": parcel, "gift": gift}
GROUPS = {"wrap": "together", "card": "together"}


async def ask(verb: str, effect: rescind.Effect, key: str | None) -> dict[str, Any]:
    """Ask the provider. Raises `NotDone` where it says that it did nothing; everything else that goes wrong is doubt."""
    if not _clients:
        _clients.append(httpx.AsyncClient(base_url=os.environ["CHAOS_PROVIDER"], timeout=ASK_SECONDS, trust_env=False))
    saga, _, step = effect.kind.partition(".")
    body = {
        "key": key,
        "effect_id": effect.id,
        "saga": saga,
        "order": effect.payload["order_id"],
        "step": step,
        "amount": effect.payload.get("amount_cents", 0),
    }
    answer = await _clients[0].post(f"/{verb}", json=body)
    if answer.status_code in (402, 410):
        raise rescind.NotDone(f"refused with {answer.status_code}", final=True)
    if answer.status_code == 429:
        raise rescind.NotDone("too many requests")
    answer.raise_for_status()
    return dict(answer.json())


async def act(effect: rescind.Effect) -> dict[str, Any]:
    """Do it, under the key that is the same in every attempt."""
    return await ask("act", effect, effect.provider_key)


async def undo(effect: rescind.Effect) -> dict[str, Any]:
    """Give it back, or close its key."""
    return await ask("undo", effect, effect.action_key)


@order.step(kind="order.reserve", key="reserve:{order_id}", **UNDOING)
async def reserve(order_id: str, effect: rescind.Effect) -> dict[str, Any]:
    """Stock."""
    return await act(effect)


@order.step(kind="order.capture", key="capture:{order_id}", currency_code="EUR", **UNDOING)
async def capture(order_id: str, amount_cents: int, effect: rescind.Effect) -> dict[str, Any]:
    """Money."""
    return await act(effect)


@order.step(
    kind="order.confirm", key="confirm:{order_id}", step_class="irreversible",
    act={"guarantee": "at_most_once", "retry": RETRY}, settle_seconds=0,
)  # fmt: skip
async def confirm(order_id: str, effect: rescind.Effect) -> dict[str, Any]:
    """A mail: nothing recognises it."""
    return await ask("act", effect, None)


@parcel.step(kind="parcel.reserve", key="reserve:{order_id}", name="reserve", **UNDOING)
async def pack(order_id: str, effect: rescind.Effect) -> dict[str, Any]:
    """Stock."""
    return await act(effect)


@parcel.step(
    kind="parcel.capture", key="capture:{order_id}", name="capture", step_class="pivot", currency_code="EUR", **UNDOING
)  # fmt: skip
async def charge(order_id: str, amount_cents: int, effect: rescind.Effect) -> dict[str, Any]:
    """Money, and the point of no return."""
    return await act(effect)


@parcel.step(kind="parcel.ship", key="ship:{order_id}", step_class="retriable", **UNDOING)
async def ship(order_id: str, effect: rescind.Effect) -> dict[str, Any]:
    """Forward."""
    return await act(effect)


@gift.step(kind="gift.wrap", key="wrap:{order_id}", group=GROUPS["wrap"], **UNDOING)
async def wrap(order_id: str, effect: rescind.Effect) -> dict[str, Any]:
    """Paper."""
    return await act(effect)


@gift.step(kind="gift.card", key="card:{order_id}", group=GROUPS["card"], **UNDOING)
async def card(order_id: str, effect: rescind.Effect) -> dict[str, Any]:
    """Good wishes."""
    return await act(effect)


@gift.step(kind="gift.capture", key="capture:{order_id}", name="capture", currency_code="EUR", **UNDOING)
async def pay(order_id: str, amount_cents: int, effect: rescind.Effect) -> dict[str, Any]:
    """Money."""
    return await act(effect)


for step in (reserve, capture, pack, charge, ship, wrap, card, pay):
    step.compensation(undo)

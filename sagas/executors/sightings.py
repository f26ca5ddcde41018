"""What the provider knows of an effect's payment: every payment intent that bears the effect's id (P16).

A search at Stripe is late: what was captured just now may be missing from it. A list is complete at once. Only both together
prove that a payment was never made: the search, and a list of everything created since the effect was admitted. Where that
is more than may be listed, the list must at least reach back to where the search can be trusted. One walk over the list serves
every look-up that asked before it began.

Source: Stripe's API reference (search: data freshness, less than a minute as a rule and up to an hour in outages; pagination).
"""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import msgspec
import stripe
from msgspec import Struct

from runtime.clock import Clock
from sagas.executors.outcomes import Absent, Found, Sighting, Unknown

EFFECT = "rescind_effect"
PAYMENTS = "rescind_payments"
"""In a result found at the provider: all payments of the effect, where there are several."""
PAGE = 100
PAGES_MAX = 50
CLOCKS_SECONDS = 300
"""How far the provider's clock and ours may be apart."""
SEARCH_LATE_SECONDS = 2 * 3600
CAPTURED = "succeeded"
PENDING = frozenset({"processing", "requires_capture", "requires_action"})


class Intent(Struct, frozen=True, kw_only=True):
    """A payment intent, as far as it is looked at."""

    id: str
    status: str
    amount: int
    created: int
    metadata: dict[str, str] = {}


class Page(Struct, frozen=True, kw_only=True):
    """A page of a list or of a search."""

    data: list[Intent]
    has_more: bool = False


class Listing(Struct, frozen=True, kw_only=True):
    """The intents that name an effect, out of a list that is complete back to `reaches` (seconds since 1970)."""

    of: dict[str, list[Intent]]
    reaches: float


class Sightings:
    """Look-ups at one provider with one secret."""

    def __init__(self, client: stripe.StripeClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._asked: list[tuple[float, asyncio.Future[Listing]]] = []
        self._walking: asyncio.Task[None] | None = None

    async def sight(self, effect: UUID) -> Sighting:
        """Whether the effect was captured. Raises `stripe.StripeError` where the provider does not answer."""
        query = f"metadata['{EFFECT}']:'{effect}'"
        found = (await self._page("/v1/payment_intents/search", {"query": query, "limit": PAGE})).data
        intents = {intent.id: intent for intent in found}
        is_whole = True
        if not any(intent.status == CAPTURED for intent in found):
            since = _admitted_at(effect) - CLOCKS_SECONDS
            listing = await self._recent(since)
            is_whole = listing.reaches <= max(since, self._clock.now().timestamp() - SEARCH_LATE_SECONDS)
            intents |= {intent.id: intent for intent in listing.of.get(str(effect), [])}
        return _sighting(sorted(intents.values(), key=lambda each: each.created), is_whole)

    async def close(self) -> None:
        """Walk no further."""
        if self._walking is not None:
            self._walking.cancel()
            await asyncio.gather(self._walking, return_exceptions=True)

    async def _recent(self, since: float) -> Listing:
        """A list that begins after it was asked for."""
        future: asyncio.Future[Listing] = asyncio.get_running_loop().create_future()
        self._asked.append((since, future))
        if self._walking is None or self._walking.done():
            self._walking = asyncio.create_task(self._walk_for_all())
        return await future

    async def _walk_for_all(self) -> None:
        while asked := [each for each in self._asked if not each[1].done()]:
            self._asked = []
            try:
                listing = await self._walk(min(since for since, _ in asked))
            except Exception as error:
                for _, future in asked:
                    if not future.done():
                        future.set_exception(error)
                continue
            for _, future in asked:
                if not future.done():
                    future.set_result(listing)
        self._asked = []

    async def _walk(self, since: float) -> Listing:
        of: dict[str, list[Intent]] = {}
        params: dict[str, Any] = {"created": {"gte": max(0, int(since))}, "limit": PAGE}
        reaches = self._clock.now().timestamp()
        for _ in range(PAGES_MAX):
            page = await self._page("/v1/payment_intents", params)
            for intent in page.data:
                if EFFECT in intent.metadata:
                    of.setdefault(intent.metadata[EFFECT], []).append(intent)
            if not page.has_more or not page.data:
                return Listing(of=of, reaches=since)
            params["starting_after"], reaches = page.data[-1].id, page.data[-1].created + 1
        return Listing(of=of, reaches=reaches)

    async def _page(self, path: str, params: dict[str, Any]) -> Page:
        """Read without making objects of what is not looked at: a list may be long."""
        answer: Any = await self._client.raw_request_async("get", path, **params)
        return msgspec.json.decode(answer.body, type=Page)


def _admitted_at(effect: UUID) -> float:
    """The instant in the effect's id (UUIDv7, RFC 9562); the beginning of time for an id of another sort."""
    return (effect.int >> 80) / 1000 if effect.version == 7 else 0.0


def _sighting(intents: list[Intent], is_whole: bool) -> Sighting:
    captured = [intent for intent in intents if intent.status == CAPTURED]
    if captured:
        return Found(result=_result(captured))
    pending = [intent.status for intent in intents if intent.status in PENDING]
    if pending:
        return Unknown(error=f"the provider says {pending[0]}")
    if not is_whole:
        return Unknown(error=f"a search found nothing, and more than {PAGE * PAGES_MAX} payments are too recent for it")
    return Absent()


def _result(captured: list[Intent]) -> dict[str, Any]:
    """The effect's result as its caller would have recorded it, with every payment where there are several."""
    first = captured[0]
    result: dict[str, Any] = {"id": first.id, "status": first.status, "amount": first.amount}
    if len(captured) > 1:
        result[PAYMENTS] = [{"id": intent.id, "amount": intent.amount, "created": intent.created} for intent in captured]
    return result

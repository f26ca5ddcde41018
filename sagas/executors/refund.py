"""Gives captured money back, through Stripe's own client and over a connection (P13, P16, P17).

The refund of an effect always carries the key `<effect id>:refund`, also in its metadata, so that one found at the provider is
known as ours. It never asks for more than the effect captured, and the provider refuses more than is left. A connection that
was never made, and an answer that refuses, prove that nothing was done; everything else is in doubt and repeated under the key.
Several captured payments of one effect are more than the ledger knows of: a person refunds the surplus, by name, and then the
one that is left is refunded here.

Source: Stripe's API reference (refunds, payment intents, search, idempotent requests, errors).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
import msgspec
import stripe

from runtime.clock import Clock
from sagas.connections import StripeConnection, resolve
from sagas.definitions import Refund
from sagas.executors.lines import Lines
from sagas.executors.outcomes import (
    LOST,
    Absent,
    Context,
    Done,
    Doubt,
    Found,
    NotYet,
    Outcome,
    Refused,
    Sighting,
    Subject,
    Unknown,
    told,
)
from sagas.executors.sightings import EFFECT, PAYMENTS, Sightings

ACTION = "rescind_action"
ROLLBACK = "rescind_rollback"
CLIENTS_MAX = 64
LIST_MAX = 100
CALL_SECONDS = 60.0


class Transport(stripe.HTTPClient):
    """stripe's requests over an httpx client of our own: bodies as bytes, no proxy from the environment, nothing repeated."""

    name = "httpx"

    def __init__(self) -> None:
        super().__init__()
        self._lines = Lines(CALL_SECONDS)

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """Body, status and headers of the answer. Raises `stripe.APIConnectionError` when there is none."""
        content = post_data.encode() if isinstance(post_data, str) else post_data
        try:
            with self._lines.one() as client:
                answer = await client.request(method, url, headers=dict(headers), content=content)
        except (httpx.HTTPError, OSError) as error:
            raise stripe.APIConnectionError(told(error), should_retry=False) from error  # type: ignore[no-untyped-call]
        return answer.content, answer.status_code, answer.headers

    async def close_async(self) -> None:
        """Close every connection."""
        await self._lines.close()


class RefundExecutor:
    """One per process; keeps a client, and its connections, per provider and secret."""

    def __init__(self, environ: Mapping[str, str], clock: Clock) -> None:
        self._environ = environ
        self._clock = clock
        self._clients: dict[tuple[str, str], tuple[stripe.StripeClient, Transport, Sightings]] = {}

    async def execute(self, context: Context) -> Outcome:
        """Refund the effect's payment."""
        effect = context.effects[0]
        if effect.amount_minor is None or effect.amount_minor < 0:
            return Refused(reason="the effect's payload names no amount")
        if effect.amount_minor == 0:
            return Done(proof={"nothing": "the amount was zero"})
        try:
            client, _ = await self._provider(context)
        except LookupError as error:
            return NotYet(error=told(error))
        payment = await self._payment(client, context, effect)
        if not isinstance(payment, str):
            return payment
        try:
            async with asyncio.timeout(context.timeout_seconds):
                if not context.may_act():
                    return LOST
                refund = await self._refund(client, context, effect, payment)
                return _done(refund)
        except TimeoutError:
            return Doubt(evidence={"error": "no answer in time", "payment": payment})
        except stripe.StripeError as error:
            return await self._explain(client, context, payment, error)

    async def look_up(self, context: Context) -> Sighting:
        """Ask the provider whether the effect's capture was done, by the effect's id in the payment's metadata."""
        try:
            _, sightings = await self._provider(context)
            async with asyncio.timeout(context.timeout_seconds):
                return await sightings.sight(context.effects[0].id)
        except TimeoutError:
            return Unknown(error="no answer in time")
        except (LookupError, stripe.StripeError, msgspec.MsgspecError) as error:
            return Unknown(error=told(error))

    async def close(self) -> None:
        """Close every connection."""
        clients, self._clients = self._clients, {}
        for _, transport, sightings in clients.values():
            await sightings.close()
            await transport.close_async()

    async def _provider(self, context: Context) -> tuple[stripe.StripeClient, Sightings]:
        connection = context.connection
        if not isinstance(connection, StripeConnection):
            raise LookupError("the connection is not one to a payment provider")
        secret = await asyncio.to_thread(resolve, connection.secret, self._environ)
        key = (connection.url, secret)
        if key not in self._clients:
            if len(self._clients) >= CLIENTS_MAX:
                await self.close()
            transport = Transport()
            client = stripe.StripeClient(
                secret, base_addresses={"api": connection.url.rstrip("/")}, max_network_retries=0, http_client=transport
            )
            self._clients[key] = (client, transport, Sightings(client, self._clock))
        client, _, sightings = self._clients[key]
        return client, sightings

    async def _payment(self, client: stripe.StripeClient, context: Context, effect: Subject) -> str | Outcome:
        """The provider's name of the payment: from the effect's result, else found by the effect's id."""
        assert isinstance(context.executor, Refund)
        result: Any = effect.result
        payment = result.get(context.executor.reference) if isinstance(result, dict) else None
        if not (isinstance(payment, str) and payment):
            match await self.look_up(context):
                case Found(result=found):
                    result, payment = found, str(found["id"])
                case Absent():
                    return Refused(
                        reason=f"the result has no {context.executor.reference!r}, and the provider knows no payment of it"
                    )
                case Unknown(error=error):
                    return NotYet(error=error)
        several = result.get(PAYMENTS)
        return await self._one_of(client, context, several) if isinstance(several, list) else payment

    async def _one_of(self, client: stripe.StripeClient, context: Context, payments: list[dict[str, Any]]) -> str | Outcome:
        """Of several payments of the effect the one that still stands. A person decides while there are more, or none."""
        standing = []
        for payment in payments:
            try:
                async with asyncio.timeout(context.timeout_seconds):
                    refunds = await client.v1.refunds.list_async({"payment_intent": payment["id"], "limit": LIST_MAX})
            except (TimeoutError, stripe.StripeError) as error:
                return NotYet(error=told(error))
            given = [refund for refund in refunds.data if refund.status not in ("failed", "canceled")]
            if any(_is_ours(refund, context) for refund in given):
                return str(payment["id"])
            if sum(refund.amount for refund in given) < payment["amount"]:
                standing.append(str(payment["id"]))
        if len(standing) == 1:
            return standing[0]
        reason = f"{len(payments)} captured payments bear this effect's id and {len(standing)} of them stand"
        next_step = "refund the surplus at the provider, then retry; or refund all of them there, then skip"
        return Refused(reason=reason, evidence={"payments": payments, "standing": standing, "next_step": next_step})

    async def _refund(self, client: stripe.StripeClient, context: Context, effect: Subject, payment: str) -> stripe.Refund:
        assert effect.amount_minor is not None
        metadata = {EFFECT: str(effect.id), ACTION: context.action_key, ROLLBACK: str(context.rollback_id)}
        options: stripe.RequestOptions = {"idempotency_key": context.action_key}
        if payment.startswith("ch_"):
            return await client.v1.refunds.create_async(
                {"charge": payment, "amount": effect.amount_minor, "metadata": metadata}, options
            )
        return await client.v1.refunds.create_async(
            {"payment_intent": payment, "amount": effect.amount_minor, "metadata": metadata}, options
        )

    async def _explain(self, client: stripe.StripeClient, context: Context, payment: str, error: stripe.StripeError) -> Outcome:
        evidence = {"error": told(error), "code": error.code, "http_status": error.http_status, "payment": payment}
        if isinstance(error, stripe.APIConnectionError):
            never = isinstance(error.__cause__, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
            return NotYet(error=told(error)) if never else Doubt(evidence=evidence)
        status = error.http_status or 0
        if status == 429 or isinstance(error, stripe.RateLimitError | stripe.AuthenticationError | stripe.PermissionError):
            return NotYet(error=told(error), retry_after_seconds=_retry_after(error))
        if status >= 500 or status in (0, 409):
            return Doubt(evidence=evidence)
        ours = await self._ours(client, context, payment)
        return ours or Refused(reason=error.code or "refused by the provider", evidence=evidence)

    async def _ours(self, client: stripe.StripeClient, context: Context, payment: str) -> Done | None:
        """The refund that an earlier attempt of ours left at the provider, whatever its window has forgotten."""
        try:
            async with asyncio.timeout(context.timeout_seconds):
                if payment.startswith("ch_"):
                    refunds = await client.v1.refunds.list_async({"charge": payment, "limit": LIST_MAX})
                else:
                    refunds = await client.v1.refunds.list_async({"payment_intent": payment, "limit": LIST_MAX})
        except (TimeoutError, stripe.StripeError):
            return None
        for refund in refunds.data:
            if _is_ours(refund, context) and refund.status not in ("failed", "canceled"):
                return Done(proof={**_proof(refund), "found": True})
        return None


def _is_ours(refund: stripe.Refund, context: Context) -> bool:
    return (refund.to_dict().get("metadata") or {}).get(ACTION) == context.action_key


def _done(refund: stripe.Refund) -> Outcome:
    if refund.status in ("failed", "canceled"):
        return Refused(reason=f"the provider says the refund {refund.status}", evidence=_proof(refund))
    return Done(proof=_proof(refund))


def _proof(refund: stripe.Refund) -> dict[str, Any]:
    return {"refund": refund.id, "status": refund.status, "amount": refund.amount, "currency": refund.currency}


def _retry_after(error: stripe.StripeError) -> float | None:
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    text = str(headers.get("retry-after", ""))
    return float(text) if text.isdecimal() else None

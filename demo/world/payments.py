"""A payment provider on loopback that speaks Stripe's HTTP API for payment intents and refunds, strictly.

Source: Stripe's API reference (payment intents, refunds, lists, search, idempotent requests, errors). Stripe's own client
works with it (`base_addresses={"api": URL}`). `GET /control/ledger` is the judge's source: what really happened, whatever was
answered. Run as `python -m demo.world.payments`; `PAYMENTS_KEY` and `CONTROL_TOKEN` come from the environment.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import time
from collections.abc import Callable
from typing import Any

import msgspec

from demo.asgi import App, DroppedError, Reply, Request, application, json_reply
from demo.serving import serve
from demo.world.forms import Form
from demo.world.payment_faults import COMMIT_DELAY_SECONDS, Fate, Fates, Faults
from demo.world.payment_ledger import Keys, Ledger, Refund, StripeError, invalid
from demo.world.payment_lists import limit_of, listed, searched

KEY_WINDOW_SECONDS = 24 * 3600.0
INTENT_PARAMETERS = frozenset(
    {"amount", "currency", "confirm", "payment_method", "metadata", "description", "customer", "capture_method"}
)
REFUND_PARAMETERS = frozenset({"payment_intent", "charge", "amount", "metadata", "reason"})
REFUND_REASONS = frozenset({"duplicate", "fraudulent", "requested_by_customer"})


class Payments:
    """The provider: routes, idempotency keys, faults."""

    def __init__(self, *, key: str, control_token: str, key_window_seconds: float = KEY_WINDOW_SECONDS) -> None:
        self.ledger = Ledger()
        self.keys = Keys(key_window_seconds)
        self.fates = Fates()
        self._key = key
        self._control_token = control_token
        self._acknowledged: dict[str, Refund] = {}
        self._late: set[asyncio.Task[Reply]] = set()

    def app(self) -> App:
        """The ASGI application."""
        return application(self.handle)

    async def handle(self, request: Request) -> Reply:
        """One request, answered as Stripe would. Raises `DroppedError` where a fault closes the connection."""
        request_id = self.ledger.number("req")
        try:
            if request.path.startswith("/control/"):
                return self._control(request)
            self._authenticate(request)
            if request.method == "POST":
                return await self._create(request, request_id)
            return self._read(request, request_id)
        except StripeError as error:
            return json_reply({"error": error.body}, error.status, request_id=request_id)

    def _authenticate(self, request: Request) -> None:
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if scheme == "Basic":
            value = base64.b64decode(value).decode().partition(":")[0]
        if not hmac.compare_digest(value.encode(), self._key.encode()):
            raise invalid("Invalid API Key provided", status=401)

    async def _create(self, request: Request, request_id: str) -> Reply:
        handler = {"/v1/payment_intents": self._create_intent, "/v1/refunds": self._create_refund}.get(request.path)
        if handler is None:
            raise invalid(f"Unrecognized request URL (POST: {request.path}).", status=404)
        fate = self.fates.next(request.path, time.monotonic())
        self._refuse(fate)
        act = handler(request, fate)
        key = request.headers.get("idempotency-key")
        if key is not None:
            known = self.keys.begin(key, _fingerprint(request), time.time())
            if known is not None:
                headers = {"request-id": request_id, "idempotent-replayed": "true"}
                return Reply(status=known.status or 200, body=known.body, headers=headers)
        if fate == "delayed":
            task = asyncio.create_task(self._act_late(act, key, request_id))
            self._late.add(task)
            task.add_done_callback(self._late.discard)
            raise DroppedError
        reply = self._act(act, key, request_id)
        if fate == "lost_reply":
            raise DroppedError
        return reply

    def _refuse(self, fate: Fate | None) -> None:
        match fate:
            case "lost_request":
                raise DroppedError
            case "unavailable":
                raise StripeError(503, "api_error", "The service is unavailable. Nothing was done.")
            case "rate_limited":
                raise StripeError(429, "invalid_request_error", "Too many requests hit the API too quickly.", code="rate_limit")
            case _:
                return

    async def _act_late(self, act: Callable[[], dict[str, Any]], key: str | None, request_id: str) -> Reply:
        await asyncio.sleep(COMMIT_DELAY_SECONDS)
        return self._act(act, key, request_id)

    def _act(self, act: Callable[[], dict[str, Any]], key: str | None, request_id: str) -> Reply:
        try:
            status, document = 200, act()
        except StripeError as error:
            status, document = error.status, {"error": error.body}
        reply = json_reply(document, status, request_id=request_id)
        if key is not None:
            self.keys.finish(key, status, reply.body)
        return reply

    def _create_intent(self, request: Request, _fate: Fate | None) -> Callable[[], dict[str, Any]]:
        form = Form(request.body.decode(), INTENT_PARAMETERS)
        amount, currency, confirm = form.amount("amount"), form.text("currency"), form.boolean("confirm")
        if confirm:
            form.text("payment_method")
        if form.optional("capture_method") not in (None, "automatic"):
            raise invalid("Only automatic capture is offered", param="capture_method")

        def act() -> dict[str, Any]:
            return self.ledger.create(
                amount=amount,
                currency=currency,
                confirm=confirm,
                metadata=form.metadata,
                description=form.optional("description"),
                at=time.time(),
            ).document()

        return act

    def _create_refund(self, request: Request, fate: Fate | None) -> Callable[[], dict[str, Any]]:
        form = Form(request.body.decode(), REFUND_PARAMETERS)
        charge = form.optional("charge")
        intent = self.ledger.of_charge(charge).id if charge else form.text("payment_intent")
        amount = form.amount("amount") if form.optional("amount") else None
        reason = form.optional("reason")
        if reason is not None and reason not in REFUND_REASONS:
            raise invalid(f"Invalid reason: {reason}", param="reason")

        def act() -> dict[str, Any]:
            refund = self.ledger.prepare_refund(intent, amount=amount, metadata=form.metadata, reason=reason, at=time.time())
            if fate == "acknowledged_only":
                self._acknowledged[refund.id] = refund
                return refund.document()
            self.ledger.record(refund)
            if fate == "doubled":
                self.ledger.record(msgspec.structs.replace(refund, id=self.ledger.number("re")))
            return refund.document()

        return act

    def _read(self, request: Request, request_id: str) -> Reply:
        match request.path.strip("/").split("/"):
            case ["v1", "payment_intents", "search"]:
                found = searched(list(self.ledger.intents.values()), request.query, at=time.time())
                return json_reply(found, request_id=request_id)
            case ["v1", "payment_intents"]:
                return json_reply(listed(list(self.ledger.intents.values()), request.query), request_id=request_id)
            case ["v1", "payment_intents", intent_id]:
                return json_reply(self.ledger.find(intent_id).document(), request_id=request_id)
            case ["v1", "refunds"]:
                return json_reply(self._refunds(request), request_id=request_id)
            case ["v1", "refunds", refund_id]:
                refund = self.ledger.refunds.get(refund_id) or self._acknowledged.get(refund_id)
                if refund is None:
                    raise invalid(f"No such refund: '{refund_id}'", code="resource_missing", status=404)
                return json_reply(refund.document(), request_id=request_id)
            case _:
                raise invalid(f"Unrecognized request URL ({request.method}: {request.path}).", status=404)

    def _refunds(self, request: Request) -> dict[str, Any]:
        charge = request.query.get("charge")
        wanted = self.ledger.of_charge(charge).id if charge else request.query.get("payment_intent")
        known = [*self.ledger.refunds.values(), *self._acknowledged.values()]
        found = [refund for refund in reversed(known) if wanted in (None, refund.payment_intent)]
        after = request.query.get("starting_after")
        if after is not None:
            ids = [refund.id for refund in found]
            found = found[ids.index(after) + 1 :] if after in ids else []
        data = [refund.document() for refund in found[: limit_of(request.query)]]
        return {"object": "list", "url": request.path, "has_more": len(found) > len(data), "data": data}

    def _control(self, request: Request) -> Reply:
        if not hmac.compare_digest(request.headers.get("x-control-token", "").encode(), self._control_token.encode()):
            raise invalid("The control endpoint needs its token", status=401)
        match request.method, request.path:
            case "POST", "/control/faults":
                self.fates.add(msgspec.json.decode(request.body, type=Faults), time.monotonic())
                return json_reply({})
            case "GET", "/control/ledger":
                return json_reply(
                    {
                        "intents": list(self.ledger.intents.values()),
                        "refunds": list(self.ledger.refunds.values()),
                        "faults_met": self.fates.met,
                    }
                )
            case _:
                raise invalid("Unrecognized control URL", status=404)


def _fingerprint(request: Request) -> bytes:
    return hashlib.sha256(request.path.encode() + b"\n" + request.body).digest()


def main() -> None:
    """Serve until the parent goes."""
    payments = Payments(key=os.environ["PAYMENTS_KEY"], control_token=os.environ["CONTROL_TOKEN"])
    asyncio.run(serve(payments.app()))


if __name__ == "__main__":
    main()

"""What the payment provider knows: captures, refunds, and the requests it has seen under each idempotency key.

Shapes, limits and error codes follow Stripe's API reference for payment intents, refunds and idempotent requests
(docs.stripe.com/api). Nothing here does I/O; the caller says what time it is.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

KEY_LENGTH_MAX = 255


class StripeError(Exception):
    """An error as the provider words it: status, `type`, `code`, `param` and a message."""

    def __init__(self, status: int, kind: str, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"type": kind, "message": message}
        if code is not None:
            self.body |= {"code": code, "doc_url": f"https://docs.stripe.com/error-codes/{code.replace('_', '-')}"}
        if param is not None:
            self.body["param"] = param


def invalid(message: str, *, code: str | None = None, param: str | None = None, status: int = 400) -> StripeError:
    """An `invalid_request_error`."""
    return StripeError(status, "invalid_request_error", message, code=code, param=param)


class Intent(msgspec.Struct, kw_only=True):
    """A payment intent; `amount_refunded` is what its refunds add up to."""

    id: str
    amount: int
    currency: str
    status: str
    created: float
    metadata: dict[str, str]
    charge: str | None
    description: str | None = None
    amount_refunded: int = 0

    def document(self) -> dict[str, Any]:
        """The intent as the API answers it."""
        captured = self.status == "succeeded"
        return {
            "id": self.id,
            "object": "payment_intent",
            "amount": self.amount,
            "amount_capturable": 0,
            "amount_received": self.amount if captured else 0,
            "capture_method": "automatic",
            "client_secret": f"{self.id}_secret_demo",
            "created": int(self.created),
            "currency": self.currency,
            "description": self.description,
            "latest_charge": self.charge,
            "livemode": False,
            "metadata": self.metadata,
            "status": self.status,
        }


class Refund(msgspec.Struct, kw_only=True):
    """A refund of one payment intent."""

    id: str
    payment_intent: str
    charge: str | None
    amount: int
    currency: str
    created: float
    metadata: dict[str, str]
    reason: str | None = None

    def document(self) -> dict[str, Any]:
        """The refund as the API answers it."""
        return {
            "id": self.id,
            "object": "refund",
            "amount": self.amount,
            "charge": self.charge,
            "created": int(self.created),
            "currency": self.currency,
            "metadata": self.metadata,
            "payment_intent": self.payment_intent,
            "reason": self.reason,
            "status": "succeeded",
        }


class Ledger:
    """Captures and refunds, as they really happened. Refuses to give back more than was taken."""

    def __init__(self) -> None:
        self.intents: dict[str, Intent] = {}
        self.refunds: dict[str, Refund] = {}
        self._numbers = 0

    def number(self, prefix: str) -> str:
        """The next id of a sort, unlike any before."""
        self._numbers += 1
        return f"{prefix}_{hashlib.sha256(f'{prefix}{self._numbers}'.encode()).hexdigest()[:24]}"

    def create(
        self, *, amount: int, currency: str, confirm: bool, metadata: dict[str, str], description: str | None, at: float
    ) -> Intent:
        """A new payment intent; with `confirm` its amount is captured at once."""
        intent = Intent(
            id=self.number("pi"),
            amount=amount,
            currency=currency,
            status="succeeded" if confirm else "requires_confirmation",
            created=at,
            metadata=metadata,
            charge=self.number("ch") if confirm else None,
            description=description,
        )
        self.intents[intent.id] = intent
        return intent

    def find(self, intent_id: str) -> Intent:
        """The intent of this id. Raises 404 `resource_missing`."""
        if intent_id not in self.intents:
            raise invalid(f"No such payment_intent: '{intent_id}'", code="resource_missing", param="intent", status=404)
        return self.intents[intent_id]

    def of_charge(self, charge: str) -> Intent:
        """The intent of this charge. Raises 404 `resource_missing`."""
        for intent in self.intents.values():
            if intent.charge == charge:
                return intent
        raise invalid(f"No such charge: '{charge}'", code="resource_missing", param="charge", status=404)

    def prepare_refund(
        self, intent_id: str, *, amount: int | None, metadata: dict[str, str], reason: str | None, at: float
    ) -> Refund:
        """The refund that would be given, checked and not yet recorded.

        Raises what Stripe answers: `charge_already_refunded`, or an amount greater than what is left.
        """
        intent = self.find(intent_id)
        if intent.status != "succeeded":
            raise invalid(
                f"This PaymentIntent ({intent_id}) does not have a successful charge to refund.", param="payment_intent"
            )
        left = intent.amount - intent.amount_refunded
        if left <= 0:
            raise invalid(f"Charge {intent.charge} has already been refunded.", code="charge_already_refunded")
        asked = left if amount is None else amount
        if asked > left:
            raise invalid(f"Refund amount ({asked}) is greater than unrefunded amount on charge ({left})", param="amount")
        return Refund(
            id=self.number("re"),
            payment_intent=intent.id,
            charge=intent.charge,
            amount=asked,
            currency=intent.currency,
            created=at,
            metadata=metadata,
            reason=reason,
        )

    def record(self, refund: Refund) -> Refund:
        """Write a prepared refund down: from here on the money is back."""
        self.refunds[refund.id] = refund
        self.intents[refund.payment_intent].amount_refunded += refund.amount
        return refund


class Remembered(msgspec.Struct, kw_only=True):
    """What was asked under a key; `status` is None while the request is in progress."""

    fingerprint: bytes
    begun_at: float
    status: int | None = None
    body: bytes = b""


class Keys:
    """Idempotency keys, honoured for `window_seconds` from their first use."""

    def __init__(self, window_seconds: float) -> None:
        self.window_seconds = window_seconds
        self._seen: dict[str, Remembered] = {}

    def begin(self, key: str, fingerprint: bytes, at: float) -> Remembered | None:
        """What was answered under this key before, or None: the caller goes on, then calls `finish` or `forget`.

        Raises `idempotency_error`: 400 for other parameters, 409 while the first request is in progress.
        """
        if len(key) > KEY_LENGTH_MAX:
            raise invalid(f"Idempotency keys are at most {KEY_LENGTH_MAX} characters", param="Idempotency-Key")
        known = self._seen.get(key)
        if known is None or known.begun_at + self.window_seconds <= at:
            self._seen[key] = Remembered(fingerprint=fingerprint, begun_at=at)
            return None
        if known.fingerprint != fingerprint:
            raise StripeError(
                400,
                "idempotency_error",
                "Keys for idempotent requests can only be used with the same parameters they were first used with. "
                f"Try using a key other than '{key}' if you meant to execute a different request.",
            )
        if known.status is None:
            raise StripeError(
                409,
                "idempotency_error",
                f"There is currently another in-progress request using this Idempotent Key ('{key}').",
                code="idempotency_key_in_use",
            )
        return known

    def finish(self, key: str, status: int, body: bytes) -> None:
        """Keep the answer, to be given to every repeat."""
        self._seen[key].status = status
        self._seen[key].body = body

    def forget(self, key: str) -> None:
        """The request was not carried out: the key may be used again."""
        self._seen.pop(key, None)

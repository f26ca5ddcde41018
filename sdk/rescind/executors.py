"""Compensations that the coordinator carries out by itself: data, so that they outlive the code that did the effect (P15).

Templates are Jinja over `effect` (payload, result, key, subject, id), `effects` (all, when merged) and `rollback`.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class Refund(Struct, frozen=True, kw_only=True, tag="refund", tag_field="executor", omit_defaults=True):
    """Gives the money back at a Stripe-compatible provider, one refund per effect.

    `reference` names the field of the effect's result that holds the provider's payment.
    """

    connection: str
    reference: str = "id"


class Email(Struct, frozen=True, kw_only=True, tag="email", tag_field="executor", omit_defaults=True):
    """Sends a mail, at most once. `dedupe_by="subject"`: one per subject of the effects and rollback."""

    connection: str
    to: str
    subject: str
    body: str
    dedupe_by: Literal["subject"] | None = None


class Webhook(Struct, frozen=True, kw_only=True, tag="webhook", tag_field="executor", omit_defaults=True):
    """Posts JSON, signed per Standard Webhooks. Without `body` the effect's own payload is sent."""

    connection: str
    path: str = ""
    body: str | None = None
    dedupe_by: Literal["subject"] | None = None


class Worker(Struct, frozen=True, kw_only=True, tag="worker", tag_field="executor", omit_defaults=True):
    """Calls the handler that `@step.compensation` names, in any live worker of this version."""

    dedupe_by: Literal["subject"] | None = None


Compensation = Refund | Email | Webhook | Worker

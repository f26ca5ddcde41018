"""What the world outside has kept: the payment, mail and partner servers' own ledgers, read for the judge.

Readers take only what they need and know nothing of Rescind's own records.
"""

from __future__ import annotations

from typing import Any

import httpx
import msgspec


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """A payment intent of the payment server."""

    id: str
    amount: int
    status: str
    metadata: dict[str, str] = {}

    @property
    def path(self) -> str:
        """`new`, `old`, or nothing where a service forgot to say."""
        return self.metadata.get("path", "")

    @property
    def order_id(self) -> str:
        """The order it was captured for."""
        return self.metadata.get("order_id", "")

    @property
    def effect_id(self) -> str:
        """The name under which the service asked for it."""
        return self.metadata.get("rescind_effect", "")


class Refund(msgspec.Struct, frozen=True, kw_only=True):
    """A refund of the payment server."""

    id: str
    payment_intent: str
    amount: int


class Mail(msgspec.Struct, frozen=True, kw_only=True):
    """A mail of the mail server; header names are in lower case."""

    message_id: str
    to: str
    subject: str
    headers: dict[str, str] = {}
    body: str = ""

    @property
    def path(self) -> str | None:
        """`new` or `old` for a confirmation; None for a mail that is none."""
        return self.headers.get("x-path")

    @property
    def order_id(self) -> str:
        """The order it confirms."""
        return self.headers.get("x-order", "")

    @property
    def effect_id(self) -> str:
        """The name under which the service sent it."""
        return self.message_id.strip("<>").partition("@")[0]


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook that the partner received; `fault` says what was wrong with its signature."""

    webhook_id: str
    body: dict[str, Any] = {}
    fault: str | None = None


class Ledgers(msgspec.Struct, frozen=True, kw_only=True):
    """All three ledgers."""

    intents: list[Intent] = []
    refunds: list[Refund] = []
    mails: list[Mail] = []
    deliveries: list[Delivery] = []
    retractions: list[Delivery] = []

    def captured(self, path: str) -> list[Intent]:
        """Money that was really taken by one path."""
        return [intent for intent in self.intents if intent.status == "succeeded" and intent.path == path]

    def confirmations(self, path: str) -> list[Mail]:
        """Confirmations that one path sent."""
        return [mail for mail in self.mails if mail.path == path]

    def corrections(self) -> list[Mail]:
        """Mails that take confirmations back."""
        return [mail for mail in self.mails if mail.path is None]

    def delivered(self, path: str) -> list[Delivery]:
        """What one path told the partner."""
        return [delivery for delivery in self.deliveries if delivery.body.get("path") == path]


async def read(client: httpx.AsyncClient, *, payments: str, mail: str, partner: str, control_token: str) -> Ledgers:
    """Read all three ledgers as they are now."""
    parts: dict[str, Any] = {}
    for url, headers in (
        (f"{payments}/control/ledger", {"x-control-token": control_token}),
        (f"{mail}/ledger", {}),
        (f"{partner}/ledger", {}),
    ):
        answer = await client.get(url, headers=headers)
        answer.raise_for_status()
        parts |= msgspec.json.decode(answer.content, type=dict[str, Any])
    return msgspec.convert(parts, Ledgers)

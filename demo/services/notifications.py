"""The service that tells customers and a partner. `POST /confirmations` (SMTP) and `POST /partner-deliveries` (a webhook).

The old path's keys name the order: told once. The new path is the bad release: every confirmation goes out twice, and its keys
name the attempt.
Run as `python -m demo.services.notifications`; `SMTP_PORT` and `PARTNER_URL` come from the environment.
"""

from __future__ import annotations

import asyncio
import os
import smtplib
from collections.abc import Awaitable, Callable
from email.message import EmailMessage
from typing import Any

import rescind

from demo.release import NEW
from demo.services.service import Order, Shop, run

SMTP_TIMEOUT_SECONDS = 10.0


class Notifications:
    """Mails and webhooks about orders."""

    def __init__(self, shop: Shop, smtp_port: int, partner_url: str) -> None:
        self._shop = shop
        self._smtp_port = smtp_port
        self._partner_url = partner_url

    async def confirm(self, order: Order) -> dict[str, Any]:
        """Confirm an order by mail."""
        path, replayed = await self._shop.old_path_if_killed(
            self._shop.path(order.customer), lambda path, variant: self._confirm(order, path, variant)
        )
        return {"path": path, "replayed": replayed}

    async def _confirm(self, order: Order, path: str, variant: str | None) -> bool:
        if path == NEW:
            keys = [f"confirm:{order.order_id}:{order.attempt}:{copy}" for copy in (1, 2)]
        else:
            keys = [f"confirm:{order.order_id}"]
        replayed = [await self._mail(order, path, key, variant) for key in keys]
        return all(replayed)

    async def _mail(self, order: Order, path: str, key: str, variant: str | None) -> bool:
        payload = {"order_id": order.order_id, "to": order.email}
        async with self._shop.effect("mail.confirmation", "confirm", key, order, payload, variant) as effect:
            if not effect.replayed:
                self._shop.begin(effect)
                message = self._message(order, path, effect)
                await asyncio.to_thread(self._send, message)
                effect.result = {"message_id": str(message["Message-ID"])}
        return bool(effect.replayed)

    def _message(self, order: Order, path: str, effect: rescind.Effect) -> EmailMessage:
        message = EmailMessage()
        message["From"] = "shop@example.test"
        message["To"] = order.email
        message["Subject"] = f"Your order {order.order_id}"
        message["Message-ID"] = f"<{effect.provider_key}@shop.example.test>"
        message["X-Order"] = order.order_id
        message["X-Path"] = path
        message.set_content(f"Thank you for order {order.order_id} of {order.amount_cents / 100:.2f} USD.\n")
        return message

    def _send(self, message: EmailMessage) -> None:
        with smtplib.SMTP("127.0.0.1", self._smtp_port, "shop.example.test", SMTP_TIMEOUT_SECONDS) as smtp:
            smtp.send_message(message)

    async def deliver(self, order: Order) -> dict[str, Any]:
        """Tell the partner about an order."""
        path, effect = await self._shop.old_path_if_killed(
            self._shop.path(order.customer), lambda path, variant: self._deliver(order, path, variant)
        )
        return {"path": path, "replayed": effect.replayed}

    async def _deliver(self, order: Order, path: str, variant: str | None) -> rescind.Effect:
        key = f"partner:{order.order_id}:{order.attempt}" if path == NEW else f"partner:{order.order_id}"
        payload = {"order_id": order.order_id, "customer": order.customer, "amount_cents": order.amount_cents}
        effect: rescind.Effect
        async with self._shop.effect("partner.webhook", "partner", key, order, payload, variant) as effect:
            if not effect.replayed:
                self._shop.begin(effect)
                answer = await self._shop.outside.post(
                    f"{self._partner_url}/deliveries",
                    json={**payload, "path": path},
                    headers={"webhook-id": effect.provider_key},
                )
                answer.raise_for_status()
                effect.result = {"webhook_id": effect.provider_key}
        return effect


def routes(shop: Shop) -> dict[str, Callable[[Order], Awaitable[Any]]]:
    """What this service answers."""
    notifications = Notifications(shop, int(os.environ["SMTP_PORT"]), os.environ["PARTNER_URL"])
    return {"/confirmations": notifications.confirm, "/partner-deliveries": notifications.deliver}


if __name__ == "__main__":
    asyncio.run(run("notifications", routes))

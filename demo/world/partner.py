"""A partner that receives webhooks: what an order sends it, and signed retraction notices. It keeps all of them.

Run as `python -m demo.world.partner`; `PARTNER_SECRET` (`whsec_...`) comes from the environment. The judge reads `GET /ledger`.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import msgspec

from demo.asgi import App, Reply, Request, application, json_reply
from demo.serving import serve
from demo.world import signatures


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One webhook as it came in. `fault` says what is wrong with its signature, or is None."""

    webhook_id: str
    body: dict[str, Any]
    received_at: float
    fault: str | None = None


class Partner:
    """Keeps deliveries (`POST /deliveries`) and retraction notices (`POST /retractions`); refuses a notice it cannot verify."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self.deliveries: list[Delivery] = []
        self.retractions: list[Delivery] = []

    async def handle(self, request: Request) -> Reply:
        """One request."""
        match request.method, request.path:
            case "POST", "/deliveries":
                self.deliveries.append(self._received(request, None))
                return json_reply({"received": self.deliveries[-1].webhook_id}, 202)
            case "POST", "/retractions":
                fault = signatures.fault(self._secret, request.headers, request.body, time.time())
                self.retractions.append(self._received(request, fault))
                return json_reply({"fault": fault}, 202 if fault is None else 401)
            case "GET", "/ledger":
                return json_reply({"deliveries": self.deliveries, "retractions": self.retractions})
            case _:
                return json_reply({"error": "no such path"}, 404)

    def _received(self, request: Request, fault: str | None) -> Delivery:
        return Delivery(
            webhook_id=request.headers.get("webhook-id", ""),
            body=msgspec.json.decode(request.body, type=dict[str, Any]),
            received_at=time.time(),
            fault=fault,
        )

    def app(self) -> App:
        """The ASGI application."""
        return application(self.handle)


if __name__ == "__main__":
    asyncio.run(serve(Partner(os.environ["PARTNER_SECRET"]).app()))

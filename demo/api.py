"""The few calls that the demo makes to Rescind's HTTP API, as any user could with curl."""

from __future__ import annotations

import json
from typing import Any

import httpx

from demo.release import DEFINITION, FLAG, flag_document

ENVIRONMENT = "production"
PAGE = 500
PAGES_MAX = 200
REASON = "rescind demo"


class ApiError(Exception):
    """Rescind refused a call; the message is its problem document."""


class Api:
    """Calls with an admin token, within the demo's environment. Raises `ApiError` for anything but success."""

    def __init__(self, http: httpx.AsyncClient, url: str, token: str) -> None:
        self._http = http
        self._url = url
        self._headers = {"authorization": f"Bearer {token}"}
        self._within = f"/v1/environments/{ENVIRONMENT}"

    async def set_up(self, *, payments: str, smtp_port: int, partner: str) -> None:
        """The flag, the connections and what undoes an order. The secrets are read by the server from its environment."""
        await self.call("PUT", f"{self._within}/flags/{FLAG}", {"flag": flag_document(), "reason": REASON})
        connections = {
            "payments": {"type": "stripe", "url": payments, "secret": "env:DEMO_PROVIDER_KEY", "granted": ["order"]},
            "mail": {"type": "smtp", "host": "127.0.0.1", "port": smtp_port, "sender": "shop@example.test"},
            "partner": {"type": "webhook", "url": partner, "secret": "env:DEMO_PARTNER_SECRET"},
        }
        for name, document in connections.items():
            await self.call("PUT", f"{self._within}/connections/{name}", {"connection": document, "reason": REASON})
        saga = json.loads(DEFINITION.read_text())
        await self.call("PUT", f"{self._within}/sagas/order/versions/1?reason={REASON}", saga)

    async def service_token(self, name: str) -> str:
        """A token that may evaluate flags and admit effects, and nothing else."""
        body = {"name": name, "environment": ENVIRONMENT, "scopes": ["evaluate", "effects"], "reason": REASON}
        answer = await self.call("POST", "/v1/tokens", body)
        return str(answer["token"])

    async def rollback(self, rollback_id: str) -> dict[str, Any]:
        """The rollback's record."""
        return await self.call("GET", f"/v1/rollbacks/{rollback_id}")

    async def report(self, rollback_id: str) -> dict[str, Any]:
        """The rollback's report."""
        return await self.call("GET", f"/v1/rollbacks/{rollback_id}/report")

    async def instances(self) -> list[dict[str, Any]]:
        """Who runs, at which revision, and how it learned of it."""
        answer = await self.call("GET", f"{self._within}/instances")
        found: list[dict[str, Any]] = answer["instances"]
        return found

    async def effects(self) -> list[dict[str, Any]]:
        """Every effect that was ever admitted under the flag."""
        effects: list[dict[str, Any]] = []
        after = ""
        for _ in range(PAGES_MAX):
            answer = await self.call("GET", f"{self._within}/effects?flag={FLAG}&limit={PAGE}{after}")
            effects += answer["effects"]
            if not answer.get("next"):
                return effects
            after = f"&after={answer['next']}"
        raise ApiError(f"more than {PAGES_MAX} pages of effects")

    async def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """One call and its JSON."""
        answer = await self._http.request(method, self._url + path, json=body, headers=self._headers)
        if answer.status_code >= 400:
            raise ApiError(f"{method} {path}: {answer.status_code} {answer.text[:2000]}")
        document: dict[str, Any] = answer.json() if answer.content else {}
        return document

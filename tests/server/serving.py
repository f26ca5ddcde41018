"""A whole server in the test's own loop, on real PostgreSQL and Valkey, asked through real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from flagd import store
from runtime import tokens
from runtime.postgres import Postgres
from runtime.settings import Settings
from server.app import build
from server.parts import Parts
from server.running import Running, bind

ENVIRONMENTS = ("development", "production")
P = "/v1/environments/production"


class Served:
    """One server, and an admin's client to it."""

    def __init__(self, url: str, parts: Parts, admin: str) -> None:
        self.url = url
        self.parts = parts
        self.admin = admin
        self.http = self.client(admin)
        self._clients = [self.http]

    def client(self, token: str | None) -> httpx.AsyncClient:
        """A client that shows this token, or none."""
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=120)

    async def token(self, *scopes: str, environment: str | None = "production") -> str:
        """A token's text, made through the API."""
        body = {"name": "-".join(scopes).replace(":", "."), "scopes": scopes, "environment": environment, "reason": "test"}
        return str((await self.ok("POST", "/v1/tokens", body))["token"])

    async def ok(self, method: str, path: str, body: object = None, **params: Any) -> Any:
        """The decoded answer, which must be a success."""
        answer = await self.http.request(method, path, json=body, params=params or None)
        assert answer.status_code < 300, answer.text
        return answer.json()

    async def put_flag(self, key: str, environment: str = "production", **fields: Any) -> None:
        """A boolean flag that is on for everyone."""
        flag = {"key": key, "definition": definition(), **fields}
        await self.ok("PUT", f"/v1/environments/{environment}/flags/{key}", {"flag": flag, "reason": "test"})

    async def kill(self, key: str, **fields: Any) -> Any:
        """Kill a flag of production."""
        return await self.ok("POST", f"{P}/flags/{key}/kill", {"reason": "bad release", **fields})

    async def settled(self, killed: Any) -> Any:
        """The rollback of a kill, once it has settled."""
        found = await self.ok("GET", f"/v1/rollbacks/{killed['rollback_id']}", wait="settled", timeout_seconds=60)
        assert found["state"] == "settled", found
        return found

    async def evaluate(self, key: str, **context: Any) -> Any:
        """Remote evaluation of a flag of production."""
        answer = await self.http.post(
            f"/ofrep/v1/evaluate/flags/{key}", json={"context": context}, headers={"x-rescind-environment": "production"}
        )
        return answer.json()


def definition(targeting: dict[str, Any] | None = None) -> dict[str, Any]:
    """A boolean flag object of flagd."""
    return {
        "state": "ENABLED",
        "variants": {"on": True, "off": False},
        "defaultVariant": "on",
        **({"targeting": targeting} if targeting else {}),
    }


async def admin_token(database_url: str) -> str:
    """Make the environments and an admin token, as an operator would at first."""
    pg = await Postgres.open(database_url, application_name="tests", size_max=1)
    try:
        async with pg.transaction() as connection:
            for environment in ENVIRONMENTS:
                await store.create_environment(connection, environment)
            text, _ = await tokens.create(connection, "admin", None, ["admin"], "tests")
            return text
    finally:
        await pg.close()


@asynccontextmanager
async def serving(database_url: str, redis_url: str, **settings: Any) -> AsyncIterator[Served]:
    """A server that answers, stopped at the end."""
    listening = bind("127.0.0.1", 0)
    admin = await admin_token(database_url)
    parts = await Parts.open(Settings(database_url=database_url, redis_url=redis_url, log_level="warning", **settings))
    server = Running(build(parts), parts.end_streams)
    running = asyncio.ensure_future(server.serve(sockets=[listening]))
    try:
        await server.ready.wait()
        served = Served(f"http://127.0.0.1:{listening.getsockname()[1]}", parts, admin)
        async with served.http:
            yield served
    finally:
        server.should_exit = True
        await running
        await parts.close()

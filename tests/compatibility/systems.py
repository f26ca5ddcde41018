"""Servers and services of a chosen version as real processes, and what people do with them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from tests.children import die_with_parent
from tests.compatibility.releases import Version
from tests.conftest import run_on, with_database
from tests.server.processes import Process, environment

FLAG = "checkout.new-flow"
PROGRAM = Path(__file__).with_name("service.py")
TOKEN = """
import asyncio, sys
from runtime import tokens
from runtime.postgres import connect
async def main():
    connection = await connect(sys.argv[1], application_name="tests")
    print((await tokens.create(connection, "tests", None, ["admin"], "tests"))[0])
    await connection.close()
asyncio.run(main())
"""
_numbers = itertools.count(1)


def run(version: Version, *command: str) -> str:
    """What a command of this version says; it must end well."""
    done = subprocess.run(command, cwd=version.root, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def migrate(version: Version, database_url: str, *arguments: str) -> str:
    """`rescind migrate` of this version."""
    return run(version, *version.cli, "migrate", "--database-url", database_url, *arguments)


def admin_token(version: Version, database_url: str) -> str:
    """A token for everything, made by this version's own code."""
    return run(version, version.python, "-c", TOKEN, database_url).strip()


@contextlib.contextmanager
def database_of(version: Version, server_url: str) -> Any:
    """The URL of a new database with this version's schema."""
    name = f"compat_{os.getpid()}_{next(_numbers)}"
    asyncio.run(run_on(server_url, f"CREATE DATABASE {name}"))
    url = with_database(server_url, name)
    migrate(version, url)
    yield url
    asyncio.run(run_on(server_url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))


class Server:
    """One `rescind serve` of a version."""

    def __init__(self, version: Version, database_url: str, redis_url: str, token: str) -> None:
        self.version = version
        self.token = token
        self.redis_url = redis_url
        variables = {
            "RESCIND_DATABASE_URL": database_url,
            "RESCIND_REDIS_URL": redis_url,
            "RESCIND_LOG_LEVEL": "warning",
            "RESCIND_SYNC_PORT": "0",
            "RESCIND_EVALUATION_PORT": "0",
        }
        arguments = ["serve", "--roles", "flags,sagas", "--http-port", "0"]
        self.process = Process(arguments, cwd=version.root, variables=variables, cli=version.cli)
        self.url = ""

    def wait_ready(self) -> Server:
        self.url = self.process.wait_ready()
        return self

    def end(self, number: int = signal.SIGKILL) -> int:
        return self.process.end(number)


class Site:
    """An environment of this test's own, seen through one server."""

    def __init__(self, server: Server, environment: str | None = None) -> None:
        self.server = server
        self.environment = environment or f"compat-{os.getpid()}-{next(_numbers)}"
        self.within = f"/v1/environments/{self.environment}"
        headers = {"authorization": f"Bearer {server.token}", "x-rescind-environment": self.environment}
        self.http = httpx.AsyncClient(base_url=server.url, headers=headers, timeout=120)

    async def ok(self, method: str, path: str, body: object = None, **params: Any) -> Any:
        """The decoded answer, which must be a success."""
        answer = await self.http.request(method, path, json=body, params=params or None)
        assert answer.status_code < 300, f"{self.server.version.name}: {answer.text}"
        return answer.json() if answer.content else None

    async def create(self) -> Site:
        """Make the environment, with one flag that is on in Norway."""
        await self.ok("PUT", f"/v1/environments/{self.environment}", {"reason": "test"})
        await self.put("off", {"if": [{"==": [{"var": "country"}, "NO"]}, "on"]})
        return self

    async def put(self, default: str = "on", targeting: dict[str, Any] | None = None) -> None:
        """Write the flag."""
        definition = {
            "state": "ENABLED",
            "variants": {"on": True, "off": False},
            "defaultVariant": default,
            "targeting": targeting or {},
        }
        flag = {"key": FLAG, "definition": definition, "services": ["checkout"]}
        await self.ok("PUT", f"{self.within}/flags/{FLAG}", {"flag": flag, "reason": "test"})

    async def kill(self, **more: Any) -> dict[str, Any]:
        """Kill the flag; the answer."""
        answer: dict[str, Any] = await self.ok("POST", f"{self.within}/flags/{FLAG}/kill", {"reason": "bad", **more})
        return answer

    async def lift(self, kill_count: int = 1) -> None:
        """Bring the flag back."""
        body = {"reason": "mended", "kill_count": kill_count, "force": True}
        await self.ok("POST", f"{self.within}/flags/{FLAG}/lift", body)

    async def value(self, **context: Any) -> object:
        """The server's own answer for a context (OFREP)."""
        answer = await self.http.post(f"/ofrep/v1/evaluate/flags/{FLAG}", json={"context": context})
        return answer.json().get("value")

    async def effects(self) -> dict[str, dict[str, Any]]:
        """The ledger, by key."""
        found = await self.ok("GET", f"{self.within}/effects", flag=FLAG)
        return {effect["key"]: effect for effect in found["effects"]}

    async def admit(self, *keys: str, kind: str = "payment.capture", **more: Any) -> list[dict[str, Any]]:
        """Ask for effects, as an SDK does that was served `on`."""
        one = {"kind": kind, "flag": FLAG, "payload": {"amount_cents": 1}, "variant": "on", **more}
        body = {"effects": [{"key": key, **one} for key in keys]}
        results: list[dict[str, Any]] = (await self.ok("POST", f"{self.within}/effects:admit", body))["results"]
        return results

    async def succeed(self, *admitted: dict[str, Any]) -> None:
        """Report that these were done."""
        reports = [
            {"effect_id": one["effect_id"], "token": one["token"], "outcome": "succeeded", "result": {"id": one["effect_id"]}}
            for one in admitted
        ]
        answer = await self.ok("POST", f"{self.within}/effects:report", {"reports": reports})
        assert {result["outcome"] for result in answer["results"]} == {"recorded"}

    async def rollback(self, killed: dict[str, Any], state: str) -> dict[str, Any]:
        """The rollback of a kill, once it has reached `state`."""
        path = f"/v1/rollbacks/{killed['rollback_id']}"
        record: dict[str, Any] = await self.ok("GET", path, wait=state, timeout_seconds=60)
        return record


class Service:
    """A service on the SDK of a version; `await service.ask("evaluate", context={})` runs a line of service.py."""

    def __init__(self, version: Version, site: Site, state_dir: Path, url: str | None = None) -> None:
        self.version = version
        options = {
            "url": url or site.server.url,
            "token": site.server.token,
            "environment": site.environment,
            "service": "checkout",
            "state_dir": str(state_dir),
        }
        self._process = subprocess.Popen(
            [version.python, str(PROGRAM), json.dumps(options)], cwd=version.root, env=environment(),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent,
        )  # fmt: skip

    async def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        return await asyncio.to_thread(self._ask, {"do": do, **arguments})

    async def value(self, **context: Any) -> object:
        return (await self.ask("evaluate", context=context))["value"]

    async def outcome(self, key: str, **how: Any) -> str:
        return str((await self.ask("effect", key=key, **how))["outcome"])

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def _ask(self, line: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@contextlib.asynccontextmanager
async def service_of(version: Version, site: Site, state_dir: Path, url: str | None = None) -> AsyncIterator[Service]:
    """A service that is ready, and that does run the SDK of this version."""
    service = Service(version, site, state_dir, url)
    try:
        said = await service.ask("ready")
        assert said["ready"] is True
        assert Path(said["file"]).is_relative_to(version.root)
        yield service
    finally:
        await asyncio.to_thread(service.end)

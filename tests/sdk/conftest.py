"""A real server process on real PostgreSQL and Valkey for the SDK's tests; each test has an environment of its own."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rescind
from rescind.transport import Api

from runtime import tokens
from runtime.embedded import EmbeddedPostgres, EmbeddedValkey
from runtime.postgres import connect
from tests.children import die_with_parent
from tests.conftest import run_on, with_database

FLAG = "checkout.new-flow"
READY = "rescind serve is ready: "
_numbers = itertools.count(1)


class Server:
    """One `rescind serve`, which can be stopped, killed and started again at the same port."""

    def __init__(self, database_url: str, redis_url: str, folder: Path) -> None:
        self._variables = {
            **os.environ,
            "RESCIND_DATABASE_URL": database_url,
            "RESCIND_REDIS_URL": redis_url,
            "RESCIND_STATE_DIR": str(folder),
        }
        self._port = 0
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        command = "from rescind.cli.main import main; main()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", command, "serve", "--http-port", str(self._port)],
            env=self._variables,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith(READY):
            self.kill()
            pytest.fail(f"the server did not start: {line!r}")
        self.url = line.removeprefix(READY).strip()
        self._port = int(self.url.rpartition(":")[2])

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """End it at once, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


class Site:
    """An environment on a server, and what people do there."""

    def __init__(self, server: Server, token: str, environment: str, state_dir: Path) -> None:
        self.server = server
        self.token = token
        self.environment = environment
        self.state_dir = state_dir
        self.api = Api(server.url, token, environment)

    @property
    def options(self) -> dict[str, Any]:
        """What a client of this environment is made with."""
        return {
            "url": self.server.url,
            "token": self.token,
            "environment": self.environment,
            "service": "checkout",
            "state_dir": self.state_dir,
        }

    def put(self, key: str = FLAG, **more: Any) -> None:
        """A boolean flag that is on."""
        definition = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on"}
        flag = {"key": key, "definition": definition, **more}
        self.api.request("PUT", self.api.within(f"/flags/{key}"), json={"flag": flag, "reason": "test"})

    def kill(self, key: str = FLAG, **more: Any) -> dict[str, Any]:
        """Kill it; the answer."""
        answer = self.api.request("POST", self.api.within(f"/flags/{key}/kill"), json={"reason": "test", **more})
        assert isinstance(answer, dict)
        return answer

    def lift(self, key: str = FLAG, kill_count: int = 1) -> None:
        """Bring it back."""
        body = {"reason": "test", "kill_count": kill_count, "force": True}
        self.api.request("POST", self.api.within(f"/flags/{key}/lift"), json=body)

    def effects(self, key: str = FLAG) -> list[dict[str, Any]]:
        """The ledger of a flag."""
        found = self.api.request("GET", self.api.within("/effects"), params={"flag": key})["effects"]
        assert isinstance(found, list)
        return found

    def statuses(self, key: str = FLAG) -> list[str]:
        """What has become of its effects, oldest first."""
        return [effect["status"] for effect in sorted(self.effects(key), key=lambda effect: str(effect["id"]))]


@pytest.fixture(scope="session")
def sdk_database(postgres_server: EmbeddedPostgres, migrated_template: str) -> str:
    """A database for the servers of this folder."""
    name = f"sdk_{os.getpid()}"
    asyncio.run(run_on(postgres_server.url, f"CREATE DATABASE {name} TEMPLATE {migrated_template}"))
    return with_database(postgres_server.url, name)


@pytest.fixture(scope="session")
def admin_token(sdk_database: str) -> str:
    """A token for everything."""

    async def create() -> str:
        connection = await connect(sdk_database, application_name="tests")
        try:
            token, _ = await tokens.create(connection, "tests", None, ["admin"], "tests")
            return token
        finally:
            await connection.close()

    return asyncio.run(create())


@pytest.fixture(scope="session")
def server(
    sdk_database: str, admin_token: str, valkey_server: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server that stays up."""
    one = Server(sdk_database, valkey_server.url, tmp_path_factory.mktemp("server"))
    one.start()
    yield one
    one.kill()


@pytest.fixture
def mortal(sdk_database: str, admin_token: str, valkey_server: EmbeddedValkey, tmp_path: Path) -> Iterator[Server]:
    """A server of this test's own, to be killed."""
    one = Server(sdk_database, valkey_server.url, tmp_path / "server")
    one.start()
    yield one
    one.kill()


@pytest.fixture
def new_site(admin_token: str, tmp_path: Path) -> Iterator[Callable[[Server], Site]]:
    """Make an environment with one flag that is on."""
    sites: list[Site] = []

    def make(server: Server) -> Site:
        site = Site(server, admin_token, f"test-{os.getpid()}-{next(_numbers)}", tmp_path / "state")
        site.api.request("PUT", f"/v1/environments/{site.environment}", json={"reason": "test"})
        site.put()
        sites.append(site)
        return site

    yield make
    for site in sites:
        site.api.close()


@pytest.fixture
def site(server: Server, new_site: Callable[[Server], Site]) -> Site:
    """An environment on the server that stays up."""
    return new_site(server)


@pytest.fixture
def fragile(mortal: Server, new_site: Callable[[Server], Site]) -> Site:
    """An environment on the server that may be killed."""
    return new_site(mortal)


def capture(client: rescind.AsyncClient | rescind.Client, key: str, **more: Any) -> Any:
    """An effect of this test's flag."""
    return client.effect("payment.capture", flag=FLAG, key=key, payload={"amount_cents": 1299}, **more)

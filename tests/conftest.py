"""Real servers for every test: one PostgreSQL and one Valkey per worker process, a database per test from a migrated template.

`fsync` is off here; tests that speak of durability start a server of their own.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import hypothesis
import pytest
from redis.asyncio import Redis as RedisClient

from runtime.clock import Clock, Entropy
from runtime.embedded import EmbeddedPostgres, EmbeddedValkey
from runtime.migrations import migrate
from runtime.postgres import Connection, Postgres, connect

ROOT = Path(__file__).resolve().parent.parent
ROOMS = [room for name in ("runtime", "flagd", "sagas", "server/rollbacks") if (room := ROOT / name / "migrations").is_dir()]
TEMPLATE = "template_rescind"
# Before grpc is imported: tests start processes while it runs here, and its handlers of fork() can hang the child.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
_numbers = itertools.count(1)

# The same examples in every run, so that a change is judged by what it changed; RESCIND_TEST_LONG=1 looks for new ones.
hypothesis.settings.register_profile("steady", derandomize=True, deadline=None)
hypothesis.settings.register_profile("long", max_examples=2_000, deadline=None)
hypothesis.settings.load_profile("long" if os.environ.get("RESCIND_TEST_LONG") == "1" else "steady")


WORKERS_MAX = 4
"""Each worker brings a PostgreSQL and a Valkey of its own, and tests start processes beside them."""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """The whole suite is shared by a few processes; named files run in this one."""
    is_whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return min(os.cpu_count() or 1, WORKERS_MAX) if is_whole else 0


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    """What a file's tests left to the garbage collector is found in that file, and not by chance in a later one."""
    yield
    gc.collect()


def with_database(url: str, name: str) -> str:
    """Return the URL of another database of the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


async def run_on(url: str, *statements: str) -> None:
    """Run statements outside any transaction."""
    connection: Connection = await connect(url, application_name="tests")
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """This worker's PostgreSQL."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), fsync=False) as server:
        yield server


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """This worker's Valkey."""
    with EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="session")
def migrated_template(postgres_server: EmbeddedPostgres) -> str:
    """The name of a database with every room's migrations, to copy from."""

    async def build() -> None:
        await run_on(postgres_server.url, f"CREATE DATABASE {TEMPLATE}")
        template = with_database(postgres_server.url, TEMPLATE)
        await migrate(template, ROOMS)
        await run_on(template, "VACUUM ANALYZE")

    asyncio.run(build())
    return TEMPLATE


@pytest.fixture
async def empty_database_url(postgres_server: EmbeddedPostgres) -> AsyncIterator[str]:
    """The URL of a database of this test's own with nothing in it."""
    async for url in _database(postgres_server, "template0"):
        yield url


@pytest.fixture
async def database_url(postgres_server: EmbeddedPostgres, migrated_template: str) -> AsyncIterator[str]:
    """The URL of a migrated database of this test's own."""
    async for url in _database(postgres_server, migrated_template):
        yield url


async def _database(server: EmbeddedPostgres, template: str) -> AsyncIterator[str]:
    name = f"test_{next(_numbers)}"
    await run_on(server.url, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield with_database(server.url, name)
    await run_on(server.url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
async def pg(database_url: str) -> AsyncIterator[Postgres]:
    """A pool on this test's database."""
    postgres = await Postgres.open(database_url, application_name=f"tests {uuid.uuid4()}", size_max=10, wait_seconds=10)
    yield postgres
    await postgres.close()


@pytest.fixture
async def redis_url(valkey_server: EmbeddedValkey) -> str:
    """The URL of this worker's Valkey, emptied."""
    client: RedisClient = RedisClient.from_url(valkey_server.url)
    await client.flushall()
    await client.aclose()
    return valkey_server.url


@pytest.fixture
def clock() -> Clock:
    """The real clock; a test that needs another subclasses it."""
    return Clock()


@pytest.fixture
def entropy() -> Entropy:
    """Real chance; a test that needs another subclasses it."""
    return Entropy()

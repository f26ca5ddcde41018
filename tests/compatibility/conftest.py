"""The last release and today's tree, each with servers and services of its own (P21)."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from runtime.embedded import EmbeddedPostgres, EmbeddedValkey
from tests.compatibility.releases import TODAY, Version, check_out, give_back, releases
from tests.compatibility.systems import Server, Service, Site, admin_token, database_of, service_of

StartService = Callable[..., Awaitable[Service]]


@pytest.fixture(scope="session")
def last_release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Version]:
    """The last release, in a worktree of its commit and an environment of its own: made once per run."""
    version = check_out(releases()[-1], tmp_path_factory.mktemp("release"))
    yield version
    give_back(version)


@pytest.fixture(scope="module")
def old_server(last_release: Version, postgres_server: EmbeddedPostgres, valkey_server: EmbeddedValkey) -> Iterator[Server]:
    """A server of the last release on a database of its own schema."""
    yield from serving(last_release, postgres_server, valkey_server)


@pytest.fixture(scope="module")
def new_server(postgres_server: EmbeddedPostgres, valkey_server: EmbeddedValkey) -> Iterator[Server]:
    """A server of today on a database of today's schema."""
    yield from serving(TODAY, postgres_server, valkey_server)


def serving(version: Version, postgres_server: EmbeddedPostgres, valkey_server: EmbeddedValkey) -> Iterator[Server]:
    with database_of(version, postgres_server.url) as url:
        server = Server(version, url, valkey_server.url, admin_token(version, url))
        try:
            yield server.wait_ready()
        finally:
            server.end()


@pytest.fixture
async def start_service(tmp_path: Path) -> AsyncIterator[StartService]:
    """Start a service of a version at a site, by another address where one is given; ended with the test."""
    async with AsyncExitStack() as stack:
        places = (tmp_path / f"state-{number}" for number in itertools.count(1))

        async def start(version: Version, site: Site, url: str | None = None) -> Service:
            return await stack.enter_async_context(service_of(version, site, next(places), url))

        yield start

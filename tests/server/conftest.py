"""The server of a test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtime.embedded import EmbeddedPostgres, EmbeddedValkey
from runtime.migrations import migrate
from server.migrations import ROOMS
from tests.server.serving import Served, serving


@pytest.fixture
async def served(database_url: str, redis_url: str) -> AsyncIterator[Served]:
    """A whole server on a database of its own."""
    async with serving(database_url, redis_url) as one:
        yield one


class Stoppable:
    """A server on servers of its own, which a test may stop."""

    def __init__(self, postgres: EmbeddedPostgres, valkey: EmbeddedValkey, served: Served) -> None:
        self.postgres = postgres
        self.valkey = valkey
        self.served = served


@pytest.fixture
async def stoppable(tmp_path: Path) -> AsyncIterator[Stoppable]:
    """A server whose PostgreSQL and Valkey may be stopped and started."""
    with EmbeddedPostgres(tmp_path / "postgres", fsync=False) as postgres, EmbeddedValkey(tmp_path / "valkey") as valkey:
        await migrate(postgres.url, ROOMS)
        async with serving(postgres.url, valkey.url) as served:
            yield Stoppable(postgres, valkey, served)

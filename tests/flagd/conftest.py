"""Fixtures of this wing's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from runtime.postgres import Postgres
from tests.flagd.world import PRODUCTION, World, served, started
from tests.node import node_modules

__all__ = ["admin", "client", "node_modules", "other", "world"]


@pytest.fixture
async def world(pg: Postgres, redis_url: str) -> AsyncIterator[World]:
    """A process of the wing with an empty environment `production`."""
    async with started(pg, redis_url) as world:
        await world.service.create_environment(PRODUCTION, actor="test")
        yield world


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """A client of that process over HTTP."""
    async with served(world) as client:
        yield client


@pytest.fixture
async def admin(world: World, client: httpx.AsyncClient) -> httpx.AsyncClient:
    """The client with an admin's token."""
    client.headers["authorization"] = f"Bearer {await world.token('admin', environment=None)}"
    return client


@pytest.fixture
async def other(world: World, pg: Postgres, redis_url: str) -> AsyncIterator[World]:
    """A second process on the same servers."""
    async with started(pg, redis_url) as other:
        await other.replicas.get(PRODUCTION)
        yield other

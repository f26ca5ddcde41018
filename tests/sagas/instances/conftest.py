"""A world per test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from runtime.postgres import Postgres
from tests.sagas.instances.world import Server, World


@pytest.fixture
async def world(pg: Postgres) -> AsyncIterator[World]:
    """An environment without definitions yet."""
    world = World(pg)
    await world.start()
    yield world
    await world.stop()


@pytest.fixture
async def server(world: World) -> Server:
    """One server."""
    return await world.server()

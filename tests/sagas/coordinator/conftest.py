"""A world per test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from runtime.postgres import Postgres
from tests.sagas.coordinator.world import World


@pytest.fixture
async def world(pg: Postgres) -> AsyncIterator[World]:
    """An environment with connections to running servers, and no definitions yet."""
    world = World(pg)
    await world.start()
    yield world
    await world.stop()

"""The ledger's world, on a database of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from runtime.postgres import Postgres
from tests.sagas.ledger.world import World


@pytest.fixture
async def world(pg: Postgres) -> AsyncIterator[World]:
    """An environment with two flags and a running ledger."""
    opened = await World.open(pg)
    yield opened
    await opened.close()

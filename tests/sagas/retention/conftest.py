"""A ledger and a world of instances, both a hundred days back, and their history."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from runtime.clock import Clock
from runtime.postgres import Postgres
from sagas.ledger import Ledger
from tests.sagas.instances.world import Server
from tests.sagas.instances.world import World as Instances
from tests.sagas.ledger.world import World
from tests.sagas.retention.world import History, LongAgo


@pytest.fixture
async def world(pg: Postgres) -> AsyncIterator[World]:
    """An environment with two flags and a running ledger."""
    opened = World(pg, Ledger(pg, Clock(), LongAgo()))
    await opened.prepare()
    yield opened
    await opened.close()


@pytest.fixture
async def shop(pg: Postgres) -> AsyncIterator[Instances]:
    """An environment with the saga `order`."""
    shop = Instances(pg)
    shop.entropy = LongAgo()
    await shop.start()
    await shop.plan()
    yield shop
    await shop.stop()


@pytest.fixture
async def server(shop: Instances) -> Server:
    """One server of it."""
    return await shop.server()


@pytest.fixture
def history(pg: Postgres, request: pytest.FixtureRequest) -> History:
    """What is on record; where a server runs, it is that one's to sweep."""
    server = request.getfixturevalue("server") if "server" in request.fixturenames else None
    return History(pg, leases=server.coordinator.leases if server else None)

"""Fixtures of the gRPC side."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.flagd.grpc.serving import Client, served
from tests.flagd.world import World


@pytest.fixture
async def clients(world: World) -> AsyncIterator[Client]:
    """Stubs of every service, on listeners of their own on loopback."""
    async with served(world) as clients:
        yield clients

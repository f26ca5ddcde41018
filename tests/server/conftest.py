"""The server of a test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.server.serving import Served, serving


@pytest.fixture
async def served(database_url: str, redis_url: str) -> AsyncIterator[Served]:
    """A whole server on a database of its own."""
    async with serving(database_url, redis_url) as one:
        yield one

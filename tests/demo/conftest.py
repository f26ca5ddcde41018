"""One server of the demo's world per test that asks for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from demo.processes import Children
from tests.demo.world import start


@pytest_asyncio.fixture
async def children(tmp_path: Path) -> AsyncIterator[Children]:
    """Processes that end with the test."""
    async with Children(tmp_path) as started:
        yield started


@pytest_asyncio.fixture
async def payments_url(children: Children) -> str:
    """A payment server of its own."""
    return f"http://127.0.0.1:{(await start(children, 'payments'))['http']}"


@pytest_asyncio.fixture
async def partner_url(children: Children) -> str:
    """A partner of its own."""
    return f"http://127.0.0.1:{(await start(children, 'partner'))['http']}"


@pytest_asyncio.fixture
async def mail_ports(children: Children) -> dict[str, int]:
    """A mail server of its own: `smtp` and `http`."""
    return await start(children, "mail")

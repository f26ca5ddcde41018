"""Every query of the roof is prepared against the migrated schema."""

from __future__ import annotations

import pytest

from runtime.postgres import Postgres
from runtime.queries import all_queries

QUERIES = list(all_queries(["server", "server.rollbacks"]))


@pytest.mark.parametrize(("origin", "name", "text"), QUERIES, ids=[f"{origin}:{name}" for origin, name, _ in QUERIES])
async def test_a_query_is_valid(pg: Postgres, origin: str, name: str, text: str) -> None:
    async with pg.connection() as connection:
        await connection.prepare(text)

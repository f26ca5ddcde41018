"""Every query of the coordinator is valid against the migrated schema."""

from __future__ import annotations

import pytest

from runtime.postgres import Postgres
from runtime.queries import Queries

FILES = (
    "leases",
    "coordinator",
    "enumeration",
    "dispatch",
    "settlement",
    "decisions",
    "tasks",
    "instances",
    "paces",
    "breakers",
    "search",
    "operations",
    "look_ups",
    "lines",
    "sealing",
)


@pytest.mark.parametrize("file", FILES)
async def test_every_query_prepares_against_the_migrated_schema(pg: Postgres, file: str) -> None:
    faults = []
    async with pg.connection() as connection:
        for name, text in Queries.load("sagas", file).items():
            try:
                await connection.prepare(text)
            except Exception as error:
                faults.append(f"{name}: {error}")
    assert faults == []

"""Every query of the loop is prepared, against the schema and what watches it."""

from __future__ import annotations

from load.chaos.reading import QUERIES, read, watch
from runtime.postgres import Postgres


async def test_every_query_is_prepared(pg: Postgres) -> None:
    async with pg.connection() as connection:
        await watch(connection)
        for query in QUERIES.values():
            await connection.prepare(query)
        assert (await read(connection)).left == {"ready": 0, "moving": 0, "waits": 0, "subjects": 0}

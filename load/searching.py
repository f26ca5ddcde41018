"""Searches and the preview of a bulk operation among a million instances, on an embedded PostgreSQL.

    ./run python -m load.searching [--instances 1000000] [--repeats 20]

Nearly all are done; a hundred of each other kind lie among the oldest. Prints how long one page of each search takes, warm, and
what an instance's indexes weigh. Issue 5, "Operating".
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from runtime.clock import Clock
from runtime.embedded import EmbeddedPostgres
from runtime.migrations import migrate
from runtime.postgres import Postgres
from runtime.queries import parse
from sagas.instances import search
from sagas.instances.operations import Asked, Operations
from sagas.instances.search import Filter
from server.migrations import ROOMS

QUERIES = parse((Path(__file__).parent / "sql" / "searching.sql").read_text(), "load/sql/searching.sql")

OLD = Clock().now()


def searches(count: int) -> dict[str, Filter]:
    """What is asked for, by a name for the table."""
    return {
        "the latest": Filter(),
        "waiting": Filter(status="waiting"),
        "running": Filter(status="running"),
        "paused (none)": Filter(paused=True),
        "error class": Filter(error="CardRefused"),
        "subject": Filter(subject="customer-7"),
        "attribute": Filter(attributes={"shop": 7}),
        "version (none of it)": Filter(version="3"),
        "flag (none of it)": Filter(flag="another"),
        "the oldest": Filter(started_before=OLD - timedelta(seconds=count - 1_000)),
        "done, another subject": Filter(status="done", subject="customer-70"),
    }


async def timed(pg: Postgres, wanted: Filter, repeats: int) -> tuple[int, float]:
    """How many one page has, and the median of its times in milliseconds."""
    took = []
    for _ in range(repeats):
        async with pg.transaction() as connection:
            begun = time.perf_counter()
            page = await search.page(connection, "load", None, wanted, below=None, limit=100)
            took.append((time.perf_counter() - begun) * 1000)
    return len(page.rows), statistics.median(took)


async def run(count: int, repeats: int) -> None:
    """Fill a database, search, print."""
    with tempfile.TemporaryDirectory() as place, EmbeddedPostgres(Path(place), fsync=False) as server:
        await migrate(server.url, ROOMS)
        pg = await Postgres.open(server.url, application_name="load")
        connection = await pg.dedicated()
        for name in ("definition", "crowd", "strays", "waits", "analyze"):
            await connection.execute(QUERIES[name], *([count] if name == "crowd" else []))
        table = Table("search", "found", "ms (median)", title=f"{count} instances, a page of 100")
        for name, wanted in searches(count).items():
            found, took = await timed(pg, wanted, repeats)
            table.add_row(name, str(found), f"{took:.1f}")
        for name, wanted in (("preview, exact", Filter(status="waiting")), ("preview, estimated", Filter())):
            begun = time.perf_counter()
            told = await Operations(pg).preview("load", Asked(verb="pause", reason="load", filter=wanted))
            table.add_row(name, str(told.estimated), f"{(time.perf_counter() - begun) * 1000:.1f}")
        Console().print(table)
        for row in await connection.fetch(QUERIES["weight"], count):
            Console().print(f"{row['name']}: {row['bytes']} bytes an instance")
        await connection.close()
        await pg.close()


def main() -> None:
    """Read the options."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--instances", type=int, default=1_000_000)
    options.add_argument("--repeats", type=int, default=20)
    given = options.parse_args()
    asyncio.run(run(given.instances, given.repeats))


if __name__ == "__main__":
    main()

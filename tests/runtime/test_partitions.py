"""The audit log by months: made ahead and dropped without keeping entries waiting; what no partition awaits is kept (P20)."""

from __future__ import annotations

import asyncpg
import pytest

from runtime import audit
from runtime.migrations import migrate
from runtime.partitions import MONTHS_AHEAD, AuditPartitions
from runtime.postgres import Postgres, connect
from server.migrations import ROOMS

NAMES = "SELECT array_agg(name::text ORDER BY upper) FROM runtime.audit_partitions"
ENTRY = (
    "INSERT INTO runtime.audit (id, actor, action, object) VALUES (uuidv7(make_interval(months => $1)), 'alex', 'flag.put', $2)"
)
PLACE = "SELECT tableoid::regclass::text FROM runtime.audit WHERE object = $1"
OLD = """
DO $$ BEGIN
    EXECUTE format('CREATE TABLE runtime.audit_old PARTITION OF runtime.audit FOR VALUES FROM (%L) TO (%L)',
        runtime.id_at(runtime.month_of(clock_timestamp(), -14)), runtime.id_at(runtime.month_of(clock_timestamp(), -13)));
END $$
"""


async def names(pg: Postgres) -> list[str]:
    """The bounded partitions, the oldest first."""
    async with pg.connection() as connection:
        return list(await connection.fetchval(NAMES))


async def aged(pg: Postgres) -> None:
    """A log whose first partition ended long ago: as if it had been partitioned fourteen months back."""
    async with pg.connection() as connection:
        await connection.execute("ALTER TABLE runtime.audit DETACH PARTITION runtime.audit_first")
        await connection.execute("DROP TABLE runtime.audit_first")
        await connection.execute(OLD)
        await connection.execute(ENTRY, -14, "old")


async def test_partitions_are_made_ahead_once(pg: Postgres) -> None:
    assert await names(pg) == ["audit_first"]
    for _ in range(2):
        await AuditPartitions(pg, None).tend()
        assert len(await names(pg)) == 1 + MONTHS_AHEAD - 2
    async with pg.connection() as connection:
        for months in (0, 2):
            await connection.execute(ENTRY, months, f"in {months}")
        assert await connection.fetchval(PLACE, "in 0") == "runtime.audit_first"
        assert (await connection.fetchval(PLACE, "in 2")).startswith("runtime.audit_2")
        with pytest.raises(asyncpg.RaiseError, match="append-only"):
            await connection.execute(f"DELETE FROM {await connection.fetchval(PLACE, 'in 2')}")


async def test_what_no_partition_awaits_is_kept_all_the_same(pg: Postgres) -> None:
    async with pg.connection() as connection:
        await connection.execute(ENTRY, 40, "far")
        assert await connection.fetchval(PLACE, "far") == "runtime.audit_rest"
        with pytest.raises(asyncpg.RaiseError, match="append-only"):
            await connection.execute("TRUNCATE runtime.audit_rest")
    await AuditPartitions(pg, None).tend()


async def test_a_month_goes_when_all_of_it_is_older_than_is_kept(pg: Postgres) -> None:
    await aged(pg)
    await AuditPartitions(pg, 500).tend()
    assert "audit_old" in await names(pg)
    await AuditPartitions(pg, 380).tend()
    assert "audit_old" not in await names(pg)
    async with pg.connection() as connection:
        assert await connection.fetchval(PLACE, "old") is None


async def test_a_log_in_use_is_not_waited_for_and_is_tended_to_later(pg: Postgres) -> None:
    await aged(pg)
    await AuditPartitions(pg, None).tend()
    tending = AuditPartitions(pg, 380)
    async with pg.transaction() as connection:
        await audit.append(connection, actor="alex", action="flag.put", environment=None, object="now")
        before = await names(pg)
        async with pg.transaction() as other:
            await other.execute("SET LOCAL lock_timeout = '200ms'")
            made = await other.fetchval("SELECT runtime.make_audit_partition_v1($1)", MONTHS_AHEAD + 1)
        assert await names(pg) == [*before, made], "one is made beside who writes"
        await tending.tend()
        assert "audit_old" in await names(pg), "and none is dropped, nor waited for"
    await tending.tend()
    assert "audit_old" not in await names(pg)


async def test_a_month_that_nobody_made_in_time_stays_in_the_rest(pg: Postgres) -> None:
    await aged(pg)
    async with pg.transaction() as connection:
        await audit.append(connection, actor="alex", action="flag.put", environment=None, object="now")
    await AuditPartitions(pg, None).tend()
    async with pg.connection() as connection:
        await connection.execute(ENTRY, 1, "next")
        assert await connection.fetchval(PLACE, "now") == "runtime.audit_rest"
        assert (await connection.fetchval(PLACE, "next")).startswith("runtime.audit_2")


async def test_a_log_that_was_there_before_becomes_the_first_partition(empty_database_url: str) -> None:  # P21
    early = [room for room in ROOMS if room.parent.name == "runtime"]
    connection = await connect(empty_database_url, application_name="tests")
    try:
        await connection.execute((early[0] / "0001_pre_ground.sql").read_text())
        await connection.execute(ENTRY, -30, "before")
        insert = await connection.prepare(ENTRY)
        node = await connection.fetchval("SELECT relfilenode FROM pg_class WHERE oid = 'runtime.audit'::regclass")
        await migrate(empty_database_url, early)
        assert await connection.fetchval(PLACE, "before") == "runtime.audit_first"
        kept = await connection.fetchval("SELECT relfilenode FROM pg_class WHERE oid = 'runtime.audit_first'::regclass")
        assert kept == node, "not one entry was written anew"
        await insert.fetch(0, "after")  # a server that runs on, with the statement it had prepared
        assert await connection.fetchval(PLACE, "after") == "runtime.audit_first"
    finally:
        await connection.close()

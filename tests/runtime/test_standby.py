"""A primary and its synchronous standby: who is connected to, and what counts as committed (hazard 6)."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from runtime.embedded import EmbeddedPostgres, EmbeddedStandby
from runtime.errors import OutcomeUnknown
from runtime.hosts import split_url
from runtime.postgres import Postgres, connect
from tests.failover import Pair, fail_over, paired
from tests.waiting import until


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with EmbeddedPostgres(tmp_path / "primary") as primary, EmbeddedStandby(tmp_path / "standby", primary) as standby:
        asyncio.run(paired(primary))
        yield Pair(primary, standby)


def test_a_url_of_several_hosts_asks_each_for_the_primary() -> None:
    assert split_url("postgresql://u:p@a:1,b:2/d?sslmode=require") == [
        "postgresql://u:p@a:1/d?target_session_attrs=primary&sslmode=require",
        "postgresql://u:p@b:2/d?target_session_attrs=primary&sslmode=require",
    ]
    assert split_url("postgresql://u:p@a,b/d?target_session_attrs=any")[1] == "postgresql://u:p@b/d?target_session_attrs=any"
    assert split_url("postgresql://u:p@a:1/d?x=y") == ["postgresql://u:p@a:1/d?x=y"]


async def test_a_pool_follows_a_promotion_and_has_what_was_committed(pair: Pair) -> None:
    pg = await Postgres.open(pair.url, application_name="tests", wait_seconds=10)
    async with pg.transaction() as connection:
        await connection.execute("CREATE TABLE t AS SELECT 1 AS n")
    await fail_over(pair)
    again = await Postgres.open(pair.url, application_name="tests", wait_seconds=30)
    for one in (pg, again):
        async with one.transaction() as connection:
            assert await connection.fetchval("SELECT n FROM t") == 1
            await connection.execute("INSERT INTO t VALUES (2)")
            await connection.execute("DELETE FROM t WHERE n = 2")
        await one.close()


async def test_a_host_that_says_nothing_does_not_keep_the_next_one_from_being_asked(pair: Pair) -> None:
    with socket.socket() as deaf:  # its kernel accepts, and nobody reads
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        port = deaf.getsockname()[1]
        connection = await connect(pair.primary.url.replace("@", f"@127.0.0.1:{port},"), application_name="tests")
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()


async def test_a_commit_that_the_standby_did_not_confirm_is_nothing_to_rely_on(pair: Pair) -> None:  # hazard 6
    pg = await Postgres.open(pair.url, application_name="tests")
    observer = await connect(pair.primary.url, application_name="observer")
    async with pg.transaction() as connection:
        await connection.execute("CREATE TABLE t (n integer)")
    pair.freeze()

    async def write(number: int) -> None:
        async with pg.transaction() as connection:
            await connection.execute("INSERT INTO t VALUES ($1)", number)

    async def pid_that_waits() -> int | None:
        return await observer.fetchval(
            "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = 'tests' LIMIT 1"
        )

    qualified = asyncio.create_task(write(1))
    pid = await until(pid_that_waits)
    assert not qualified.done()
    await observer.execute("SELECT pg_cancel_backend($1)", pid)
    with pytest.raises(OutcomeUnknown, match="COMMIT came with a warning"):
        await qualified
    abandoned = asyncio.create_task(write(2))
    await until(pid_that_waits)
    abandoned.cancel()
    with pytest.raises(asyncio.CancelledError):
        await abandoned
    pair.standby_process(signal.SIGCONT)
    await write(3)
    assert [row["n"] for row in await observer.fetch("SELECT n FROM t ORDER BY n")] == [1, 2, 3], "unknown is not undone"
    await observer.close()
    await pg.close()


async def test_a_standby_is_not_written_to(pair: Pair) -> None:
    connection = await connect(pair.standby.url, application_name="tests")
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await connection.execute("CREATE TABLE t ()")
    await connection.close()

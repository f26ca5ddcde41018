"""Connections, transactions, and what is said when the database is away."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import asyncpg
import pytest

from runtime.embedded import EmbeddedPostgres, free_port
from runtime.errors import OutcomeUnknown, Unavailable
from runtime.postgres import Postgres, connect, savepoint
from tests.waiting import until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A durable server of this test's own, to be stopped and misconfigured."""
    with EmbeddedPostgres(tmp_path / "pg") as server:
        yield server


async def test_json_travels_as_objects(pg):
    async with pg.connection() as connection:
        for kind in ("json", "jsonb"):
            value = {"a": [1, None, "ü"], "b": {}}
            assert await connection.fetchval(f"SELECT $1::{kind}", value) == value
            assert await connection.fetchval(f"SELECT '[1, \"x\"]'::{kind}") == [1, "x"]


async def test_a_release_costs_no_query(pg):
    observer = await pg.dedicated()
    async with pg.connection() as connection:
        pid = await connection.fetchval("SELECT pg_backend_pid()")
    assert await observer.fetchval("SELECT query FROM pg_stat_activity WHERE pid = $1", pid) == "SELECT pg_backend_pid()"
    await observer.close()


async def test_a_transaction_is_read_committed_whatever_the_default(pg, database_url):
    # hazard 10
    name = database_url.rpartition("/")[2]
    async with pg.connection() as connection:
        await connection.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
        await connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    hostile = await Postgres.open(database_url, application_name="tests", wait_seconds=5)
    async with hostile.connection() as connection:
        assert await connection.fetchval("SHOW transaction_isolation") == "repeatable read"
    async with hostile.transaction() as connection:
        assert await connection.fetchval("SHOW transaction_isolation") == "read committed"
        await connection.execute("CREATE TABLE t ()")
    await hostile.close()


async def test_an_exception_rolls_back_and_passes(pg):
    async def body() -> None:
        async with pg.transaction() as connection:
            await connection.execute("CREATE TABLE t ()")
            raise KeyError("x")

    with pytest.raises(KeyError):
        await body()
    async with pg.connection() as connection:
        assert await connection.fetchval("SELECT to_regclass('t')") is None


async def test_a_swallowed_error_is_never_taken_for_a_commit(pg):
    async def body() -> None:
        async with pg.transaction() as connection:
            await connection.execute("CREATE TABLE t ()")
            with pytest.raises(asyncpg.DivisionByZeroError):
                await connection.execute("SELECT 1 / 0")

    with pytest.raises(asyncpg.InFailedSQLTransactionError):
        await body()


async def test_a_savepoint_leaves_the_transaction_usable(pg):
    async with pg.transaction() as connection:
        await connection.execute("CREATE TABLE t (x integer)")
        with pytest.raises(asyncpg.DivisionByZeroError):
            async with savepoint(connection):
                await connection.execute("INSERT INTO t VALUES (1); SELECT 1 / 0")
        async with savepoint(connection):
            await connection.execute("INSERT INTO t VALUES (2)")
    async with pg.connection() as connection:
        assert await connection.fetchval("SELECT array_agg(x) FROM t") == [2]


async def test_a_cancelled_body_is_rolled_back_and_the_pool_stays_whole(pg):
    entered = asyncio.Event()

    async def body() -> None:
        async with pg.transaction() as connection:
            await connection.execute("CREATE TABLE t ()")
            entered.set()
            await connection.execute("SELECT pg_sleep(60)")

    task = asyncio.create_task(body())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with pg.connection() as connection:
        assert await connection.fetchval("SELECT to_regclass('t')") is None


async def test_a_deferred_constraint_is_its_own_error(pg):
    async with pg.connection() as connection:
        await connection.execute("CREATE TABLE t (x integer UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    with pytest.raises(asyncpg.UniqueViolationError):
        async with pg.transaction() as connection:
            await connection.execute("INSERT INTO t VALUES (1), (1)")


async def test_a_commit_with_a_warning_is_no_commit_we_vouch_for(server):
    # hazard 6: the wait for a synchronous standby is cancelled, the row stands here and perhaps nowhere else
    pg = await Postgres.open(server.url, application_name="tests", size_max=2)
    observer = await pg.dedicated()
    await observer.execute("CREATE TABLE t (x integer)")
    await observer.execute("ALTER SYSTEM SET synchronous_standby_names = 'nowhere'")
    await observer.execute("SELECT pg_reload_conf()")
    waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    await until(lambda: observer.fetchval("SELECT current_setting('synchronous_standby_names') <> ''"))

    async def write() -> None:
        async with pg.transaction() as connection:
            await connection.execute("INSERT INTO t VALUES (1)")

    for end in ("pg_cancel_backend", "pg_terminate_backend"):
        task = asyncio.create_task(write())
        pid = await until(lambda: observer.fetchval(waiting))
        await observer.fetchval(f"SELECT {end}($1)", pid)
        with pytest.raises(OutcomeUnknown):
            await task
        gone = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)"
        await until(partial(observer.fetchval, gone, pid))
    assert await observer.fetchval("SELECT count(*) FROM t") == 2  # both stand after all: unknown means unknown
    await observer.close()
    await pg.close()


async def test_a_cancelled_commit_drops_the_connection(server):
    # hazard 6
    pg = await Postgres.open(server.url, application_name="tests", size_max=2)
    observer = await pg.dedicated()
    await observer.execute("CREATE TABLE t (x integer)")
    await observer.execute("ALTER SYSTEM SET synchronous_standby_names = 'nowhere'")
    await observer.execute("SELECT pg_reload_conf()")
    await until(lambda: observer.fetchval("SELECT current_setting('synchronous_standby_names') <> ''"))

    async def write() -> None:
        async with pg.transaction() as connection:
            await connection.execute("INSERT INTO t VALUES (1)")

    task = asyncio.create_task(write())
    await until(lambda: observer.fetchval("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await observer.execute("ALTER SYSTEM RESET synchronous_standby_names")
    await observer.execute("SELECT pg_reload_conf()")
    async with pg.transaction() as connection:
        assert await connection.fetchval("SELECT 1") == 1
    await observer.close()
    await pg.close()


async def test_a_database_that_goes_away_is_unavailable_and_comes_back(server):
    pg = await Postgres.open(server.url, application_name="tests")

    async def lose_it() -> None:
        async with pg.connection() as connection:
            await asyncio.to_thread(server.stop)
            await connection.fetchval("SELECT 1")

    with pytest.raises(Unavailable):
        await lose_it()
    with pytest.raises(Unavailable):
        async with pg.transaction():
            raise AssertionError("nothing begins while it is away")
    with pytest.raises(Unavailable):
        await pg.dedicated()
    await asyncio.to_thread(server.start)
    async with pg.connection() as connection:
        assert await connection.fetchval("SELECT 1") == 1
    await pg.close()


async def test_errors_of_the_body_are_not_taken_for_the_databases(pg):
    with pytest.raises(FileNotFoundError):
        async with pg.connection():
            Path("/nonexistent").read_text()


async def test_start_up_waits_and_says_so(server, caplog):
    await asyncio.to_thread(server.stop)
    opening = asyncio.create_task(Postgres.open(server.url, application_name="tests", wait_seconds=30))
    await until(lambda: "waiting for PostgreSQL" in caplog.text)
    assert "password" not in caplog.text
    await asyncio.to_thread(server.start)
    pg = await opening
    await pg.close()


async def test_start_up_gives_up_in_the_end():
    url = f"postgresql://postgres@127.0.0.1:{free_port()}/postgres"
    with pytest.raises(Unavailable):
        await Postgres.open(url, application_name="tests", wait_seconds=0.2)


async def test_too_many_connections_is_unavailable(server):
    admin = await connect(server.url, application_name="tests")
    await admin.execute("CREATE ROLE one LOGIN PASSWORD 'one' CONNECTION LIMIT 1")
    url = f"postgresql://one:one@127.0.0.1:{server.port}/postgres"
    first = await connect(url, application_name="tests")
    with pytest.raises(Unavailable):
        await connect(url, application_name="tests")
    await first.close()
    await admin.close()


async def test_a_connection_that_has_heard_its_last_word_is_unavailable(server):
    # hazard 6: PostgreSQL has said that it ends the connection, and the line is not closed yet
    async with line_that_stays_open(server.port) as port:
        pg = await Postgres.open(server.url.replace(f":{server.port}/", f":{port}/"), application_name="cut", size_max=1)
        admin = await connect(server.url, application_name="tests")
        async with pg.connection() as connection:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
        await admin.fetchval("SELECT pg_terminate_backend($1, 5000)", pid)
        with pytest.raises(Unavailable):
            async with pg.transaction():
                raise AssertionError("nothing begins on it")
        async with pg.connection() as connection:
            assert await connection.fetchval("SELECT pg_backend_pid()") != pid
        await admin.close()
        await pg.close()


@contextlib.asynccontextmanager
async def line_that_stays_open(target: int) -> AsyncIterator[int]:
    """The port of a proxy that passes on all that is said, and never that the other side has closed."""
    lines: list[asyncio.Task[None]] = []
    ends: list[asyncio.StreamWriter] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", target)
        ends.extend((writer, back))
        lines.extend((asyncio.create_task(copy(reader, back)), asyncio.create_task(copy(there, writer))))

    proxy = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield proxy.sockets[0].getsockname()[1]
    finally:
        proxy.close()
        for line in lines:
            line.cancel()
        await asyncio.gather(*lines, return_exceptions=True)
        for end in ends:
            end.transport.abort()
